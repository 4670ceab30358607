"""Every module of what is shared, and of the auth service, says what it offers, and has it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import uhm_auth
import uhm_common

MODULES = sorted(
    f"{package.__name__}.{module.name}"
    for package in (uhm_auth, uhm_common)
    for module in pkgutil.iter_modules(package.__path__)
    if module.name not in ("__main__", "migrations")
)


@pytest.mark.parametrize("name", MODULES)
def test_all(name):
    module = importlib.import_module(name)
    assert [member for member in module.__all__ if not hasattr(module, member)] == []
