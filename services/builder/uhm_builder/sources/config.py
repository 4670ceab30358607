"""An image's configuration document: what running the image needs of it, and its layers' diffIDs.

Specification: OCI image specification 1.1, config.md; docker's own form (docker image specification 1.2) has the same
fields, and two more that are read: Healthcheck and Shell.
"""

from __future__ import annotations

import json
import re
from typing import Any

from uhm_builder.errors import UnsupportedImage
from uhm_builder.images import Healthcheck, ImageConfig
from uhm_builder.sources.platforms import Platform

__all__ = ["made_for", "parse_config"]

SHELL = ("/bin/sh", "-c")
"""Docker's, where the image names no other."""
MILLISECOND_NS = 1_000_000
DEFAULT_NS = 30_000 * MILLISECOND_NS
DEFAULT_RETRIES = 3

_DIFF_ID = re.compile(r"sha256:[a-f0-9]{64}")


def parse_config(document: bytes, *, architecture: str) -> tuple[ImageConfig, tuple[str, ...]]:
    """Read a configuration document: the configuration and the diffIDs, the bottom layer first.

    Raises UnsupportedImage where it is not that of a Linux container image for this architecture.
    """
    record = _record(document)
    try:
        diff_ids = tuple(str(diff_id) for diff_id in record["rootfs"]["diff_ids"] or ())
    except (KeyError, TypeError) as error:
        raise UnsupportedImage("This is not a container image: its configuration names no layers.") from error
    for diff_id in diff_ids:
        if not _DIFF_ID.fullmatch(diff_id):
            raise UnsupportedImage(f"The image's configuration names a layer {diff_id[:80]!r}, which is no digest.")
    platform = _platform(record, default=architecture)
    if (platform.os, platform.architecture) != ("linux", architecture):
        raise UnsupportedImage(
            f"The image is for {platform}; this machine runs linux/{architecture}.",
            hint="Choose a tag for this platform.",
        )
    try:
        return _image_config(record.get("config") or {}, architecture=architecture), diff_ids
    except (AttributeError, TypeError) as error:
        raise UnsupportedImage("The image's configuration is not in the form of the specification.") from error


def made_for(document: bytes, *, architecture: str) -> Platform:
    """The platform in a configuration document, of this architecture if it names none. Raises UnsupportedImage."""
    return _platform(_record(document), default=architecture)


def _record(document: bytes) -> dict[str, Any]:
    try:
        record = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise UnsupportedImage("The image's configuration is not valid JSON.") from error
    if not isinstance(record, dict):
        raise UnsupportedImage("This is not a container image: its configuration is not an object.")
    return record


def _platform(record: dict[str, Any], *, default: str) -> Platform:
    system, architecture = record.get("os") or "linux", record.get("architecture") or default
    return Platform(os=str(system), architecture=str(architecture), variant=str(record.get("variant") or ""))


def _image_config(settings: dict[str, Any], *, architecture: str) -> ImageConfig:
    return ImageConfig(
        entrypoint=_words(settings.get("Entrypoint")),
        cmd=_words(settings.get("Cmd")),
        env=_words(settings.get("Env")),
        working_dir=str(settings.get("WorkingDir") or ""),
        user=str(settings.get("User") or ""),
        exposed_ports=tuple(sorted(settings.get("ExposedPorts") or ())),
        stop_signal=str(settings.get("StopSignal") or ""),
        labels={str(key): str(value) for key, value in (settings.get("Labels") or {}).items()},
        volumes=tuple(sorted(settings.get("Volumes") or ())),
        architecture=architecture,
        healthcheck=_healthcheck(settings.get("Healthcheck"), shell=_words(settings.get("Shell")) or SHELL),
    )


def _words(value: object) -> tuple[str, ...]:
    """A list of words; a single word, which some tools write, counts as one."""
    if value is None:
        return ()
    return tuple(str(word) for word in value) if isinstance(value, list) else (str(value),)


def _healthcheck(record: object, *, shell: tuple[str, ...]) -> Healthcheck | None:
    """Docker's Healthcheck with its defaults filled in; None for none, and for what docker would not execute."""
    if not isinstance(record, dict):
        return None
    match record.get("Test"):
        case ["CMD", *words]:
            before: tuple[str, ...] = ()
        case ["CMD-SHELL", *words]:
            before = shell
        case _:  # NONE, nothing, or nothing that docker knows
            return None
    command = tuple(word for word in words if isinstance(word, str))
    if len(command) < len(words) or not command or not command[0]:
        return None
    try:
        return Healthcheck(
            command=before + command,
            interval_ns=_duration(record.get("Interval"), default=DEFAULT_NS),
            timeout_ns=_duration(record.get("Timeout"), default=DEFAULT_NS),
            start_period_ns=_duration(record.get("StartPeriod"), default=0),
            retries=_whole(record.get("Retries"), default=DEFAULT_RETRIES, at_most=2**31 - 1),
        )
    except ValueError:
        return None


def _duration(value: object, *, default: int) -> int:
    """Nanoseconds, of which docker takes none below a millisecond. Raises ValueError."""
    duration = _whole(value, default=default, at_most=2**63 - 1)
    if 0 < duration < MILLISECOND_NS:
        raise ValueError(value)
    return duration


def _whole(value: object, *, default: int, at_most: int) -> int:
    """A number that 0 or its absence stands for the default of. Raises ValueError."""
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= at_most:
        raise ValueError(value)
    return value or default
