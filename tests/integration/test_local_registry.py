"""The local registry serves real images, and makes nothing twice."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

from tools.local_registry import ensure_images, registry

pytestmark = pytest.mark.integration

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(scope="module", autouse=True)
def _images():
    ensure_images()


def fetch(url: str, *, accept: str = "*/*") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:
        return answer.read()


def image(url: str, repository: str, tag: str = "latest") -> tuple[list[str], dict]:
    """The layers' digests and the configuration of an image."""
    manifest = json.loads(fetch(f"{url}/v2/{repository}/manifests/{tag}", accept=MANIFEST))
    config = json.loads(fetch(f"{url}/v2/{repository}/blobs/{manifest['config']['digest']}"))
    return [layer["digest"] for layer in manifest["layers"]], config["config"]


def test_nginx_is_one_layer_on_debian():
    with registry() as url:
        layers, config = image(url, "library/nginx")
        assert layers[:-1] == image(url, "library/debian", "bookworm")[0]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["StopSignal"] == "SIGQUIT"


def test_hello_is_one_program():
    with registry() as url:
        layers, config = image(url, "library/hello")
    assert len(layers) == 1
    assert config["Entrypoint"] == ["/hello"]


def test_two_registries_serve_at_a_time():
    with registry() as one, registry() as other:
        assert one != other
        assert fetch(f"{one}/v2/_catalog") == fetch(f"{other}/v2/_catalog")


def test_the_second_time_nothing_is_done():
    started = time.monotonic()
    ensure_images("tcp://127.0.0.1:9")  # where no engine could answer
    assert time.monotonic() - started < 0.5
