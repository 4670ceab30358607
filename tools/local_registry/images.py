"""Makes the images that the local registry serves, each once per version of what it is made from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from docker.errors import ImageNotFound

from tools.local_registry.engine import engine
from tools.local_registry.paths import DIRECTORY, EXAMPLES
from tools.local_registry.server import registry
from uhm_common.artifacts import locked
from uhm_common.errors import Unavailable
from uhm_common.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

__all__ = ["ensure_images"]

SUITE = "bookworm"
BASE = "library/debian"
BASE_TAGS = (SUITE, "latest")
BASE_NAME = f"debian:{SUITE}"
MMDEBSTRAP = ("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", SUITE)
MMDEBSTRAP_SECONDS = 900
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An image made from a directory with a Dockerfile."""

    repository: str
    context: Path

    def digest(self) -> str:
        """Of all that the image is made from, so that a change is noticed."""
        state = hashlib.sha256(_base_digest().encode())
        for path in sorted(self.context.iterdir()):
            state.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return state.hexdigest()


def ensure_images(engine_host: str | None = None, *, directory: Path = DIRECTORY) -> None:
    """Makes the images that are missing or whose Dockerfile has changed; with nothing to do it takes milliseconds.

    Builds with the engine at `engine_host`, else with the one that runs, else with one of its own (as root).
    """
    with locked(directory / "lock", exclusive=True):
        stamp = directory / "data" / "images.json"
        made: dict[str, str] = json.loads(stamp.read_text()) if stamp.exists() else {}
        stale = [example for example in examples() if made.get(example.repository) != example.digest()]
        if made.get(BASE) == _base_digest() and not stale:
            return
        with registry(directory=directory) as url, engine(engine_host, scratch=directory / "engine") as client:
            address = urlsplit(url).netloc
            with _base(client, address, exists=made.get(BASE) == _base_digest()):
                made[BASE] = _base_digest()
                _save(stamp, made)
                for example in stale:
                    _build(client, address, example)
                    made[example.repository] = example.digest()
                    _save(stamp, made)


def examples() -> list[Example]:
    """Every directory under `examples/` that holds a Dockerfile."""
    return [
        Example(repository=f"library/{dockerfile.parent.name}", context=dockerfile.parent)
        for dockerfile in sorted(EXAMPLES.glob("*/Dockerfile"))
    ]


@contextmanager
def _base(client: DockerClient, address: str, *, exists: bool) -> Iterator[None]:
    """Gives the engine our Debian under the name that Dockerfiles use, for as long as they are built.

    An engine that has another image by that name gets it back.
    """
    reference = f"{address}/{BASE}:{SUITE}"
    if exists:
        client.images.pull(f"{address}/{BASE}", tag=SUITE)
    else:
        _make_base(client, address)
    with _named(client, reference, BASE_NAME):
        yield
    for tag in {SUITE} if exists else set(BASE_TAGS):
        client.images.remove(f"{address}/{BASE}:{tag}")


def _make_base(client: DockerClient, address: str) -> None:
    """Makes a minimal Debian out of its packages and pushes it."""
    with tempfile.TemporaryDirectory(prefix="uhm-debian-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)  # mmdebstrap works there as other users, too
        tar = Path(scratch, "debian.tar")
        run([*MMDEBSTRAP, tar], timeout=MMDEBSTRAP_SECONDS, env=_proxies() | {"TMPDIR": scratch})
        for tag in BASE_TAGS:
            client.api.import_image_from_file(str(tar), f"{address}/{BASE}", tag, changes=['CMD ["bash"]'])
            _push(client, f"{address}/{BASE}", tag)


def _build(client: DockerClient, address: str, example: Example) -> None:
    """Builds and pushes an example; the network is the host's because a private engine has no other."""
    repository = f"{address}/{example.repository}"
    client.images.build(
        path=str(example.context), tag=f"{repository}:latest", network_mode="host", forcerm=True, buildargs=_proxies()
    )
    _push(client, repository, "latest")
    client.images.remove(f"{repository}:latest")


def _push(client: DockerClient, repository: str, tag: str) -> None:
    """Pushes; the SDK reports failures only as entries of the progress."""
    for entry in client.images.push(repository, tag=tag, stream=True, decode=True):
        if "error" in entry:
            raise Unavailable(f"{repository}:{tag} could not be pushed: {entry['error']}")


@contextmanager
def _named(client: DockerClient, reference: str, name: str) -> Iterator[None]:
    """Gives an image a second name for a while."""
    try:
        previous = client.images.get(name)
    except ImageNotFound:
        previous = None
    client.images.get(reference).tag(name)
    try:
        yield
    finally:
        if previous is None:
            client.images.remove(name)
        else:
            previous.tag(name)


def _base_digest() -> str:
    return hashlib.sha256("\0".join(MMDEBSTRAP).encode()).hexdigest()


def _proxies() -> dict[str, str]:
    """The proxies that this machine reaches package servers through."""
    return {name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ}


def _save(stamp: Path, made: dict[str, str]) -> None:
    """Replaces the record of what is in the registry at once. It is beside the data, so that both vanish together."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    fresh = stamp.with_suffix(".new")
    fresh.write_text(json.dumps(made, indent=1))
    fresh.rename(stamp)
