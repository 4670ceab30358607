"""An export that nobody waits for any more, with a stand-in for libguestfs that never launches."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from uhm_builder.export.exporter import Exporter
from uhm_builder.export.options import ExportOptions

STAND_IN = """
import pathlib, time

class GuestFS:
    def __init__(self, python_return_dict):
        pass

    def __getattr__(self, name):
        return lambda *args, **kwargs: None

    def launch(self):
        pathlib.Path(__file__).with_name("launching").touch()
        time.sleep(30)
"""


async def test_a_cancelled_look_into_a_disk_ends_and_gives_its_place_back(tmp_path, monkeypatch, artifacts):
    (tmp_path / "guestfs.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)

    async def convert(_composed, path, **_options):
        path.touch()

    monkeypatch.setattr("uhm_builder.export.exporter.convert", convert)
    monkeypatch.setattr(Exporter, "_compose", lambda *_: None)
    exporter = Exporter(artifacts=artifacts, kvm=False, parallel=1)
    image = SimpleNamespace(id="i", reference="one:latest")

    async def export(*, verify):
        async with exporter.exported(image, ExportOptions(verify=verify)) as disk:
            return disk.filename

    verifying = asyncio.create_task(export(verify=True))
    async with asyncio.timeout(30):
        while not (tmp_path / "launching").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.02)
    begun = time.monotonic()
    verifying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await verifying
    assert time.monotonic() - begun < 10
    assert await export(verify=False) == "one.qcow2"
    assert not list(artifacts.root.glob("staging/*"))
