"""Putting something on top of an image: what is asked for becomes one new layer, made without running anything of it.

The image is only read, in an appliance: its directories, links and accounts decide where and how things go in. The new
layer is written as a tar archive and converted as any other, so a customised image is its image's layers and one more.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from uhm_builder.errors import CustomizationFailed, NoSuchFile
from uhm_builder.inside.accounts import Accounts
from uhm_builder.inside.entries import shown
from uhm_builder.inside.ground import Ground
from uhm_builder.inside.layer import XATTR, LayerWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from uhm_builder.customization import Customization, SshKey, UserAccount, WriteFile
    from uhm_builder.inside.tree import Tree

__all__ = ["FIRST_BOOT", "write_layer"]

FIRST_BOOT = "/etc/uhmalguhm/first-boot.d"
"""Where the guest's init looks for what it runs once; docs/guest.md."""
PASSWD, GROUP, SHADOW = "/etc/passwd", "/etc/group", "/etc/shadow"
MAX_FILE_BYTES = 4 << 20
"""Most that is read of a file that something is added to."""
NUMBER = re.compile(r"(\d{1,9})-")


def write_layer(
    tree: Tree, wish: Customization, *, archives: Mapping[str, Path], output: IO[bytes], max_bytes: int
) -> str:
    """Writes the layer to a file that can be read back; answers its diffID, or nothing where there is nothing in it.

    `archives` are the uploads by their ids. Blocks. Raises CustomizationFailed, LayerTooLarge, and the tree's errors.
    """
    ground = Ground(tree)
    writer = LayerWriter(output, ground, attributes=tree.attributes, max_bytes=max_bytes)
    _Customizer(tree, ground, writer).apply(wish, archives)
    writer.close()
    if writer.empty:
        return ""
    output.flush()
    output.seek(0)
    digest = hashlib.file_digest(output, "sha256").hexdigest()  # type: ignore[arg-type] # any binary file will do
    return f"sha256:{digest}"


class _Customizer:
    """Applies a wish: uploads first, then users, then what may belong to them."""

    def __init__(self, tree: Tree, ground: Ground, writer: LayerWriter) -> None:
        self._tree = tree
        self._ground = ground
        self._writer = writer
        self._accounts: Accounts | None = None

    @property
    def accounts(self) -> Accounts:
        """The accounts of the image and what was unpacked on it, read when they are first needed."""
        if self._accounts is None:
            passwd, group, shadow = (self._text(path) for path in (PASSWD, GROUP, SHADOW))
            self._accounts = Accounts(passwd=passwd, group=group, shadow=shadow)
        return self._accounts

    def apply(self, wish: Customization, archives: Mapping[str, Path]) -> None:
        """All of it, in the order that later things may build on earlier ones."""
        for each in wish.copy_in:
            self._unpack(archives[each.context], each.directory)
        if wish.users:
            self._put_users(wish.users)
        for write in wish.write:
            self._write(write)
        self._put_keys(wish.ssh_keys)
        self._put_scripts(wish.run_first_boot)

    def _write(self, write: WriteFile) -> None:
        uid, gid = self.accounts.owner(write.owner)
        self._writer.file(self._ground.resolve(write.path), write.content, mode=write.mode, uid=uid, gid=gid)

    def _put_users(self, users: tuple[UserAccount, ...]) -> None:
        accounts = self.accounts
        for user in users:
            accounts.put(user)
        self._replace(PASSWD, accounts.passwd, mode=0o644)
        self._replace(GROUP, accounts.group, mode=0o644)
        self._replace(SHADOW, accounts.shadow, mode=0o600)
        for user in users:
            account = accounts.find(user.name)
            self._writer.directory(self._ground.resolve(account.home), mode=0o700, uid=account.uid, gid=account.gid)

    def _put_keys(self, keys: tuple[SshKey, ...]) -> None:
        for user in dict.fromkeys(key.user for key in keys):
            account = self.accounts.find(user)
            owner = {"uid": account.uid, "gid": account.gid}
            home = self._ground.resolve(account.home)
            self._writer.directory(home, mode=0o700, **owner)
            directory = self._ground.resolve(f"{home}/.ssh")
            self._writer.directory(directory, mode=0o700, **owner)
            path = self._ground.resolve(f"{directory}/authorized_keys")
            text = self._text(path)
            lines = text.removesuffix("\n").split("\n") if text else []
            lines += [key.key for key in keys if key.user == user and key.key not in lines]
            content = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
            self._writer.file(path, content, mode=0o600, **owner)

    def _put_scripts(self, scripts: tuple[str, ...]) -> None:
        """First-boot scripts, numbered after those that the image has."""
        if not scripts:
            return
        directory = self._ground.resolve(FIRST_BOOT)
        there = [int(found[1]) for name in self._ground.names(directory) if (found := NUMBER.match(name))]
        for number, script in enumerate(scripts, start=max(there, default=0) + 1):
            content = script if script.startswith("#!") else f"#!/bin/sh\n{script}"
            self._writer.file(f"{directory}/{number:03d}-first-boot", content.encode(), mode=0o755)

    def _replace(self, path: str, text: str, *, mode: int) -> None:
        """A file with other content; its attributes stay, `mode` is for a new one."""
        path = self._ground.resolve(path)
        found = self._ground.find(path)
        if found is None:
            self._writer.file(path, text.encode(errors="surrogateescape"), mode=mode)
        else:
            content = text.encode(errors="surrogateescape")
            self._writer.file(path, content, mode=found.mode, uid=found.uid, gid=found.gid)

    def _text(self, path: str) -> str:
        """A file of the layer, else of the image; empty where there is none."""
        path = self._ground.resolve(path)
        content = self._writer.read(path, limit=MAX_FILE_BYTES)
        if content is None:
            try:
                content = self._tree.read_whole(path, limit=MAX_FILE_BYTES)
            except NoSuchFile:
                return ""
        return content.decode(errors="surrogateescape")

    def _unpack(self, archive: Path, directory: str) -> None:
        with _readable(), tarfile.open(archive, mode="r|*") as tar:
            self._writer.directory(self._ground.resolve(directory))
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined] # else it keeps every header
                self._unpack_member(tar, member, directory)

    def _unpack_member(self, tar: tarfile.TarFile, member: tarfile.TarInfo, directory: str) -> None:
        name = _inside(member.name)
        if not name:
            return
        path = f"{directory}/{name}"
        if member.isdir():
            path = self._ground.resolve(path)  # a link to a directory stays one
            self._writer.directory(path, mode=member.mode & 0o7777, uid=member.uid, gid=member.gid)
            return
        header = tarfile.TarInfo(self._ground.resolve(path, follow=False))
        header.type, header.mode, header.uid, header.gid = member.type, member.mode & 0o7777, member.uid, member.gid
        header.devmajor, header.devminor, header.linkname = member.devmajor, member.devminor, member.linkname
        header.pax_headers = {
            name: value
            for name, value in member.pax_headers.items()
            if name.startswith(XATTR) and not name.startswith(f"{XATTR}trusted.")
        }
        if member.isreg():
            header.type, header.size, header.linkname = tarfile.REGTYPE, member.size, ""
            self._writer.add(header, tar.extractfile(member))
        elif member.islnk():
            target = self._ground.resolve(f"{directory}/{_inside(member.linkname)}", follow=False)
            if not self._writer.has_file(target):
                raise CustomizationFailed(f"The hard link {shown(member.name)} is to no file of its archive.")
            header.linkname = f".{target}"
            self._writer.add(header)
        else:
            self._writer.add(header)


def _inside(name: str) -> str:
    """An entry's name as a path below the directory that it is unpacked in. Raises CustomizationFailed."""
    parts = [part for part in PurePosixPath(name).parts if part != "/"]
    if ".." in parts:
        raise CustomizationFailed(f"{shown(name)} leaves the directory that its archive is unpacked in.")
    return "/".join(parts)


@contextmanager
def _readable() -> Iterator[None]:
    """What an archive that is none makes of Python's module, as an error for the user."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the file system's, not the archive's
            raise
        raise CustomizationFailed(
            f"An uploaded archive cannot be read: {error}.", hint="Send a tar archive, plain or gzip."
        ) from error
