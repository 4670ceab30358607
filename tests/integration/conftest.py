"""What the tests with real programs share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """The base takes half a minute to make, so the first builder makes it and the others get it as files."""
    return tmp_path_factory.mktemp("bases")
