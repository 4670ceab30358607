"""Secrets at rest."""

from __future__ import annotations

import hmac
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from uhm_common.errors import FailedPrecondition, InternalError
from uhm_common.vault import Vault, open_vault


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


@pytest.mark.parametrize("path", ["file/key", "directory"], ids=["below a file", "a directory"])
def test_a_file_that_cannot_be_used_is_told_of(tmp_path, path):
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()

    with pytest.raises(FailedPrecondition, match=r"cannot be used: .* Set UHM_KEY_FILE"):
        open_vault(tmp_path / path)


def test_a_key_that_everybody_reads_is_warned_of(tmp_path):
    open_vault(tmp_path / "key")
    for mode, warnings in ((0o600, []), (0o640, []), (0o644, ["vault.readable_by_all"])):
        (tmp_path / "key").chmod(mode)
        with structlog.testing.capture_logs() as lines:
            open_vault(tmp_path / "key")
        assert [line["event"] for line in lines] == warnings


def test_several_that_open_it_at_once_get_the_same_key(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        vaults = list(threads.map(open_vault, [tmp_path / "key"] * 8))

    sealed = vaults[0].seal(b"hunter2", purpose="a")
    assert {vault.open(sealed, purpose="a") for vault in vaults} == {b"hunter2"}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_derived_keys_depend_on_the_file_and_the_purpose_only(tmp_path):
    vault = open_vault(tmp_path / "one")

    assert vault.derive("a") == open_vault(tmp_path / "one").derive("a")
    others = {vault.derive("b"), open_vault(tmp_path / "two").derive("a"), (tmp_path / "one").read_bytes()}
    assert len(others | {vault.derive("a")}) == 4
    assert {len(key) for key in others} == {32}


def test_a_derived_key_is_that_of_rfc_5869():
    """Extract without a salt, then one round of expand."""
    extracted = hmac.digest(bytes(32), b"k" * 32, "sha256")

    assert Vault(b"k" * 32).derive("pages") == hmac.digest(extracted, b"pages\x01", "sha256")
