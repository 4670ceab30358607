"""Every module of what is shared, and of the auth service, says what it offers, and has it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import uhm_auth
import uhm_common

MODULES = sorted(
    module.name
    for package in (uhm_auth, uhm_common)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.ispkg and "__main__" not in module.name and ".migrations." not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_all(name):
    module = importlib.import_module(name)
    assert [member for member in module.__all__ if not hasattr(module, member)] == []
