"""`uhm load`, `uhm df`, `uhm gc`."""

from __future__ import annotations

import io
import sys
import tarfile
from datetime import UTC, datetime

import click
import pytest

from tests.unit.cli.conftest import Stream
from uhm.render.usage import quota_line, shares_table, usage_table
from uhm.values import seconds

IMAGE = {
    "id": "i" * 32,
    "reference": "shop:1",
    "status": "ready",
    "size_bytes": "182000000",
    "layers": [],
    "stages": [],
}
USAGE = {"images": 3, "layer_bytes": "445000000", "unshared_bytes": "120000000", "store_bytes": "1200000000",
         "reclaimable_bytes": "300000000", "free_bytes": "55000000000"}  # fmt: skip
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def loading(server):
    """A server that takes uploads and makes images of them."""
    server.answers |= {
        "POST /api/v1/contexts": {"id": "c", "size_bytes": "1024"},
        "POST /api/v1/images": {"id": IMAGE["id"]},
        f"GET /api/v1/images/{IMAGE['id']}:watch": Stream([{"image": IMAGE}]),
    }
    return server


def test_load_a_file(loading, uhm, tmp_path):
    (tmp_path / "shop.tar").write_bytes(b"an archive")

    done = uhm("load", "-i", str(tmp_path / "shop.tar"), "-t", "shop:1", "--image=old:1", "--platform=linux/amd64")

    assert done.code == 0, done.err
    upload, create = loading.requests[:2]
    assert upload.body == b"an archive"
    assert create.json == {
        "image": "shop:1",
        "platform": "linux/amd64",
        "publish": [],
        "archive": {"id": "c", "name": "old:1"},
    }
    assert "shop:1 is ready" in done.out


def test_load_standard_input(loading, uhm, monkeypatch):
    class Piped:
        buffer = io.BytesIO(b"an archive")
        isatty = staticmethod(lambda: False)

    monkeypatch.setattr(sys, "stdin", Piped)
    assert uhm("load").code == 0
    assert loading.requests[0].body == b"an archive"


def test_load_a_directory(loading, uhm, tmp_path):
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / "ab").write_bytes(b"a blob")
    assert "no index.json" in uhm("load", "-i", str(tmp_path)).err
    (tmp_path / "index.json").write_text("{}")

    assert uhm("load", "-i", str(tmp_path)).code == 0

    with tarfile.open(fileobj=io.BytesIO(loading.requests[0].body)) as tar:
        assert tar.extractfile("blobs/sha256/ab").read() == b"a blob"
        assert "index.json" in tar.getnames()


def test_df(server, uhm):
    server.answers |= {"GET /api/v1/usage": USAGE, "GET /api/v1/images": {"images": [IMAGE]}}

    done = uhm("df")
    assert done.code == 0
    assert done.out.endswith("55 GB are free on the store's file system.\n")
    assert uhm("df", "--json").json == USAGE
    assert "shop:1" in uhm("df", "-v").out


def test_the_tables_of_df():
    assert usage_table(USAGE).splitlines() == [
        "TYPE          TOTAL   SIZE     ONLY YOURS   RECLAIMABLE",
        "Your images   3       445 MB   120 MB",
        "Your builds   0",
        "Whole store           1.2 GB                300 MB",
    ]
    assert quota_line(USAGE | {"quota": {}}) == ""
    quota = {"images": 10, "bytes": "1000000000", "builds": 2}
    assert quota_line(USAGE | {"quota": quota}) == "You have 3 of 10 images, 445 MB of 1 GB, 0 of 2 builds at once."


def test_what_images_share():
    def image(name, *layers):
        sizes = [{"diff_id": diff_id, "size_bytes": "1000000"} for diff_id in layers]
        return {"id": name * 12, "reference": f"{name}:1", "create_time": "2026-01-01T00:00:00Z", "layers": sizes}

    assert shares_table([image("a", "1", "2"), image("b", "1"), image("c", "3")], now=NOW).splitlines() == [
        "REFERENCE   IMAGE ID       CREATED     LAYERS   SIZE   SHARED SIZE   UNIQUE SIZE",
        "a:1         aaaaaaaaaaaa   1 day ago   2        2 MB   1 MB          1 MB",
        "b:1         bbbbbbbbbbbb   1 day ago   1        1 MB   1 MB          0 B",
        "c:1         cccccccccccc   1 day ago   1        1 MB   0 B           1 MB",
    ]


def test_gc(server, uhm):
    server.answers["POST /api/v1/usage:collect"] = {
        "freed_bytes": "2000000",
        "layers": 2,
        "disks": 1,
        "images": ["f" * 32],
    }

    done = uhm("gc", "--untagged", "--older-than", "7d")
    assert done.out == "Deleted the image ffffffffffff\nDeleted 2 layers and 1 disk: 2 MB\n"
    assert server.requests[0].json == {"dry_run": False, "untagged": True, "older_than": "604800s"}
    assert "Would delete 2 layers" in uhm("gc", "--dry-run").out
    assert server.requests[1].json == {"dry_run": True, "untagged": False}


@pytest.mark.parametrize("arguments", [("--older-than", "7d"), ("--untagged", "--older-than", "soon")])
def test_gc_wrongly_asked(server, uhm, arguments):
    assert uhm("gc", *arguments).code == 2
    assert not server.requests


@pytest.mark.parametrize(("text", "number"), [("90s", 90), ("12h", 43_200), ("1d12h", 129_600), ("2w", 1_209_600)])
def test_lengths_of_time(text, number):
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["", "7", "d7", "1.5h", "-1h", "7 days"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(click.BadParameter, match="no length of time"):
        seconds(text)
