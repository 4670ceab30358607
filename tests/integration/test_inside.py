"""Looking into images, comparing and customising them, in real appliances; launches take seconds, so tests share."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import struct
import tarfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.builder_system import MKFS
from tests.integration.inside_store import (
    add_disk,
    add_disk_of,
    add_layer,
    entry,
    make_store,
    make_tar,
    without_checksum,
)
from uhm_builder.appliances import Bounds
from uhm_builder.customization import CopyIn, Customization, SshKey, UserAccount, WriteFile
from uhm_builder.errors import DamagedImage, NoSuchFile, NotReadable, TooMuchInside
from uhm_builder.inside.customize import write_layer
from uhm_builder.inside.diff import ChangeKind
from uhm_builder.inside.entries import EntryKind
from uhm_builder.inside.files import Files
from uhm_builder.inside.packages import find_packages
from uhm_builder.inside.views import Limits, Views
from uhm_common.errors import NotFound
from uhm_common.paging import InvalidPageToken, PageTokens
from uhm_common.process import run
from uhm_common.vault import Vault

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not MKFS.exists(), reason="build/tools/mkfs.erofs is not built: make setup"),
]

MIB, TIB = 1 << 20, 1 << 40
BIG = bytes(range(256)) * (5 * MIB // 256) + b"tail"
DPKG = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Maintainer: Debian

Package: gone
Status: deinstall ok config-files
Version: 1
"""
APK = b"P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\nm:Someone\n\nP:busybox\nV:1.36-r0\n"
LOWER = make_tar(
    {
        "etc": entry(tarfile.DIRTYPE),
        "etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n",
        "etc/group": b"root:x:0:\nwww-data:x:33:\n",
        "etc/shadow": entry(content=b"root:*:19000:0:99999:7:::\n", mode=0o640, gid=42),
        "tmp": entry(tarfile.DIRTYPE, mode=0o1777),
        "run": entry(tarfile.DIRTYPE),
        "var": entry(tarfile.DIRTYPE),
        "var/run": "/run",
        "var/lib/dpkg/status": DPKG,
        "lib/apk/db/installed": APK,
        "usr/lib/python3/dist-packages/six-1.16.0.dist-info/METADATA": b"Name: six\n",
        "srv/app/node_modules/@scope/left/package.json": b'{"name": "@scope/left", "version": "1.3.0"}',
        "srv/app/node_modules/broken/package.json": b"[" * 100_000,
        "big": BIG,
        "old": b"removed by the next layer",
        "same": b"same",
    }
)
DEEP = "/".join(["deep", *["d"] * 499])
UPPER = make_tar(
    {
        ".wh.old": b"",
        "same": b"same",
        "to-passwd": "/etc/passwd",
        "out": "../../../../../../etc/passwd",
        "loop": "pool",
        "pool": "loop",
        "new\nline": b"1",
        "not-utf8-\udcff": b"1",
        "fifo": entry(tarfile.FIFOTYPE),
        "disk": entry(tarfile.BLKTYPE, devmajor=8, devminor=0),
        f"{DEEP}/end": b"reached",
        "many": entry(tarfile.DIRTYPE),
        **{f"many/{number:04d}": b"" for number in range(2000)},
    }
)


def add_endless_layer(store):
    """A layer with a file whose inode says that it has a terabyte.

    A user id above 65535 makes the inode an extended one, which has the size 16 bytes before it
    (github.com/torvalds/linux, fs/erofs/erofs_fs.h).
    """
    diff_id = add_layer(store, make_tar({"endless": entry(content=b"x", uid=100_000, gid=100_001)}))
    blob = without_checksum(store.layer(diff_id).read_bytes())
    struct.pack_into("<Q", blob, blob.index(struct.pack("<II", 100_000, 100_001)) - 16, TIB)
    store.layer(diff_id).write_bytes(blob)
    return diff_id


@asynccontextmanager
async def open_views(store):
    """Views with one appliance at a time, whose pool works in the background."""
    limits = Limits(kvm=False, memory_mib=512, seconds=120)
    views = Views(store, limits=limits, bounds=Bounds(at_once=1, idle_seconds=600))
    running = asyncio.create_task(views.run())
    try:
        yield views
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture(scope="module")
def rpm_database(tmp_path_factory):
    """What rpm itself makes of one package."""
    if shutil.which("rpmbuild") is None:
        pytest.skip("rpm is not installed")
    top = tmp_path_factory.mktemp("rpm")
    fields = {"Name": "hello", "Version": "1.0", "Release": "3", "Epoch": "2", "License": "MIT", "BuildArch": "noarch"}
    head = "".join(f"{field}: {value}\n" for field, value in fields.items())
    spec = f"{head}Summary: x\n%description\nx\n%files\n"
    (top / "hello.spec").write_text(spec)
    run(["rpmbuild", "-bb", "--define", f"_topdir {top}", top / "hello.spec"], timeout=60)
    run(["rpm", "--dbpath", top / "db", "--initdb"], timeout=60)
    run(["rpm", "--dbpath", top / "db", "-i", "--justdb", "--nodeps", *top.glob("RPMS/*/*.rpm")], timeout=60)
    return (top / "db" / "rpmdb.sqlite").read_bytes()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("inside") / "artifacts")


@pytest.fixture(scope="module")
def disk(store, rpm_database):
    layers = [
        add_layer(store, archive) for archive in (LOWER, UPPER, make_tar({"var/lib/rpm/rpmdb.sqlite": rpm_database}))
    ]
    return add_disk_of(store, [*layers, add_endless_layer(store)])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def views(store):
    async with open_views(store) as views:
        yield views


def open_files(views, *, max_bytes):
    return Files(views, page_tokens=PageTokens(Vault(bytes(32))), max_bytes=max_bytes)


@pytest.fixture
def files(views):
    return open_files(views, max_bytes=64 * MIB)


async def listed(files, disk, path, **more):
    wanted = {"recursive": False, "size": 0, "token": ""} | more
    return await files.page(disk, path=path, **wanted)


async def content(files, disk, path):
    return b"".join([piece async for piece in files.content(disk, path)])


async def test_what_a_machine_would_see_is_listed(files, disk):
    root = {entry.path: entry for entry in (await listed(files, disk, "/")).entries}
    assert "/old" not in root  # the second layer took it away
    assert {"/proc", "/dev", "/etc"} <= root.keys()  # of the base, too
    assert (root["/tmp"].kind, root["/tmp"].mode) == (EntryKind.DIRECTORY, 0o1777)
    assert (root["/to-passwd"].kind, root["/to-passwd"].target) == (EntryKind.SYMLINK, "/etc/passwd")
    assert (root["/fifo"].kind, root["/disk"].kind) == (EntryKind.FIFO, EntryKind.BLOCK)
    assert (root["/new\nline"].kind, root["/not-utf8-\udcff"].kind) == (EntryKind.FILE, EntryKind.UNKNOWN)
    (shadow,) = (await listed(files, disk, "/etc/shadow")).entries
    assert (shadow.mode, shadow.uid, shadow.gid, shadow.size) == (0o640, 0, 42, 26)
    run_directory = (await listed(files, disk, "/var/run")).entries
    assert run_directory == []  # a link to a directory stands for it


async def test_a_list_comes_in_pages_and_in_order(files, disk):
    paths, token = [], ""
    while True:
        page = await listed(files, disk, "/many", size=700, token=token)
        paths += [entry.path for entry in page.entries]
        token = page.next_token
        if not token:
            break
    assert paths == [f"/many/{number:04d}" for number in range(2000)]
    first = await listed(files, disk, "/many", size=700)
    with pytest.raises(InvalidPageToken):
        await listed(files, disk, "/many", size=700, token=first.next_token, recursive=True)
    recursive = (await listed(files, disk, "/srv", recursive=True)).entries
    assert [entry.path for entry in recursive] == sorted(entry.path for entry in recursive)
    assert "/srv/app/node_modules/@scope/left/package.json" in {entry.path for entry in recursive}


async def test_files_are_read_and_links_end_inside(files, disk):
    assert await content(files, disk, "/big") == BIG
    assert (await content(files, disk, "/to-passwd")).startswith(b"root:x:0:0")
    assert b"www-data" in await content(files, disk, "/out")  # the image's, not this host's


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/etc", NotReadable, "is a directory"),
        ("/fifo", NotReadable, "is a fifo"),
        ("/disk", NotReadable, "is a block"),
        ("/loop", NotReadable, "Too many levels of symbolic links"),
        ("/old", NoSuchFile, "no /old in the image"),
        ("/etc/passwd/below", NoSuchFile, "no /etc/passwd/below"),
        ("/" + "a" * 4000, NotReadable, "too long"),
    ],
)
async def test_what_cannot_be_read_says_why(files, disk, path, error, said):
    with pytest.raises(error, match=said):
        await content(files, disk, path)


async def test_a_file_above_the_bound_is_refused_before_its_first_byte(views, disk):
    with pytest.raises(TooMuchInside, match=f"{len(BIG)} bytes; at most {MIB}"):
        await content(open_files(views, max_bytes=MIB), disk, "/big")


async def test_a_file_that_says_to_have_a_terabyte_is_refused(files, disk):
    (found,) = (await listed(files, disk, "/endless")).entries
    assert found.size == TIB
    with pytest.raises(TooMuchInside, match=f"{TIB} bytes; at most {64 * MIB}"):
        await content(files, disk, "/endless")
    assert await content(files, disk, "/same") == b"same"


async def test_a_directory_500_levels_deep_is_listed_and_read(files, disk):
    found = (await listed(files, disk, "/deep", recursive=True)).entries
    assert (len(found), found[-1].path) == (500, f"/{DEEP}/end")
    assert await content(files, disk, f"/{DEEP}/end") == b"reached"


async def test_packages_of_all_kinds_are_found(views, disk):
    inventory = await views.ask(disk, find_packages)
    found = [(package.ecosystem.value, package.name, package.version) for package in inventory.packages]
    assert found == [
        ("apk", "busybox", "1.36-r0"),
        ("apk", "musl", "1.2.4-r2"),
        ("deb", "libc6", "2.36-9"),
        ("npm", "@scope/left", "1.3.0"),
        ("pypi", "six", "1.16.0"),
        ("rpm", "hello", "2:1.0-3"),
    ]
    assert (inventory.os_release["ID"], inventory.omissions) == ("debian", ())


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvbw someone@somewhere"
ARCHIVE = make_tar(
    {
        "site": entry(tarfile.DIRTYPE, mode=0o750),
        "site/index.html": b"<h1>hello</h1>",
        "site/again": entry(tarfile.LNKTYPE, target="site/index.html"),
        "site/link": "index.html",
    }
)
WISH = Customization(
    image="below",
    copy_in=(CopyIn(context="c", directory="/var/run/www"),),
    write=(WriteFile(path="/etc/motd", content=b"hi\n"), WriteFile(path="/var/x", content=b"", owner="www-data")),
    ssh_keys=(SshKey(key=KEY), SshKey(key=KEY, user="ann")),
    users=(UserAccount(name="ann", groups=("www-data", "team"), password_hash="$6$x"),),
    run_first_boot=("echo 1", "#!/bin/false\n"),
)


async def test_a_customised_disk_has_what_was_asked_for(views, store, disk, tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(ARCHIVE)
    made = []
    for _ in range(2):
        output = io.BytesIO()
        question = partial(write_layer, wish=WISH, archives={"c": archive}, output=output, max_bytes=64 * MIB)
        made.append((await views.ask(disk, question), output.getvalue()))
    assert made[0] == made[1]  # the same wish gives the same layer
    diff_id, layer = made[0]
    assert diff_id == add_layer(store, layer)
    customised = add_disk_of(store, [add_layer(store, LOWER), diff_id])
    files = open_files(views, max_bytes=MIB)
    assert await content(files, customised, "/run/www/site/again") == b"<h1>hello</h1>"
    assert await content(files, customised, "/etc/motd") == b"hi\n"
    assert (await content(files, customised, "/etc/passwd")).endswith(b"ann:x:1000:1000::/home/ann:/bin/sh\n")
    assert (
        await content(files, customised, "/etc/group")
        == b"root:x:0:\nwww-data:x:33:ann\nann:x:1000:\nteam:x:1001:ann\n"
    )
    assert (await content(files, customised, "/etc/uhmalguhm/first-boot.d/001-first-boot")) == b"#!/bin/sh\necho 1"
    attributes = {
        path: (found.mode, found.uid, found.gid)
        for path in ("/tmp", "/etc/shadow", "/var/x", "/home/ann/.ssh/authorized_keys", "/root/.ssh/authorized_keys")
        for found in (await listed(files, customised, path.rpartition("/")[0] or "/")).entries
        if found.path == path
    }
    assert attributes == {
        "/tmp": (0o1777, 0, 0),
        "/etc/shadow": (0o640, 0, 42),
        "/var/x": (0o644, 33, 33),
        "/home/ann/.ssh/authorized_keys": (0o600, 1000, 1000),
        "/root/.ssh/authorized_keys": (0o600, 0, 0),
    }
    assert [entry.mode for entry in (await listed(files, customised, "/run/www")).entries] == [0o750]
    assert (await listed(files, customised, "/var/run")).entries[0].path == "/var/run/www"  # the link is still there


async def test_differences_are_told_and_shared_layers_need_no_look(views, store):
    below = make_tar({"a": b"1", "b": b"1", "d": entry(tarfile.DIRTYPE), "d/x": b"1", "l": "a"})
    above = make_tar({"a": b"2", "b": b"1", ".wh.d": b"", "l": "b", "new\udcff": b""})
    one = add_disk(store, below)
    other = add_disk(store, below, above)
    changes = await views.compare(one, other)
    assert {change.path: change.kind for change in changes} == {
        "/a": ChangeKind.CHANGED,
        "/d": ChangeKind.DELETED,
        "/d/x": ChangeKind.DELETED,
        "/l": ChangeKind.CHANGED,
        "/new\udcff": ChangeKind.ADDED,
    }
    assert await views.compare(one, one) == []


def appliances() -> set[int]:
    """Process groups of the appliances of this process."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if fields[1] == str(os.getpid()) and b"appliance_child" in command:
            found.add(int(status.parent.name))
    return found


async def test_a_damaged_image_is_an_error_and_the_next_one_is_looked_into(store):
    others = appliances()
    good = add_disk(store, make_tar({"only": b"1"}))
    diff_id = add_layer(store, make_tar({"damaged": b"1"}))
    with store.layer(diff_id).open("r+b") as blob:
        blob.seek(1024 + 12)  # its superblock, behind the magic number
        blob.write(b"\xff" * 64)
    damaged = add_disk_of(store, [diff_id])
    async with open_views(store) as views:
        files = open_files(views, max_bytes=MIB)
        with pytest.raises(DamagedImage, match="cannot be mounted"):
            await listed(files, damaged, "/")
        assert await content(files, good, "/only") == b"1"
        (child,) = appliances() - others
        os.killpg(child, signal.SIGKILL)
        with pytest.raises(DamagedImage, match="has died"):
            await content(files, good, "/only")
        assert await content(files, good, "/only") == b"1"  # in another one
        shutil.rmtree(store.disk(good))  # what is open outlives its deletion
        assert await content(files, good, "/only") == b"1"
        await views.forget(good)
        with pytest.raises(NotFound):
            await content(files, good, "/only")
    assert appliances() == others
