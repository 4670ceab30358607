"""What a customization becomes on a tree that is a table: paths, links, and archives that mean harm."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from uhm_builder.customization import CopyIn, Customization, WriteFile
from uhm_builder.errors import CustomizationFailed, LayerTooLarge, NoSuchFile
from uhm_builder.inside.customize import write_layer
from uhm_builder.inside.entries import Entry, EntryKind

DIRECTORY, FILE, LINK = EntryKind.DIRECTORY, EntryKind.FILE, EntryKind.SYMLINK


class Table:
    """A tree of a few entries; a link's target is its content."""

    def __init__(self, **entries):
        self.entries = {"/": Entry(path="/", kind=DIRECTORY, mode=0o755)}
        for name, (kind, mode, target) in entries.items():
            path = f"/{name.replace('__', '/')}"
            self.entries[path] = Entry(path=path, kind=kind, mode=mode, uid=3, gid=4, target=target)

    def look(self, path):
        return self.entries[path]

    def names(self, directory):
        if directory not in self.entries:
            raise NoSuchFile(directory)
        parent = directory.rstrip("/")
        return [path.rpartition("/")[2] for path in self.entries if path != "/" and path.rpartition("/")[0] == parent]

    def look_at(self, directory, names):
        return [self.entries[f"{directory.rstrip('/')}/{name}"] for name in names]

    def attributes(self, path):
        return {"user.note": path.encode() + b"\xff"}

    def read_whole(self, path, *, limit):  # noqa: ARG002 - as Tree has it
        raise NoSuchFile(path)


TREE = Table(
    var=(DIRECTORY, 0o700, ""),
    var__run=(LINK, 0o777, "/run"),
    run=(DIRECTORY, 0o1777, ""),
    up=(LINK, 0o777, "../../../run"),
    loop=(LINK, 0o777, "loop"),
    file=(FILE, 0o644, ""),
)


def layer_of(wish, *, archives=None, max_bytes=1 << 20):
    """Entries of the layer by their names, and its diffID."""
    output = io.BytesIO()
    diff_id = write_layer(TREE, wish, archives=archives or {}, output=output, max_bytes=max_bytes)
    if not diff_id:
        return {}
    output.seek(0)
    with tarfile.open(fileobj=output, encoding="utf-8", errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def written(path, **more):
    return Customization(image="i", write=(WriteFile(path=path, content=b"x", **more),))


def copied(tmp_path, members, *, directory="/run", pack=lambda archive: archive):
    """The layer of an archive with these members: (name, type, content or target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, what in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.mode = 0o755
            member.size = len(what) if kind == tarfile.REGTYPE else 0
            member.linkname = "" if kind == tarfile.REGTYPE else what
            tar.addfile(member, io.BytesIO(what) if kind == tarfile.REGTYPE else None)
    archive = tmp_path / "archive"
    archive.write_bytes(pack(buffer.getvalue()))
    wish = Customization(image="i", copy_in=(CopyIn(context="c", directory=directory),))
    return layer_of(wish, archives={"c": archive})


def test_directories_above_keep_what_the_image_says_of_them():
    layer = layer_of(written("/var/lib/x/file", mode=0o600))
    assert list(layer) == [".", "./var", "./var/lib", "./var/lib/x", "./var/lib/x/file"]
    assert (layer["./var"].mode, layer["./var"].uid, layer["./var"].gid) == (0o700, 3, 4)
    assert layer["./var"].pax_headers["SCHILY.xattr.user.note"].encode(errors="surrogateescape") == b"/var\xff"
    assert (layer["./var/lib"].mode, layer["./var/lib"].uid) == (0o755, 0)
    assert {member.mtime for member in layer.values()} == {0}


@pytest.mark.parametrize(
    ("path", "name"),
    [("/var/run/x", "./run/x"), ("/up/x", "./run/x"), ("//a/./b", "./a/b"), ("/var/run/new/x", "./run/new/x")],
)
def test_links_are_followed_inside(path, name):
    assert name in layer_of(written(path))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/loop/x", "in circles"),
        ("/file/x", "/file is no directory"),
        ("/run", "/run is a directory"),
        ("/run/.wh.x", "would delete"),
    ],
)
def test_what_cannot_be_written(path, said):
    with pytest.raises(CustomizationFailed, match=said):
        layer_of(written(path))


def test_nothing_but_a_host_name_is_no_layer():
    assert layer_of(Customization(image="i", hostname="h")) == {}


@pytest.mark.parametrize("pack", [lambda archive: archive, gzip.compress])
def test_an_archive_is_unpacked(tmp_path, pack):
    members = [
        ("/abs/file", tarfile.REGTYPE, b"1"),
        ("./d", tarfile.DIRTYPE, ""),
        ("d/hard", tarfile.LNKTYPE, "abs/file"),
        ("d/soft", tarfile.SYMTYPE, "/anywhere/../at/all"),
    ]
    layer = copied(tmp_path, members, directory="/var/run/in", pack=pack)
    assert list(layer) == [
        ".",
        "./run",
        "./run/in",
        "./run/in/abs",
        "./run/in/abs/file",
        "./run/in/d",
        *list(layer)[-2:],
    ]
    assert layer["./run/in/d/hard"].linkname == "./run/in/abs/file"
    assert layer["./run/in/d/soft"].linkname == "/anywhere/../at/all"
    assert layer["./run"].mode == 0o1777


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("../x", tarfile.REGTYPE, b""), "leaves the directory"),
        (("a/../../x", tarfile.REGTYPE, b""), "leaves the directory"),
        (("x", tarfile.LNKTYPE, "../../etc/passwd"), "leaves the directory"),
        (("x", tarfile.LNKTYPE, "missing"), "hard link x is to no file"),
        ((".wh.x", tarfile.REGTYPE, b""), "would delete"),
    ],
)
def test_an_archive_that_means_harm(tmp_path, member, said):
    with pytest.raises(CustomizationFailed, match=said):
        copied(tmp_path, [member])


@pytest.mark.parametrize(
    "pack", [lambda archive: archive[:1000], lambda _: b"no archive", lambda _: b"\x1f\x8bgarbage"]
)
def test_what_is_no_archive(tmp_path, pack):
    with pytest.raises(CustomizationFailed, match="cannot be read"):
        copied(tmp_path, [("x", tarfile.REGTYPE, b"x" * 2000)], pack=pack)


def test_a_link_of_the_archive_itself_is_followed_inside(tmp_path):
    layer = copied(tmp_path, [("out", tarfile.SYMTYPE, "/var"), ("out/x", tarfile.REGTYPE, b"1")])
    assert "./var/x" in layer


def test_more_than_the_bound_is_refused():
    with pytest.raises(LayerTooLarge, match="more than 1000 bytes"):
        layer_of(Customization(image="i", write=(WriteFile(path="/x", content=b"x" * 2000),)), max_bytes=1000)
