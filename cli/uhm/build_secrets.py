"""`--secret` of `uhm build` as docker has it: `id=ID,src=FILE`, `id=ID,env=NAME`, or `id=ID` for either so called."""

from __future__ import annotations

import base64
import csv
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["parse_secrets"]

BYTES_MAX = 500 << 10
FIELDS = {"id": "id", "src": "src", "source": "src", "env": "env", "type": "type"}


def parse_secrets(entries: Iterable[str], *, own: Mapping[str, str]) -> dict[str, str]:
    """Contents by id, as the API wants bytes. Raises BadParameter, and CommandError for a file that cannot be read."""
    return {name: base64.b64encode(content).decode() for name, content in (_secret(each, own) for each in entries)}


def _secret(entry: str, own: Mapping[str, str]) -> tuple[str, bytes]:
    fields = {}
    for word in next(csv.reader([entry]), []):
        key, equals, value = word.partition("=")
        if not equals or key not in FIELDS:
            raise _wrong(entry, f"{word!r} is not one of id=…, src=…, env=…")
        fields[FIELDS[key]] = value
    name = fields.get("id", "")
    if not name:
        raise _wrong(entry, "it has no id")
    if "src" in fields and "env" in fields:
        raise _wrong(entry, "src and env exclude each other")
    variable = fields.get("env", "" if "src" in fields or name not in own else name)
    if variable:
        if variable not in own:
            raise _wrong(entry, f"the variable {variable} is not set")
        return name, own[variable].encode(errors="surrogateescape")
    content = _read(Path(fields.get("src") or name), entry)
    if len(content) > BYTES_MAX:
        raise _wrong(entry, f"a secret may have {BYTES_MAX} bytes")
    return name, content


def _read(path: Path, entry: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BYTES_MAX + 1)
    except OSError as error:
        raise _wrong(entry, f"{path} cannot be read: {error.strerror}") from error


def _wrong(entry: str, why: str) -> click.BadParameter:
    return click.BadParameter(f"{entry!r}: {why}.", param_hint="--secret")
