"""Which images the local registry makes, and when it makes them anew."""

from __future__ import annotations

import pytest

from tools.local_registry.images import Example, examples
from tools.local_registry.server import registry
from uhm_common.errors import Unavailable


def test_every_dockerfile_of_the_examples_is_an_image():
    assert [example.repository for example in examples()] == ["library/hello", "library/nginx"]


@pytest.mark.parametrize("name", ["Dockerfile", "new file"])
def test_digest_follows_every_file(tmp_path, name):
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    example = Example(repository="library/any", context=tmp_path)
    before = example.digest()
    assert example.digest() == before
    (tmp_path / name).write_text("FROM debian")
    assert example.digest() != before


def test_a_registry_that_ends_says_why(tmp_path, monkeypatch):
    program = tmp_path / "docker-registry"
    program.write_text("#!/bin/sh\necho no such directory >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("tools.local_registry.server.BUILD_TOOLS", tmp_path)
    with pytest.raises(Unavailable, match="no such directory"), registry(directory=tmp_path):
        pass
