"""What can be put on top of an image, offline: values, and their form in the database."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CopyIn", "Customization", "SshKey", "UserAccount", "WriteFile", "customization_of", "customization_record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyIn:
    """An uploaded tar archive, and the directory to unpack it in."""

    context: str
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """A file."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    """`user[:group]`, by name or number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshKey:
    """A line of a user's authorized_keys."""

    key: str
    user: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAccount:
    """A user; what is empty or 0 has the default that the API documents."""

    name: str
    uid: int = 0
    groups: tuple[str, ...] = ()
    shell: str = ""
    home: str = ""
    password_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Customization:
    """All that is put on top of an image."""

    image: str
    """Id of the image below."""
    copy_in: tuple[CopyIn, ...] = ()
    write: tuple[WriteFile, ...] = ()
    ssh_keys: tuple[SshKey, ...] = ()
    hostname: str = ""
    users: tuple[UserAccount, ...] = ()
    run_first_boot: tuple[str, ...] = ()


def customization_record(customization: Customization) -> dict[str, Any]:
    """As JSON can hold it."""
    record = asdict(customization)
    for write in record["write"]:
        write["content"] = base64.b64encode(write["content"]).decode()
    return record


def customization_of(record: dict[str, Any]) -> Customization:
    """From what `customization_record` and JSON made of it."""
    return Customization(
        image=record["image"],
        copy_in=tuple(CopyIn(**each) for each in record["copy_in"]),
        write=tuple(WriteFile(**each | {"content": base64.b64decode(each["content"])}) for each in record["write"]),
        ssh_keys=tuple(SshKey(**each) for each in record["ssh_keys"]),
        hostname=record["hostname"],
        users=tuple(UserAccount(**each | {"groups": tuple(each["groups"])}) for each in record["users"]),
        run_first_boot=tuple(record["run_first_boot"]),
    )
