"""The base root file system."""

from __future__ import annotations

import io
import tarfile

from uhm_guest.rootfs import base_tar


def members() -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(base_tar())) as archive:
        return {member.name.removeprefix("./"): member for member in archive}


def test_it_has_what_the_contract_promises() -> None:
    found = members()
    for name in ("dev", "proc", "sys", "run", "tmp", "etc", "var", "root"):
        assert found[name].isdir()
    for name in ("passwd", "group", "nsswitch.conf", "hosts", "hostname", "resolv.conf"):
        assert found[f"etc/{name}"].isfile()
    assert found["tmp"].mode == 0o1777


def test_it_is_the_same_every_time() -> None:
    assert base_tar() == base_tar()
    assert {(member.uid, member.gid, member.mtime) for member in members().values()} == {(0, 0, 0)}
