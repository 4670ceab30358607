"""Asking for a customised image: of what, by whom, and what the build finds later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from uhm_builder.customization import CopyIn, Customization
from uhm_builder.errors import InvalidCustomization, InvalidReference, NoSuchContext, NoSuchImage, UnsupportedImage
from uhm_builder.images import ImageWish, StageName
from uhm_builder.sources.customized import CustomizedSource
from uhm_builder.sources.platforms import TargetPlatform

DISK = f"sha256:{'d' * 64}"
LAYER = f"sha256:{'1' * 64}"


def wish(below, *, name="mine", **more):
    return ImageWish(name=name, source=Customization(image=below, **({"hostname": "h"} | more)))


async def test_the_image_below_is_found_by_its_name_and_kept_by_its_id(images, ready, store):
    below = await ready("nginx:latest", DISK, [LAYER])
    image_id = await images.create(wish("nginx"), owner="alice")
    made = await store.get(image_id)
    assert (made.reference, made.customization.image) == ("mine:latest", below.id)


@pytest.mark.parametrize(
    ("owner", "wanted", "error"),
    [
        ("bob", wish("nginx"), NoSuchImage),
        ("alice", wish("redis"), NoSuchImage),
        ("alice", wish("nginx", hostname=""), InvalidCustomization),
        ("alice", wish("nginx", name="docker-daemon:x"), InvalidReference),
        ("alice", wish("nginx", copy_in=(CopyIn(context="0" * 32, directory="/"),)), NoSuchContext),
    ],
)
async def test_what_is_refused_at_once(images, ready, owner, wanted, error):
    await ready("nginx:latest", DISK, [LAYER])
    with pytest.raises(error):
        await images.create(wanted, owner=owner)


def source(artifacts, image, *, platform=""):
    async def find(_id):
        return image

    return CustomizedSource(
        Customization(image="i", hostname="h"),
        image=find,
        archive=None,
        views=None,
        target=TargetPlatform.of(platform, architecture="amd64"),
        store=artifacts,
        max_bytes=1,
    )


async def test_an_image_that_is_gone_when_the_build_begins(artifacts):
    with pytest.raises(NoSuchImage, match="not there any more"):
        await source(artifacts, None).resolve()


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        ("linux/amd64/v2", r"not made for linux/amd64/v2, only for linux/amd64\."),
        ("linux/arm64", r"Machines here run linux/amd64, not linux/arm64\. The image is made for linux/amd64\."),
    ],
)
async def test_an_image_below_for_another_platform(artifacts, ready, wanted, refusal):
    below = await ready("nginx:latest", DISK, [LAYER])
    below = replace(below, config=replace(below.config, architecture="amd64"))
    with pytest.raises(UnsupportedImage, match=refusal):
        await source(artifacts, below, platform=wanted).resolve()
    assert await source(artifacts, below, platform="linux/amd64").resolve() is StageName.CUSTOMIZE


async def test_a_host_name_alone_needs_no_appliance_and_no_layer(artifacts, ready, sweep_under_way):
    below = await ready("nginx:latest", DISK, [LAYER])
    customized = source(artifacts, below)
    assert await customized.resolve() is StageName.CUSTOMIZE
    async with sweep_under_way():
        resolved = await customized.build()
    await customized.close()
    assert (resolved.config.hostname, [layer.diff_id for layer in resolved.layers]) == ("h", [LAYER])
    assert resolved.digest not in {below.digest, ""}
    assert not list(artifacts.root.glob("staging/*"))
