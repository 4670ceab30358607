"""Secrets at rest."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from uhm_common.errors import InternalError
from uhm_common.vault import open_vault


def test_what_was_sealed_opens_with_the_key_of_the_same_file(tmp_path):
    sealed = open_vault(tmp_path / "keys" / "vault.key").seal(b"hunter2", purpose="alice/registry")

    assert b"hunter2" not in sealed
    assert open_vault(tmp_path / "keys" / "vault.key").open(sealed, purpose="alice/registry") == b"hunter2"


def test_the_same_secret_is_sealed_differently_every_time(tmp_path):
    vault = open_vault(tmp_path / "key")

    assert vault.seal(b"hunter2", purpose="a") != vault.seal(b"hunter2", purpose="a")


def test_a_secret_cannot_be_put_in_another_ones_place(tmp_path):
    vault = open_vault(tmp_path / "key")
    sealed = vault.seal(b"hunter2", purpose="alice/registry")

    with pytest.raises(InternalError, match="bob/registry"):
        vault.open(sealed, purpose="bob/registry")


@pytest.mark.parametrize("change", [lambda sealed: sealed[:-1], lambda sealed: b"x" + sealed[1:], lambda _: b""])
def test_what_was_changed_does_not_open(tmp_path, change):
    vault = open_vault(tmp_path / "key")

    with pytest.raises(InternalError, match="cannot be decrypted"):
        vault.open(change(vault.seal(b"hunter2", purpose="a")), purpose="a")


def test_another_key_does_not_open_it(tmp_path):
    sealed = open_vault(tmp_path / "one").seal(b"hunter2", purpose="a")

    with pytest.raises(InternalError, match="key file"):
        open_vault(tmp_path / "two").open(sealed, purpose="a")


def test_only_its_owner_reads_the_key_file(tmp_path):
    open_vault(tmp_path / "key")

    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_file_that_is_no_key_is_refused(tmp_path):
    (tmp_path / "key").write_bytes(b"short")

    with pytest.raises(InternalError, match="5 bytes"):
        open_vault(tmp_path / "key")


def test_several_that_open_it_at_once_get_the_same_key(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        vaults = list(threads.map(open_vault, [tmp_path / "key"] * 8))

    sealed = vaults[0].seal(b"hunter2", purpose="a")
    assert {vault.open(sealed, purpose="a") for vault in vaults} == {b"hunter2"}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
