"""One running system for all end-to-end tests, started as a user would, with a registry on loopback as its mirror."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.e2e.harness import System, free_ports
from tools.local_registry import ensure_images, registry


@pytest.fixture(scope="session")
def mirror():
    """A registry with debian, nginx and hello in it."""
    ensure_images()
    with registry() as url:
        yield url


@pytest.fixture(scope="session")
def new_system(tmp_path_factory, mirror):
    """Makes systems; every one of them is taken down at the end."""
    made = []

    def make(**settings: str) -> System:
        state_dir = tmp_path_factory.mktemp("system")
        rest_port, grpc_port = free_ports(2)
        passed = {name: value for name, value in os.environ.items() if not name.startswith("UHM_")}
        home = {"HOME": str(state_dir / "home"), "XDG_CONFIG_HOME": str(state_dir / "home" / "config")}
        mirrors = {"UHM_REGISTRY_MIRRORS": f"docker.io={mirror}"}
        env = passed | home | mirrors | settings
        system = System(state_dir=state_dir, rest_port=rest_port, grpc_port=grpc_port, env=env)
        made.append(system)
        system.up()
        return system

    yield make
    for system in made:
        system.down()
        shutil.rmtree(system.state_dir)


@pytest.fixture(scope="session")
def system(new_system) -> System:
    """The system that tests share; they use users of their own."""
    return new_system()
