"""What `uhm customize` puts on top of an image: from its options to the API's messages."""

from __future__ import annotations

import base64
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from uhm.context import BuildContext, PackedContext
from uhm.ignore import IgnoreRules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["open_copy", "parse_keys", "parse_users", "parse_writes"]

HASH = "password_hash="


def parse_writes(texts: Sequence[str], *, chmod: Sequence[str], chown: Sequence[str]) -> list[dict[str, Any]]:
    """`FILE:CONTENT`, with `MODE:FILE` and `USER[:GROUP]:FILE` of the same files."""
    writes: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, content = _split(text, "--write", "FILE:CONTENT")
        writes[path] = {"path": path, "content": base64.b64encode(content.encode()).decode()}
    for option, field, values in (("--chmod", "mode", chmod), ("--chown", "owner", chown)):
        for text in values:
            value, colon, path = text.rpartition(":")
            if not colon or path not in writes:
                raise click.BadParameter(f"{text!r} names no file that --write writes.", param_hint=option)
            writes[path][field] = value
    return list(writes.values())


def parse_keys(texts: Sequence[str]) -> list[dict[str, str]]:
    """`[USER:]file:PATH` and `[USER:]string:KEY`; a file may hold several keys, and comments."""
    keys = []
    for text in texts:
        head, _, rest = text.partition(":")
        user, kind, value = ("root", head, rest) if head in {"file", "string"} else (head, *rest.partition(":")[::2])
        if kind not in {"file", "string"} or not value:
            raise click.BadParameter(f"{text!r} is not [USER:]file:PATH or [USER:]string:KEY.", param_hint="--ssh-key")
        lines = [value] if kind == "string" else Path(value).expanduser().read_text().splitlines()
        keys += [{"user": user, "key": line} for line in lines if line.strip() and not line.startswith("#")]
    return keys


def parse_users(texts: Sequence[str]) -> list[dict[str, Any]]:
    """`NAME[:KEY=VALUE,…]`; a password's hash may have commas, so it is all that follows."""
    return [_user(text) for text in texts]


def _user(text: str) -> dict[str, Any]:
    name, _, rest = text.partition(":")
    settings, marker, password_hash = rest.partition(HASH)
    user: dict[str, Any] = {"name": name}
    if marker:
        user["password_hash"] = password_hash
    for setting in filter(None, settings.split(",")):
        key, equals, value = setting.partition("=")
        if not equals or key not in {"uid", "groups", "shell", "home"}:
            raise click.BadParameter(
                f"{setting!r} is none of uid=, groups=, shell=, home=, password_hash=.", param_hint="--user"
            )
        if key == "uid" and not value.isdecimal():
            raise click.BadParameter(f"{value!r} is no user's number.", param_hint="--user")
        user[key] = value.split("+") if key == "groups" else int(value) if key == "uid" else value
    return user


@contextmanager
def open_copy(text: str) -> Iterator[tuple[BuildContext | PackedContext, str]]:
    """The archive of what `PATH:DIR` names, and the directory to unpack it in.

    Like `cp -r` and virt-customize: a directory's own name is made below DIR.
    """
    source, directory = _split(text, "--copy-in", "PATH:DIR")
    path = Path(source)
    if path.is_dir():
        yield BuildContext(path, IgnoreRules([]), ""), f"{directory.rstrip('/')}/{path.resolve().name}"
    elif path.is_file():
        with PackedContext(_packed(path), dockerfile="") as content:
            yield content, directory
    else:
        raise click.BadParameter(f"{source!r} is no file and no directory.", param_hint="--copy-in")


def _packed(path: Path) -> IO[bytes]:
    """An archive with one file, which nobody owns."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever gets it closes it
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        header = tar.gettarinfo(path, arcname=path.name)
        header.uid = header.gid = 0
        header.uname = header.gname = ""
        header.mtime = int(header.mtime)
        with path.open("rb") as content:
            tar.addfile(header, content)
    return file


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    before, _, after = text.partition(":")
    if not before or not after:
        raise click.BadParameter(f"{text!r} is not {form}.", param_hint=option)
    return before, after
