"""What is inside of an image, as messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.api.httpbody_pb2 import HttpBody

from uhm_builder.customization import CopyIn, Customization, SshKey, UserAccount, WriteFile
from uhm_builder.errors import InvalidCustomization
from uhm_builder.inside.entries import shown
from uhmalguhm.builder.v1 import image_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uhm_builder.inside.diff import Change
    from uhm_builder.inside.entries import Entry
    from uhm_builder.inside.files import FilePage
    from uhm_builder.inside.sbom import Sbom

__all__ = ["changes_message", "files_message", "piece_message", "sbom_message", "wished_customization"]

MODE = re.compile(r"[0-7]{1,5}")


def files_message(page: FilePage) -> image_pb2.ListFilesResponse:
    """A page of files."""
    return image_pb2.ListFilesResponse(files=map(_file, page.entries), next_page_token=page.next_token)


def piece_message(piece: bytes) -> image_pb2.ReadFileResponse:
    """A piece of a file."""
    return image_pb2.ReadFileResponse(body=HttpBody(content_type="application/octet-stream", data=piece))


def changes_message(changes: Sequence[Change]) -> image_pb2.DiffImagesResponse:
    """What differs."""
    return image_pb2.DiffImagesResponse(
        changes=[image_pb2.FileChange(path=shown(change.path), kind=change.kind) for change in changes]
    )


def sbom_message(sbom: Sbom) -> image_pb2.GetSbomResponse:
    """A bill of materials."""
    return image_pb2.GetSbomResponse(body=HttpBody(content_type=sbom.content_type, data=sbom.content))


def wished_customization(message: image_pb2.Customization) -> Customization:
    """What is asked to be put on top of an image. Raises InvalidCustomization."""
    return Customization(
        image=message.image,
        copy_in=tuple(CopyIn(context=each.context, directory=each.directory) for each in message.copy_in),
        write=tuple(
            WriteFile(path=each.path, content=each.content, mode=_mode(each.mode), owner=each.owner or "root")
            for each in message.write
        ),
        ssh_keys=tuple(SshKey(key=each.key.strip(), user=each.user or "root") for each in message.ssh_keys),
        hostname=message.hostname,
        users=tuple(
            UserAccount(
                name=each.name,
                uid=each.uid,
                groups=tuple(each.groups),
                shell=each.shell,
                home=each.home,
                password_hash=each.password_hash,
            )
            for each in message.users
        ),
        run_first_boot=tuple(message.run_first_boot),
    )


def _mode(text: str) -> int:
    """Permission bits from their octal form. Raises InvalidCustomization."""
    if text and not MODE.fullmatch(text):
        raise InvalidCustomization(f"{text!r} are no permission bits.", hint="Octal, as in chmod: 0644.")
    return int(text or "0644", 8)


def _file(entry: Entry) -> image_pb2.File:
    return image_pb2.File(
        path=shown(entry.path),
        type=entry.kind,
        mode=f"{entry.mode:04o}",
        uid=entry.uid,
        gid=entry.gid,
        size_bytes=entry.size,
        target=entry.target,
    )
