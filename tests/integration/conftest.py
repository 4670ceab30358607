"""What the tests with real programs share."""

from __future__ import annotations

import os
import shutil

import pytest

from uhm_common.dockerd import PrivateDockerd


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """The base takes half a minute to make, so the first builder makes it and the others get it as files."""
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module")
def engine(tmp_path_factory, mirror):
    """A Docker Engine of our own, which gets images from the registry on loopback."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a Docker Engine of our own needs root and dockerd")
    with PrivateDockerd(tmp_path_factory.mktemp("docker"), registry_mirror=mirror) as engine:
        yield engine
