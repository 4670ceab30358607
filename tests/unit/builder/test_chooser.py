"""What was asked for arrives at its source, whichever that is: the platform, from the request to the refusal."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest

from uhm_builder.contexts import Contexts
from uhm_builder.errors import InvalidPlatform, UnsupportedImage
from uhm_builder.images import ImageConfig
from uhm_builder.messages import wish_of
from uhm_builder.settings import BuilderSettings
from uhm_builder.sources import chooser
from uhm_builder.sources.chooser import Sources
from uhm_builder.storage.content import Content
from uhm_builder.storage.document import Document, DocumentLayer
from uhm_builder.storage.objects import Resume
from uhm_builder.storage.places import DirectoryPlace
from uhmalguhm.builder.v1 import image_pb2

DIFF_ID = f"sha256:{'1' * 64}"
DOCUMENT = Document(
    reference="app:latest",
    digest=f"sha256:{'2' * 64}",
    published_at=datetime.now(UTC),
    config=ImageConfig(architecture="amd64"),
    layers=(DocumentLayer(diff_id=DIFF_ID, digest=f"sha256:{'3' * 64}", size=1 << 20),),
)
KINDS = {
    "archive": {"image": "mine", "archive": {"id": ""}},
    "customization": {"image": "mine", "customization": {"image": "nginx", "hostname": "h"}},
    "storage": {"image": "storage:home/app"},
    "docker-daemon": {"image": "docker-daemon:app"},
}


def saved_image() -> bytes:
    """As `docker save` writes it, but for the content of the layer."""
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [DIFF_ID]}, "config": {}}
    manifest = [{"Config": "c.json", "RepoTags": ["shop:1"], "Layers": ["layer.tar"]}]
    files = {"c.json": json.dumps(config), "layer.tar": "", "manifest.json": json.dumps(manifest)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


class EngineOfOneImage:
    """Stands for the Docker Engine."""

    def __init__(self, _host):
        """There is nothing to connect to."""

    def inspect(self, _name):
        return {"Id": "sha256:i", "Architecture": "amd64", "Os": "linux", "RootFS": {"Layers": [DIFF_ID]}}

    def interrupt(self): ...

    def close(self): ...


class Silent:
    def progress(self, **_): ...


@pytest.fixture
def contexts(tmp_path, database):
    """Takes archives of more than a few bytes."""
    return Contexts(tmp_path / "contexts", database=database, max_bytes=1 << 20, max_bytes_in_all=1 << 20)


@pytest.fixture
async def opened(tmp_path, images, store, contexts, locations, ready, monkeypatch):
    """Has an image of each kind; asks for one as a request does and opens its source."""
    monkeypatch.setattr(chooser, "Engine", EngineOfOneImage)
    await ready("nginx:latest", f"sha256:{'d' * 64}", [DIFF_ID])
    await locations.add("home", DirectoryPlace(path="disks"), owner="alice")
    async with locations.open("home", owner="alice") as home:
        await home.store.put("images/app/latest/manifest.json", Content.of(DOCUMENT.encoded()), resume=Resume())
    sources = Sources(
        BuilderSettings(state_dir=tmp_path, architecture="amd64"),
        registries=None,
        clients=None,
        contexts=contexts,
        secrets=None,
        images=store,
        views=None,
        locations=locations,
    )

    async def opened(kind, platform):
        request = image_pb2.CreateImageRequest(platform=platform, **KINDS[kind])
        if kind == "archive":

            async def pieces():
                yield saved_image()

            request.archive.id = (await contexts.receive(pieces(), owner="alice")).id
        image_id = await images.create(wish_of(request), owner="alice")
        return sources.open(await store.get(image_id), Silent())

    return opened


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("platform", "refusal"),
    [
        ("", ""),
        ("linux/x86_64", ""),
        ("linux/amd64/v3", r"The image is not made for linux/amd64/v3, only for linux/amd64\."),
        ("linux/aarch64", r"Machines here run linux/amd64, not linux/arm64\. The image is made for linux/amd64\."),
    ],
)
async def test_a_platform_is_what_the_image_must_be_made_for(opened, kind, platform, refusal):
    source = await opened(kind, platform)
    try:
        with pytest.raises(UnsupportedImage, match=refusal) if refusal else nullcontext():
            assert await source.resolve()
    finally:
        await source.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_platform_is_refused_at_once(opened, kind):
    with pytest.raises(InvalidPlatform, match="OS/ARCHITECTURE"):
        await opened(kind, "amd64")
