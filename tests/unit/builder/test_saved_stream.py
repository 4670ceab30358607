"""What `docker save` writes, in both of its layouts."""
# ruff: noqa: ARG002 - a stand-in's signatures are those of what it stands for

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from contextlib import nullcontext

import pytest

from uhm_builder.errors import ContentMismatch, NotInEngine, UnsupportedImage
from uhm_builder.images import Layer
from uhm_builder.sources.engine_image import EngineSource
from uhm_builder.sources.platforms import TargetPlatform
from uhm_builder.sources.saved_stream import SavedImage, chain_ids, recognise

TARGET = TargetPlatform.of("", architecture="amd64")


def hex_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def legacy_id(fields: dict, chain_id: str) -> str:
    """As docker's image/v1 CreateID has it."""
    return hex_of(json.dumps(dict(sorted((fields | {"layer_id": chain_id}).items())), separators=(",", ":")).encode())


def archive(entries: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def layers(make_tar):
    return [make_tar({"a": b"1"}), make_tar({"b": b"2" * 3_000_000})]


@pytest.fixture
def diff_ids(layers):
    return [f"sha256:{hex_of(layer)}" for layer in layers]


def legacy_entries(layers, diff_ids) -> list[tuple[str, bytes]]:
    """The layout of engines up to 24, sorted as they do it."""
    entries, parent = [], None
    for layer, chain_id in zip(layers, chain_ids(diff_ids), strict=True):
        fields = {"created": "2026-01-01T00:00:00Z", "container_config": {"Cmd": None, "Hostname": ""}}
        linked = fields | ({"parent": f"sha256:{parent}"} if parent else {})
        name = legacy_id(linked, chain_id)
        record = fields | {"id": name, "os": "linux"} | ({"parent": parent} if parent else {})
        entries += [(f"{name}/VERSION", b"1.0"), (f"{name}/json", json.dumps(record).encode())]
        entries.append((f"{name}/layer.tar", layer))
        parent = name
    return [*sorted(entries), ("manifest.json", b"[]"), ("repositories", b"{}")]


def oci_entries(layers) -> list[tuple[str, bytes]]:
    blobs = [*layers, b'{"architecture": "amd64"}', b"short"]
    return [*((f"blobs/sha256/{hex_of(blob)}", blob) for blob in blobs), ("index.json", b"{}"), ("oci-layout", b"{}")]


def read(data: bytes, diff_ids) -> list[tuple[str, str]]:
    """(diffID as recognised, digest of the bytes) of what may be layers."""
    saved = SavedImage(iter([data[at : at + 70_000] for at in range(0, len(data), 70_000)]), diff_ids=diff_ids)
    found = []
    while entry := saved.next_layer():
        found.append((entry.diff_id, f"sha256:{hex_of(b''.join(entry.pieces()))}"))
    return found


def test_the_chain_id_of_the_first_layer_is_its_diff_id():
    assert chain_ids(["sha256:a", "sha256:b"]) == ["sha256:a", f"sha256:{hex_of(b'sha256:a sha256:b')}"]


def test_legacy_layers_are_recognised(layers, diff_ids):
    assert sorted(read(archive(legacy_entries(layers, diff_ids)), diff_ids)) == sorted(
        zip(diff_ids, diff_ids, strict=True)
    )


def test_go_escapes_what_html_would_read(diff_ids):
    fields = {"created": "x", "comment": "<a&b>"}
    escaped = json.dumps(dict(sorted((fields | {"layer_id": diff_ids[0]}).items())), separators=(",", ":"))
    for character in "<>&":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")

    assert recognise(hex_of(escaped.encode()), fields | {"id": "i"}, diff_ids) == diff_ids[0]
    assert recognise("0" * 64, fields, diff_ids) == ""


def test_layers_of_an_oci_layout_have_their_names(layers, diff_ids):
    assert read(archive(oci_entries(layers)), diff_ids) == list(zip(diff_ids, diff_ids, strict=True))


def test_an_archive_that_ends_early_is_noticed(layers, diff_ids):
    with pytest.raises(ContentMismatch, match="cannot be read"):
        read(archive(legacy_entries(layers, diff_ids))[:2_000_000], diff_ids)


class FakeEngine:
    """An Engine that holds one image."""

    def __init__(self, data: bytes, diff_ids, **config) -> None:
        self.data, self.saved = data, 0
        self.record = {
            "Id": "sha256:image",
            "Architecture": "amd64",
            "Os": "linux",
            "Config": config,
            "RootFS": {"Layers": diff_ids},
        }

    def inspect(self, name):
        if name != "app":
            raise NotInEngine(name)
        return self.record

    def save(self, name):
        self.saved += 1
        yield self.data

    def interrupt(self):
        """Nothing blocks."""

    def close(self):
        """Nothing is open."""


class Silent:
    def progress(self, **_):
        """Nobody listens."""


@pytest.mark.parametrize("layout", ["legacy", "unknown ids", "oci", "compressed"])
async def test_the_engines_layers_become_blobs_once(maker, artifacts, layers, diff_ids, layout):
    entries = {
        "legacy": lambda: legacy_entries(layers, diff_ids),
        "unknown ids": lambda: [(f"{number}/layer.tar", layer) for number, layer in enumerate(layers)],
        "oci": lambda: oci_entries(layers),
        "compressed": lambda: oci_entries([gzip.compress(layer) for layer in layers]),
    }
    engine = FakeEngine(archive(entries[layout]()), diff_ids, Cmd=["x"])

    async def convert():
        source = EngineSource("app", engine=engine, target=TARGET, reporter=Silent())
        resolved = await source.resolve()
        made = await source.convert(maker)
        await source.close()
        return resolved, made

    resolved, made = await convert()
    assert (resolved.digest, resolved.config.cmd) == ("sha256:image", ("x",))
    assert resolved.layers == tuple(Layer(diff_id=diff_id) for diff_id in diff_ids)
    assert [layer.diff_id for layer in made] == diff_ids
    assert not any(layer.reused for layer in made)

    _, again = await convert()
    assert all(layer.reused for layer in again)
    assert engine.saved == 1

    artifacts.layer(diff_ids[0]).unlink()
    _, third = await convert()
    assert [layer.reused for layer in third] == [False, True]


async def test_an_archive_that_lacks_a_layer_is_noticed(maker, layers, diff_ids):
    engine = FakeEngine(archive(oci_entries(layers[:1])), diff_ids)
    source = EngineSource("app", engine=engine, target=TARGET, reporter=Silent())
    await source.resolve()

    with pytest.raises(ContentMismatch, match=f"lacks the layer {diff_ids[1]}"):
        await source.convert(maker)


@pytest.mark.parametrize(
    ("wanted", "found", "refusal"),
    [
        ("linux/amd64", {}, ""),
        ("linux/amd64/v3", {"Variant": "v3"}, ""),
        ("linux/amd64/v3", {}, r"not made for linux/amd64/v3, only for linux/amd64\."),
        ("", {"Architecture": "arm64", "Variant": "v8"}, r"not made for linux/amd64, only for linux/arm64/v8\."),
        ("linux/arm64", {}, r"Machines here run linux/amd64, not linux/arm64\. The image is made for linux/amd64\."),
    ],
)
async def test_an_image_for_another_platform_is_refused(diff_ids, wanted, found, refusal):
    engine = FakeEngine(b"", diff_ids)
    engine.record |= found
    target = TargetPlatform.of(wanted, architecture="amd64")
    source = EngineSource("app", engine=engine, target=target, reporter=Silent())

    with pytest.raises(UnsupportedImage, match=refusal) if refusal else nullcontext():
        assert (await source.resolve()).config.architecture == "amd64"
