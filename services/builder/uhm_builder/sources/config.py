"""An image's configuration document: what running the image needs of it, and its layers' diffIDs.

Specification: OCI image specification 1.1, config.md; docker's own form has the same fields.
"""

from __future__ import annotations

import json
import re
from typing import Any

from uhm_builder.errors import UnsupportedImage
from uhm_builder.images import ImageConfig

__all__ = ["parse_config"]

_DIFF_ID = re.compile(r"sha256:[a-f0-9]{64}")


def parse_config(document: bytes, *, architecture: str) -> tuple[ImageConfig, tuple[str, ...]]:
    """Read a configuration document: the configuration and the diffIDs, the bottom layer first.

    Raises UnsupportedImage where it is not that of a Linux container image for this architecture.
    """
    try:
        record: dict[str, Any] = json.loads(document)
        rootfs = record["rootfs"]
        diff_ids = tuple(str(diff_id) for diff_id in rootfs["diff_ids"] or ())
    except (ValueError, KeyError, TypeError) as error:
        raise UnsupportedImage("This is not a container image: its configuration names no layers.") from error
    for diff_id in diff_ids:
        if not _DIFF_ID.fullmatch(diff_id):
            raise UnsupportedImage(f"The image's configuration names a layer {diff_id[:80]!r}, which is no digest.")
    system, made_for = record.get("os", "linux"), record.get("architecture", "")
    if system != "linux" or (made_for and made_for != architecture):
        raise UnsupportedImage(
            f"The image is for {system}/{made_for}; this machine runs linux/{architecture}.",
            hint="Choose a tag for this platform.",
        )
    settings = record.get("config") or {}
    config = ImageConfig(
        entrypoint=_words(settings.get("Entrypoint")),
        cmd=_words(settings.get("Cmd")),
        env=_words(settings.get("Env")),
        working_dir=settings.get("WorkingDir") or "",
        user=settings.get("User") or "",
        exposed_ports=tuple(sorted(settings.get("ExposedPorts") or ())),
        stop_signal=settings.get("StopSignal") or "",
        labels={str(key): str(value) for key, value in (settings.get("Labels") or {}).items()},
        volumes=tuple(sorted(settings.get("Volumes") or ())),
        architecture=made_for or architecture,
    )
    return config, diff_ids


def _words(value: object) -> tuple[str, ...]:
    """A list of words; a single word, which some tools write, counts as one."""
    if value is None:
        return ()
    return tuple(str(word) for word in value) if isinstance(value, list) else (str(value),)
