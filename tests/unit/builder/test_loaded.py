"""Images from archives of `docker save` and in OCI layout, and what may be wrong with such an archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest
import zstandard

from uhm_builder.errors import ContentMismatch, InvalidArchive, UnsupportedImage
from uhm_builder.images import Archive, Image, Status
from uhm_builder.sources import packed
from uhm_builder.sources.loaded import LoadedSource
from uhm_builder.sources.platforms import TargetPlatform

OCI = "application/vnd.oci.image"
MAX_BYTES = 4 << 20


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(entries, *, mode="w") -> bytes:
    """An archive; a value is content, or a TarInfo without a name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, value in entries:
            member = tarfile.TarInfo(name)
            if isinstance(value, bytes):
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
            else:
                member.type, member.linkname = value
                tar.addfile(member)
    return buffer.getvalue()


def config_of(layers, *, architecture="amd64") -> bytes:
    diff_ids = [f"sha256:{sha(layer)}" for layer in layers]
    record = {"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": diff_ids}}
    return json.dumps(record | {"config": {"Cmd": ["/run"]}}).encode()


@dataclass
class Layout:
    """An OCI image layout that is being made."""

    blobs: dict[str, bytes] = field(default_factory=dict)

    def put(self, content, media_type="", **more):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.blobs[f"blobs/sha256/{sha(content)}"] = content
        return {"mediaType": f"{OCI}.{media_type}", "digest": f"sha256:{sha(content)}", "size": len(content)} | more

    def manifest(self, layers, *, compress=gzip.compress, architecture="amd64", **more):
        return self.put(
            {
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": self.put(config_of(layers, architecture=architecture), "config.v1+json"),
                "layers": [self.put(compress(layer), "layer.v1.tar+gzip") for layer in layers],
            },
            "manifest.v1+json",
            **more,
        )

    def index(self, *manifests, **more):
        return self.put({"manifests": manifests}, "index.v1+json", **more)

    def tar(self, *manifests):
        entries = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'} | self.blobs
        return tar_of([*entries.items(), ("index.json", json.dumps({"manifests": manifests}).encode())])


def legacy(images, **replaced) -> bytes:
    """As engines up to 24 write it: layers that were there before are links."""
    entries, manifest, first = {}, [], {}
    for tag, layers in images.items():
        config = config_of(layers)
        names = []
        for layer in layers:
            name = f"{sha(config + layer)}/layer.tar"
            entries[name] = (tarfile.SYMTYPE, f"../{first[layer]}") if layer in first else layer
            first.setdefault(layer, name)
            names.append(name)
        entries[f"{sha(config)}.json"] = config
        manifest.append({"Config": f"{sha(config)}.json", "RepoTags": [tag] if tag else None, "Layers": names})
    return tar_of([*entries.items(), *replaced.items(), ("manifest.json", json.dumps(manifest).encode())])


class Silent:
    def progress(self, **_): ...


@pytest.fixture
def load(tmp_path, artifacts, maker):
    """Loads an archive; answers what was resolved and the layers."""

    async def load(data, *, name="", reference="", platform="", convert=True):
        path = tmp_path / "upload"
        path.write_bytes(data)

        async def archive():
            return path

        image = Image(
            number=1,
            id="i",
            owner="alice",
            reference=reference,
            status=Status.BUILDING,
            created_at=0,
            archive=Archive(id="u", name=name),
        )
        source = LoadedSource(
            image,
            archive=archive,
            artifacts=artifacts,
            max_bytes=MAX_BYTES,
            target=TargetPlatform.of(platform, architecture="amd64"),
            reporter=Silent(),
        )
        try:
            resolved = await source.resolve()
            return resolved, (await source.convert(maker) if convert else ())
        finally:
            await source.close()
            assert list(artifacts.root.glob("staging/*")) == []

    return load


@pytest.fixture
def layers(make_tar):
    return [make_tar({"etc/a": b"a" * 3000}), make_tar({"etc/b": b"b"})]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
async def test_what_docker_saves(load, layers, artifacts, compress):
    resolved, made = await load(compress(legacy({"shop:1.0": layers})))

    assert resolved.reference == "shop:1.0"
    assert resolved.config.cmd == ("/run",)
    assert resolved.digest == f"sha256:{sha(config_of(layers))}"
    assert [layer.diff_id for layer in made] == [f"sha256:{sha(layer)}" for layer in layers]
    assert all(artifacts.layer(layer.diff_id).stat().st_size == layer.size > 0 for layer in made)


async def test_a_layer_that_images_share_is_a_link(load, layers):
    data = legacy({"one:1": layers, "two:2": layers[:1]})

    for name, count in (("one:1", 2), ("two:2", 1)):
        resolved, made = await load(data, name=name)
        assert (resolved.reference, len(made)) == (name, count)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("one:1", "one:1"), ("docker.io/library/two:2", "two:2"), (sha(b"?"), None), ("one", None)],
)
async def test_one_of_several_is_picked_by_name(load, layers, name, reference):
    data = legacy({"one:1": layers, "two:2": layers[:1]})

    if reference is None:
        with pytest.raises(InvalidArchive, match=r"has no .*: one:1, two:2"):
            await load(data, name=name)
    else:
        assert (await load(data, name=name, convert=False))[0].reference == reference


async def test_several_images_are_listed(load, layers):
    with pytest.raises(InvalidArchive, match="has 2 images: one:1, two:2") as error:
        await load(legacy({"one:1": layers, "two:2": layers[:1]}))
    assert "--image" in error.value.hint


async def test_an_image_without_a_name_needs_one(load, layers):
    data = legacy({"": layers})

    with pytest.raises(InvalidArchive, match="no name"):
        await load(data)
    assert (await load(data, reference="mine:1", convert=False))[0].reference == "mine:1"
    assert (await load(data, reference="mine:1", name=sha(config_of(layers))[:12], convert=False))[0]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
async def test_an_oci_layout(load, layers, compress):
    layout = Layout()
    manifest = layout.manifest(
        layers, compress=compress, annotations={"org.opencontainers.image.ref.name": "ghcr.io/me/shop:2"}
    )

    resolved, made = await load(layout.tar(manifest))

    assert (resolved.reference, resolved.digest) == ("ghcr.io/me/shop:2", manifest["digest"])
    assert [layer.diff_id for layer in made] == [f"sha256:{sha(layer)}" for layer in layers]


async def test_a_layout_for_several_platforms(load, layers):
    """As buildx writes it: an index in the index, with attestations."""
    layout = Layout()
    ours = layout.manifest(layers, platform={"os": "linux", "architecture": "amd64"})
    other = layout.manifest(layers[:1], architecture="arm64", platform={"os": "linux", "architecture": "arm64"})
    attestation = layout.put({}, "manifest.v1+json", platform={"os": "unknown", "architecture": "unknown"})
    named = {"annotations": {"io.containerd.image.name": "docker.io/library/shop:3"}}

    nested, _ = await load(layout.tar(layout.index(other, ours, attestation, **named)), convert=False)
    flat, _ = await load(layout.tar(other, ours, attestation), reference="mine:1", convert=False)

    assert (nested.reference, nested.digest) == ("shop:3", ours["digest"])
    assert flat.digest == ours["digest"]
    with pytest.raises(UnsupportedImage, match="linux/arm64"):
        await load(layout.tar(layout.index(other, attestation, **named), other | named))


def for_platforms(layout, layers, *platforms):
    """An image for each; a configuration has no variant, as most tools write none."""
    for number, platform in enumerate(platforms):
        os, architecture, *variant = platform.split("/")
        record = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        yield layout.manifest(layers[: number + 1], architecture=architecture, platform=record)


PLATFORMS = ("linux/amd64", "linux/amd64/v3", "linux/arm64/v8")


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize(
    ("wanted", "offered", "found"),
    [
        ("", PLATFORMS, 0),
        ("linux/amd64/v1", PLATFORMS, 0),
        ("linux/amd64/v3", PLATFORMS, 1),
        ("linux/amd64/v3", PLATFORMS[1:2], 0),
        ("linux/amd64/v2", PLATFORMS, "not made for linux/amd64/v2, only for linux/amd64, linux/amd64/v3, linux/arm64"),
        ("linux/amd64/v2", PLATFORMS[:1], r"not made for linux/amd64/v2, only for linux/amd64\."),
        (
            "linux/arm64",
            PLATFORMS,
            "run linux/amd64, not linux/arm64.* for linux/amd64, linux/amd64/v3, linux/arm64/v8",
        ),
        ("linux/arm64", PLATFORMS[:1], r"run linux/amd64, not linux/arm64\. The image is made for linux/amd64\."),
        ("", PLATFORMS[2:], r"not made for linux/amd64, only for linux/arm64/v8\."),
    ],
)
async def test_a_layout_has_the_platform_or_says_which_it_has(load, make_tar, nested, wanted, offered, found):
    layout = Layout()
    manifests = [*for_platforms(layout, [make_tar({name: b"x"}) for name in "abc"], *offered)]
    data = layout.tar(layout.index(*manifests)) if nested else layout.tar(*manifests)

    if isinstance(found, int):
        resolved, _ = await load(data, reference="mine:1", platform=wanted, convert=False)
        assert resolved.digest == manifests[found]["digest"]
    else:
        with pytest.raises(UnsupportedImage, match=found):
            await load(data, reference="mine:1", platform=wanted)


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        ("linux/amd64", ""),
        ("linux/amd64/v2", r"not made for linux/amd64/v2, only for linux/amd64\."),
        ("linux/s390x", r"run linux/amd64, not linux/s390x\. The image is made for linux/amd64\."),
    ],
)
async def test_what_docker_saves_is_for_one_platform(load, layers, wanted, refusal):
    with pytest.raises(UnsupportedImage, match=refusal) if refusal else nullcontext():
        assert await load(legacy({"shop:1": layers}), platform=wanted, convert=False)


async def test_a_tag_alone_is_no_name(load, layers):
    """What skopeo writes for oci:DIRECTORY:TAG."""
    layout = Layout()
    manifest = layout.manifest(layers, annotations={"org.opencontainers.image.ref.name": "1.27"})

    with pytest.raises(InvalidArchive, match="no name"):
        await load(layout.tar(manifest))
    resolved, _ = await load(layout.tar(manifest), name="1.27", reference="shop:1.27", convert=False)
    assert resolved.reference == "shop:1.27"


def damaged_blob(layers):
    layout = Layout()
    manifest = layout.manifest(layers)
    for name in layout.blobs:
        if layout.blobs[name].startswith(b"\x1f\x8b"):
            layout.blobs[name] = layout.blobs[name][:-9] + b"x" + layout.blobs[name][-8:]
    return layout.tar(manifest | {"annotations": {"org.opencontainers.image.ref.name": "a:1"}})


def wrong_layer(layers):
    """The configuration names another layer than the archive has: same place, other content."""
    return legacy({"shop:1": layers}, **{f"{sha(config_of(layers) + layers[0])}/layer.tar": layers[1]})


def with_manifest(record):
    return tar_of([("manifest.json", record if isinstance(record, bytes) else json.dumps(record).encode())])


def without_blobs(layers):
    layout = Layout()
    manifest = layout.manifest(layers)
    layout.blobs.clear()
    return layout.tar(manifest)


def indexes_without_end(layers):
    layout = Layout()
    found = layout.manifest(layers, annotations={"org.opencontainers.image.ref.name": "a:1"})
    for _ in range(6):
        found = layout.index(found)
    return layout.tar(found)


def huge_header():
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)


def many_headers():
    """Each says that the next one has an extended header, so that a recursive reader gets deep."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    return (header.tobuf() + b"a" * 512) * 3000


HOSTILE = {
    "nothing": (lambda _: b"\0" * 10240, "neither"),
    "no archive": (lambda _: b"x" * 5000, "not a tar archive"),
    "cut": (lambda layers: legacy({"a:1": layers})[:3000], "unexpected end|neither"),
    "an export": (lambda layers: layers[0], "docker export"),
    "xz": (lambda _: b"\xfd7zXZ\0" + bytes(1000), "xz"),
    "cut gzip": (lambda layers: gzip.compress(legacy({"a:1": layers}))[:-20], "damaged"),
    "a bomb": (lambda _: gzip.compress(bytes(MAX_BYTES + 1)), "more than .* bytes"),
    "a huge header": (lambda _: huge_header(), "impossible size"),
    "headers without end": (lambda _: many_headers(), "not a tar archive"),
    "no JSON": (lambda _: with_manifest(b"{"), "not valid JSON"),
    "deep JSON": (lambda _: with_manifest(b"[" * 1_000_000), "not valid JSON"),
    "no list": (lambda _: with_manifest({}), "lists no images"),
    "an empty list": (lambda _: with_manifest([]), "lists no images"),
    "numbers": (lambda _: with_manifest([{"Config": 1}]), "not what `docker save` writes"),
    "an escape": (
        lambda _: with_manifest([{"Config": "../../etc/hostname", "RepoTags": ["a:1"], "Layers": []}]),
        "should have a file",
    ),
    "an absolute escape": (
        lambda _: with_manifest([{"Config": "/etc/hostname", "RepoTags": ["a:1"], "Layers": []}]),
        "should have a file",
    ),
    "a link out": (
        lambda _: tar_of(
            [
                ("c.json", (tarfile.SYMTYPE, "/etc/hostname")),
                ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": []}]).encode()),
            ]
        ),
        "should have a file",
    ),
    "links in a circle": (
        lambda _: tar_of(
            [
                ("c.json", (tarfile.SYMTYPE, "d.json")),
                ("d.json", (tarfile.SYMTYPE, "c.json")),
                ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": []}]).encode()),
            ]
        ),
        "should have a file",
    ),
    "missing blobs": (without_blobs, "should have a file"),
    "indexes without end": (indexes_without_end, "indexes in indexes"),
}


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_archive_of_images(load, layers, make, message):
    with pytest.raises(InvalidArchive, match=message):
        await load(make(layers), reference="x:1")


@pytest.mark.parametrize("make", [damaged_blob, wrong_layer])
async def test_damaged_content_is_noticed(load, layers, make, artifacts):
    with pytest.raises(ContentMismatch):
        await load(make(layers))

    damaged = artifacts.layer(sha(layers[0]))
    assert not damaged.exists()


async def test_a_document_is_bounded(load, layers, monkeypatch):
    monkeypatch.setattr(packed, "JSON_MAX", 10)
    with pytest.raises(InvalidArchive, match=r"manifest\.json in the archive has more"):
        await load(legacy({"a:1": layers}))


async def test_entries_are_bounded(load, monkeypatch):
    monkeypatch.setattr(packed, "ENTRIES_MAX", 100)
    with pytest.raises(InvalidArchive, match="more than 100 entries"):
        await load(tar_of([(str(number), b"") for number in range(101)]))
    with pytest.raises(InvalidArchive, match="more than 100 entries"):
        await load(tar_of([("again", b"")] * 101))


def test_no_header_is_kept_but_of_the_last_of_a_name(tmp_path):
    """Nor is a global one kept with every entry that comes after it."""
    path = tmp_path / "archive"
    with tarfile.open(path, "w", pax_headers={f"uhm.{number}": "x" for number in range(5000)}) as tar:
        for number in range(1000):
            tar.addfile(tarfile.TarInfo(str(number % 2)))
    tracemalloc.start()
    try:
        packed.PackedImages(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10 << 20
