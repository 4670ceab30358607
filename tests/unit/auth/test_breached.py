"""Looking passwords up in a file of those that were stolen elsewhere."""

from __future__ import annotations

import hashlib

import pytest

from uhm_auth.breached import BreachedPasswords
from uhm_auth.errors import InvalidPassword
from uhm_auth.policy import Policy
from uhm_auth.settings import AuthSettings

STOLEN = [f"stolen {number}" for number in range(200)]


def digest(password: str) -> str:
    return hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()


def lines(passwords: list[str], *, end: str = "\r\n", count: bool = True) -> str:
    """As they are downloaded, each with how often it was seen, so that lines differ in length."""
    return end.join(f"{each}:{int(each[:4], 16)}" if count else each for each in sorted(map(digest, passwords)))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 200])
@pytest.mark.parametrize(
    ("form", "last"),
    [({}, "\r\n"), ({"end": "\n"}, ""), ({"end": "\n", "count": False}, "\n")],
    ids=["as downloaded", "no last line end", "digests alone"],
)
def test_all_that_is_in_the_list_is_found_and_nothing_else(tmp_path, size, form, last):
    path = tmp_path / "list"
    path.write_text(lines(STOLEN[:size], **form) + last, newline="")
    breached = BreachedPasswords(path)
    assert [password for password in STOLEN if password in breached] == STOLEN[:size]
    assert not any(f"{password}!" in breached for password in STOLEN)


def test_small_letters_are_hexadecimal_too(tmp_path):
    path = tmp_path / "list"
    path.write_text(lines(STOLEN, end="\n").lower())
    assert all(password in BreachedPasswords(path) for password in STOLEN)


def test_a_password_of_the_list_is_refused_whatever_its_score(tmp_path, monkeypatch):
    path = tmp_path / "list"
    path.write_text(lines(["goose flute 7 marzipan", "test"], end="\n"))
    monkeypatch.setenv("UHM_BREACHED_PASSWORDS", str(path))
    for policy in (AuthSettings().policy, AuthSettings(password_min_score=4).policy):
        with pytest.raises(InvalidPassword, match="stolen elsewhere"):
            policy.check("goose flute 7 marzipan", username="ann")
        policy.check("goose flute 8 marzipan", username="ann")
    assert AuthSettings(breached_passwords=None).policy == Policy()


@pytest.mark.parametrize("content", [None, "", "password\n", "0" * 39 + "\n", "0" * 64 + "\n"])
def test_what_is_no_list_is_refused_at_the_start(tmp_path, content):
    path = tmp_path / "list"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match="breached_passwords"):
        AuthSettings(breached_passwords=path)
