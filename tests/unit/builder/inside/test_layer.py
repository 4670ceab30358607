"""What a customization becomes on a tree that is a table: paths, links, and archives that mean harm."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from uhm_builder.customization import CopyIn, Customization, SshKey, UserAccount, WriteFile
from uhm_builder.errors import CustomizationFailed, LayerTooLarge, NoSuchFile, TooMuchInside
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
    """Entries of the layer by their names."""
    output = io.BytesIO()
    diff_id = write_layer(TREE, wish, archives=archives or {}, output=output, max_bytes=max_bytes)
    return {member.name: member for member in opened(output)} if diff_id else {}


def contents_of(wish, **more):
    """Contents of the layer's files, which its hard links have, too."""
    output = io.BytesIO()
    write_layer(TREE, wish, output=output, max_bytes=1 << 20, **more)
    tar = opened(output)
    return {member.name: tar.extractfile(member).read() for member in tar if member.isreg() or member.islnk()}


def opened(output):
    output.seek(0)
    return tarfile.open(fileobj=output, encoding="utf-8", errors="surrogateescape")


def written(path, **more):
    return Customization(image="i", write=(WriteFile(path=path, content=b"x", **more),))


def copied(tmp_path, members, *, directory="/run", pack=lambda archive: archive):
    """The layer of an archive with these members: (name, type, content or target)."""
    archive = tmp_path / "archive"
    archive.write_bytes(pack(archive_of(members)))
    wish = Customization(image="i", copy_in=(CopyIn(context="c", directory=directory),))
    return layer_of(wish, archives={"c": archive})


def archive_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, what in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.mode = 0o755
            member.size = len(what) if kind == tarfile.REGTYPE else 0
            member.linkname = "" if kind == tarfile.REGTYPE else what
            tar.addfile(member, io.BytesIO(what) if kind == tarfile.REGTYPE else None)
    return buffer.getvalue()


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


@pytest.mark.parametrize("path", ["/root/.ssh/authorized_keys", "/home/authorized_keys"])
def test_keys_are_added_to_those_that_were_put_in(tmp_path, path):
    """In bytes and lines as sshd sees them, at the path itself or where a link leads."""
    earlier = b"ssh-rsa A \xff\x0c\xe2\x80\xa8\n\nssh-rsa B"
    link = ("root/.ssh/authorized_keys", tarfile.SYMTYPE, "/home/authorized_keys")
    archive = tmp_path / "archive"
    archive.write_bytes(archive_of([link] if path.startswith("/home") else []))
    wish = Customization(
        image="i",
        copy_in=(CopyIn(context="c", directory="/"),),
        write=(WriteFile(path=path, content=earlier),),
        ssh_keys=(SshKey(key="ssh-rsa B"), SshKey(key="ssh-rsa D")),
    )
    assert contents_of(wish, archives={"c": archive})[f".{path}"] == earlier + b"\nssh-rsa D\n"


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.LNKTYPE])
def test_users_are_added_to_accounts_that_were_copied_in(tmp_path, kind):
    passwd = b"root:x:0:0:\xff\x0c:/root:/bin/sh\nwww:x:33:33::/srv:/bin/false\n"
    members = [("etc/first", tarfile.REGTYPE, passwd), ("etc/passwd", kind, "etc/first")]
    if kind == tarfile.REGTYPE:
        members = [("etc/passwd", kind, passwd)]
    archive = tmp_path / "archive"
    archive.write_bytes(archive_of(members))
    wish = Customization(
        image="i", copy_in=(CopyIn(context="c", directory="/"),), users=(UserAccount(name="ann", uid=7),)
    )
    found = contents_of(wish, archives={"c": archive})
    assert found["./etc/passwd"] == passwd + b"ann:x:7:7::/home/ann:/bin/sh\n"
    assert layer_of(wish, archives={"c": archive})["./etc/passwd"].mode == 0o755  # the copied one's


def test_a_hard_link_to_itself_stays_a_file(tmp_path):
    members = [("x", tarfile.REGTYPE, b"1"), ("x", tarfile.LNKTYPE, "x")]
    assert "./run/x" in copied(tmp_path, members)


def test_accounts_that_are_absurdly_large_are_refused():
    wish = Customization(
        image="i",
        write=(WriteFile(path="/root/.ssh/authorized_keys", content=b"x" * ((4 << 20) + 1)),),
        ssh_keys=(SshKey(key="ssh-rsa A"),),
    )
    with pytest.raises(TooMuchInside, match="authorized_keys has 4194305 bytes; 4194304 are taken"):
        write_layer(TREE, wish, archives={}, output=io.BytesIO(), max_bytes=8 << 20)


def test_more_than_the_bound_is_refused():
    with pytest.raises(LayerTooLarge, match="more than 1000 bytes"):
        layer_of(Customization(image="i", write=(WriteFile(path="/x", content=b"x" * 2000),)), max_bytes=1000)
