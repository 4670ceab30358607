"""A build by the engine's own, older builder, through the SDK: for where no command line reaches BuildKit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from uhm_builder.errors import DockerfileFailed

if TYPE_CHECKING:
    from pathlib import Path

    from uhm_builder.sources.buildkit import BuildOrder
    from uhm_builder.sources.engine import Engine
    from uhm_builder.sources.source import Reporter

__all__ = ["ClassicBuild"]

LAST_LINES = 10
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
INSTALL_BUILDX = "Install docker's buildx (Debian 13, Ubuntu: docker-buildx) where the worker runs."
OWN_WORDS = ("Step ", " ---> ", "Removing intermediate container ")
NEEDS_BUILDKIT = "requires BuildKit"


class ClassicBuild:
    """One build."""

    def __init__(self, order: BuildOrder, *, engine: Engine, reporter: Reporter) -> None:
        self._order = order
        self._engine = engine
        self._reporter = reporter
        self._step: list[str] = []  # what the step that runs has written

    def run(self, archive: Path) -> None:
        """Builds, and passes the output on. Blocks; raises DockerfileFailed, EngineUnreachable."""
        order, wanted = self._order, self._order.context
        if wanted.secret_ids:
            raise DockerfileFailed("Build secrets need BuildKit.", hint=INSTALL_BUILDX)
        with self._engine.errors(order.tag), archive.open("rb") as file:
            entries = self._engine.client.build(
                fileobj=file,
                custom_context=True,
                decode=True,
                tag=order.tag,
                dockerfile=wanted.dockerfile,
                buildargs=wanted.build_args,
                target=wanted.target or None,
                nocache=wanted.no_cache,
                network_mode=order.network or None,
                platform=order.platform or None,
                rm=True,
                forcerm=True,
            )
            for entry in entries:
                self._hear(entry)

    def _hear(self, entry: dict[str, Any]) -> None:
        if "error" in entry:
            last = "\n".join(self._step[-LAST_LINES:])
            error = entry["error"].strip()
            hint = INSTALL_BUILDX if NEEDS_BUILDKIT in error else ""
            raise DockerfileFailed(f"{error}\n{last}".strip(), hint=hint)
        text = entry.get("stream") or " ".join(
            part for part in (entry.get("id"), entry.get("status")) if part and not entry.get("progressDetail")
        )
        for line in ANSI.sub("", text).splitlines():
            if not line.strip():
                continue
            if line.startswith("Step "):
                self._step = []
            if not line.startswith(OWN_WORDS):
                self._step.append(line)
            self._reporter.output(line)
