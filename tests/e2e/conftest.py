"""One running system for all end-to-end tests, started as a user would, with a registry on loopback as its mirror."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import System
from tests.servers import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def running(tmp_path_factory, mirror):
    """Runs systems: `with running(UHM_SETTING="…") as system:`."""

    @contextmanager
    def run(**settings: str) -> Iterator[System]:
        state_dir = tmp_path_factory.mktemp("system")
        rest_port, grpc_port = free_ports(2)
        passed = {name: value for name, value in os.environ.items() if not name.startswith("UHM_")}
        home = {"HOME": str(state_dir / "home"), "XDG_CONFIG_HOME": str(state_dir / "home" / "config")}
        mirrors = {"UHM_REGISTRY_MIRRORS": f"docker.io={mirror}"}
        env = passed | home | mirrors | settings
        system = System(state_dir=state_dir, rest_port=rest_port, grpc_port=grpc_port, env=env)
        system.up()
        try:
            yield system
        finally:
            system.down()
            shutil.rmtree(system.state_dir)

    return run


@pytest.fixture(scope="session")
def system(running) -> Iterator[System]:
    """The system that tests share; they use users of their own."""
    with running() as system:
        yield system
