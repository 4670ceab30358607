"""Every module of the machines service says what it offers, and has it."""

import importlib
import pkgutil

import pytest

import uhm_machines

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(uhm_machines.__path__, "uhm_machines.")
    if not module.ispkg and not module.name.endswith("__main__") and "migrations" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_all(name):
    module = importlib.import_module(name)
    assert [member for member in module.__all__ if not hasattr(module, member)] == []
