"""Weaving a layer's archive together again out of what an overlay2 engine keeps."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from uhm_builder.sources.layerdb import LayerDatabase, LayerUnreadable
from uhm_builder.sources.saved_stream import chain_ids

FILES = {
    "./etc/": None,
    "./etc/one": b"1" * 1000,
    "etc/deep/er/two": b"2" * 512,
    "zero": b"",
    "etc/\udce9": b"\xe9",
    "last": b"3",
}
LOWER = "sha256:" + "a" * 64


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


def tar_split(tar: bytes) -> list[dict]:
    """A record in the form of github.com/vbatts/tar-split, tar/storage."""
    entries, at = [], 0

    def segment(upto):
        return {"type": 2, "payload": base64.b64encode(tar[at:upto]).decode(), "position": len(entries)}

    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as opened:
        members = opened.getmembers()
    for member in members:
        entries.append(segment(member.offset_data))
        raw = os.fsencode(member.name)
        named = {"name": member.name} if raw.isascii() else {"name_raw": base64.b64encode(raw).decode()}
        entries.append(named | {"type": 1, "size": member.size, "payload": "AAAAAAAAAAA=", "position": len(entries)})
        at = member.offset_data + member.size
    entries.append(segment(len(tar)))
    return entries


@pytest.fixture
def stored(tmp_path):
    """An engine's directories with one layer on another that they lack; and what `docker inspect` says of it."""
    tar = archive()
    diff_ids = [LOWER, f"sha256:{hashlib.sha256(tar).hexdigest()}"]
    root = tmp_path / "docker"
    files = root / "overlay2" / "abc123" / "diff"
    files.mkdir(parents=True)
    for name, content in FILES.items():
        if content is not None:
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_bytes(content)
    record = root / "image" / "overlay2" / "layerdb" / "sha256" / chain_ids(diff_ids)[1].removeprefix("sha256:")
    record.mkdir(parents=True)
    (record / "cache-id").write_text("abc123")
    (record / "size").write_text("1514")
    write_record(record, tar_split(tar))
    inspected = {"GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": str(files)}}}
    return inspected, diff_ids, files, record


def write_record(record, entries):
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (record / "tar-split.json.gz").write_bytes(gzip.compress(lines.encode()))


def only(inspected, diff_ids):
    (layer,) = LayerDatabase.of(inspected).layers(diff_ids).values()
    return layer


def test_the_archive_comes_out_again(stored):
    inspected, diff_ids, _, _ = stored

    found = LayerDatabase.of(inspected).layers(diff_ids)

    assert list(found) == diff_ids[1:]
    assert b"".join(found[diff_ids[1]].pieces()) == archive()
    assert found[diff_ids[1]].size == 1514


def test_no_descriptor_stays_open(stored):
    inspected, diff_ids, files, _ = stored
    before = len(list(Path("/proc/self/fd").iterdir()))
    list(only(inspected, diff_ids).pieces())
    (files / "last").unlink()
    with pytest.raises(LayerUnreadable):
        list(only(inspected, diff_ids).pieces())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def as_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def as_fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("etc", as_link),
        ("etc/one", as_link),
        ("etc/one", as_fifo),
        ("etc/one", lambda path: path.write_bytes(b"short")),
        ("last", lambda path: path.unlink()),
    ],
)
def test_what_is_not_as_recorded_is_not_read(stored, name, change):
    inspected, diff_ids, files, _ = stored
    change(files / name)
    with pytest.raises(LayerUnreadable):
        list(only(inspected, diff_ids).pieces())


@pytest.mark.parametrize(
    "entries",
    [
        [{"type": 1, "name": "../../secret", "size": 6}],
        [{"type": 1, "name": "etc/../../../secret", "size": 6}],
        [{"type": 1, "size": 6}],
        [{"type": 2, "payload": 7}],
        [7],
    ],
)
def test_a_record_that_leads_elsewhere_is_refused(stored, entries):
    inspected, diff_ids, files, record = stored
    (files.parents[1] / "secret").write_bytes(b"secret")
    write_record(record, entries)
    with pytest.raises(LayerUnreadable):
        list(only(inspected, diff_ids).pieces())


def test_a_record_that_ends_early_is_refused(stored):
    inspected, diff_ids, _, record = stored
    whole = (record / "tar-split.json.gz").read_bytes()
    (record / "tar-split.json.gz").write_bytes(whole[:-20])
    with pytest.raises(LayerUnreadable):
        list(only(inspected, diff_ids).pieces())


@pytest.mark.parametrize(
    "inspected",
    [
        {},
        {"GraphDriver": None},
        {"GraphDriver": {"Name": "overlayfs", "Data": None}},
        {"GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/nowhere/overlay2/x/diff"}}},
        {"GraphDriver": {"Name": "btrfs", "Data": {"UpperDir": "/"}}},
    ],
)
def test_another_engine_has_none(inspected):
    assert LayerDatabase.of(inspected) is None


def test_a_cache_id_is_one_name(stored):
    inspected, diff_ids, _, record = stored
    (record / "cache-id").write_text("../../..")
    assert LayerDatabase.of(inspected).layers(diff_ids) == {}
