import pytest

from uhm_machines.qemu.blocks import TOP, blank, disk_over, image, swap_in

IMAGE = image("../../exports/nbd.sock", "abc")


def lies_over(nodes):
    """Each node's name and what it lies over."""
    return [(node["node-name"], node.get("backing")) for node in nodes]


def test_the_image_is_a_read_only_export_that_is_waited_for():
    assert IMAGE["read-only"] is True
    assert (IMAGE["driver"], IMAGE["export"]) == ("nbd", "abc")
    assert IMAGE["server"] == {"type": "unix", "path": "../../exports/nbd.sock"}
    assert IMAGE["reconnect-delay"] > 600


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [("image", None), ("disk", "image")]),
        ({"name": "overlay"}, [("image", None), ("overlay", "image")]),
        ({"below": "below.qcow2"}, [("image", None), ("below", "image"), ("disk", "below")]),
        (
            {"below": "below.qcow2", "name": "overlay"},
            [("image", None), ("below", "image"), ("overlay", "below")],
        ),
    ],
)
def test_the_lowest_node_is_first(options, expected):
    assert lies_over(disk_over(IMAGE, overlay="disk.qcow2", **options)) == expected


def test_only_the_overlay_is_written_to_and_gives_back_what_is_discarded():
    _, below, overlay = disk_over(IMAGE, overlay="disk.qcow2", below="below.qcow2")
    assert (below.get("read-only"), overlay.get("read-only")) == (True, None)
    assert overlay["file"] == {"driver": "file", "filename": "disk.qcow2", "discard": "unmap"}
    assert overlay["discard"] == "unmap"


def test_an_empty_disk_is_exchanged_under_the_same_name():
    null, top = blank(3 << 30)
    assert (null["size"], null["read-zeroes"]) == (3 << 30, True)
    assert (top["node-name"], top["file"]) == (TOP, null["node-name"])
    (options,) = swap_in("overlay")
    assert options == top | {"file": "overlay"}
