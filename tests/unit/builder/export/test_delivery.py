"""How a disk goes to its client."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from uhm_builder.errors import ClientStalled, InvalidExport, NoSuchImage, StillBuilding
from uhm_builder.export.delivery import Delivery, export_metadata
from uhm_builder.export.exporter import ExportedDisk
from uhm_builder.export.options import DiskFormat, ExportOptions
from uhm_builder.images import Image, Status
from uhm_builder.pieces import PIECE
from uhm_common.phases import Phase
from uhmalguhm.builder.v1 import image_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONTENT = b"a" * PIECE + b"b" * PIECE + b"end"


class OneDisk:
    """An exporter with one finished disk; remembers whether it was given back."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(CONTENT)
        self.disk = ExportedDisk(
            path=path,
            size=len(CONTENT),
            digest="sha256:1",
            format=DiskFormat.RAW,
            filename="shop.raw",
            findings=("command: /bin/öl", "seal: none"),
            phases=(Phase("compose", 0.0, 1.5),),
        )
        self.is_given_back = False
        self.status = Status.READY

    async def get(self, name: str, *, owner: str) -> Image:
        return Image(number=1, id=name, owner=owner, reference="shop", status=self.status, created_at=0)

    @asynccontextmanager
    async def exported(self, image: Image, options: ExportOptions) -> AsyncIterator[ExportedDisk]:
        assert (image.owner, image.id) == ("alice", "shop")
        assert options == ExportOptions(format=DiskFormat.RAW)
        try:
            yield self.disk
        finally:
            self.is_given_back = True


async def deliver(one: OneDisk, send: Any, told: list[Any], disk_format: str = "raw") -> image_pb2.ExportImageResponse:
    async def announce(metadata: Any) -> None:
        told.append(metadata)

    delivery = Delivery(images=one, exporter=one, stall_seconds=0.05)  # type: ignore[arg-type]
    request = image_pb2.ExportImageRequest(id="shop", format=disk_format)
    return await delivery.deliver(request, owner="alice", announce=announce, send=send)


async def test_all_of_it_comes_after_what_is_told_of_it(tmp_path: Path) -> None:
    one, told = OneDisk(tmp_path / "disk"), []  # type: ignore[var-annotated]

    async def send(message: Any) -> None:
        told.append(message)

    last = await deliver(one, send, told)

    assert one.is_given_back
    assert told[0] == export_metadata(one.disk)
    messages = [*told[1:], last]
    assert b"".join(message.body.data for message in messages) == CONTENT
    assert [message.body.content_type for message in messages] == ["application/octet-stream", "", ""]


async def test_who_takes_nothing_is_given_up(tmp_path: Path) -> None:
    one = OneDisk(tmp_path / "disk")

    async def never(message: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ClientStalled, match=r"taken for 0\.05 s, so it was deleted"):
        await deliver(one, never, [])
    assert one.is_given_back


async def test_a_wrong_wish_makes_nothing(tmp_path: Path) -> None:
    told: list[Any] = []
    with pytest.raises(InvalidExport):
        await deliver(OneDisk(tmp_path / "disk"), None, told, disk_format="iso")
    assert told == []


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [(Status.BUILDING, StillBuilding, "is being built"), (Status.FAILED, NoSuchImage, "is failed")],
)
async def test_an_image_that_is_not_ready_has_no_disk(
    tmp_path: Path, status: Status, error: type[Exception], sentence: str
) -> None:
    one = OneDisk(tmp_path / "disk")
    one.status = status
    with pytest.raises(error, match=sentence):
        await deliver(one, None, [])


def test_metadata_is_ascii_and_has_each_finding(tmp_path: Path) -> None:
    metadata = export_metadata(OneDisk(tmp_path / "disk").disk)
    assert all(value.isascii() for _, value in metadata)
    assert [value for name, value in metadata if name == "uhm-findings"] == ["command: /bin/\\xf6l", "seal: none"]
    assert json.loads(dict(metadata)["uhm-phases"]) == [
        {"name": "compose", "start_ms": 0.0, "duration_ms": 1.5, "bytes": 0}
    ]
