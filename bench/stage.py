"""What is measured, brought up for the occasion: a system, and docker beside it, with images out of one registry."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.system import Api, docker, own_system
from tools.local_registry import ensure_images, registry
from uhm_common.dockerd import PrivateDockerd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Stage", "end_on_sigterm", "engine_and_system", "only_system"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`engine` is as in DOCKER_HOST; `state_dir` is None where the system was not started for the occasion."""

    api: Api
    engine: str
    state_dir: Path | None


@contextmanager
def engine_and_system(images: Sequence[str], *, url: str | None = None) -> Iterator[Stage]:
    """Both hold the images. `url` is a system that runs already (its token in UHM_TOKEN)."""
    ensure_images()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uhm-bench-")))
        mirror = stack.enter_context(registry())
        engine = PrivateDockerd(directory / "engine", registry_mirror=mirror, bridge=True)
        stack.callback(engine.remove)
        engine.start()
        state_dir = directory / "state"
        api = Api(url, token=os.environ["UHM_TOKEN"]) if url else stack.enter_context(own_system(state_dir, mirror))
        stack.callback(api.close)
        for image in images:
            docker(engine.host, "pull", "--quiet", image)
            api.make_image(image)
        yield Stage(api=api, engine=engine.host, state_dir=None if url else state_dir)


@contextmanager
def only_system(image: str) -> Iterator[tuple[Api, Path]]:
    """A system that holds an image, and its state directory."""
    ensure_images()
    with tempfile.TemporaryDirectory(prefix="uhm-bench-") as directory, registry() as mirror:
        state_dir = Path(directory) / "state"
        with own_system(state_dir, mirror) as api:
            api.make_image(image)
            yield api, state_dir
            api.close()


def end_on_sigterm() -> None:
    """Has SIGTERM take down what was brought up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
