"""What passwords may be chosen, and who may register."""

from __future__ import annotations

import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zxcvbn import matching
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from uhm_auth.errors import InvalidPassword
from uhm_auth.policy import Policy, Registration
from uhm_auth.settings import AuthSettings

LONG = Policy(password_min_length=12)
STRONG = Policy(password_min_length=12, password_min_score=3)
SCORED = [Policy(password_min_score=score) for score in range(5)]
HARD = "goose flute 7 marzipan"


def refusal(policy: Policy, password: str, *, username: str = "ann") -> str:
    with pytest.raises(InvalidPassword) as caught:
        policy.check(password, username=username)
    assert not password or password not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("password", ["t", "test", "ann", " ", "ß" * 512, "x" * 1024])
def test_the_default_takes_nearly_anything(password):
    Policy().check(password, username="ann")


@pytest.mark.parametrize(
    ("policy", "password", "message"),
    [
        (Policy(), "", "too short: it has 0 characters. Send a password."),
        (LONG, "eleven char", "too short: it has 11 characters. Send at least 12 characters."),
        (LONG, "\N{PILE OF POO}" * 11, "too short: it has 11 characters."),
        (Policy(), "x" * 1025, "too long: it has 1025 bytes. It may have 1024."),
        (Policy(), "ß" * 513, "too long: it has 1026 bytes."),
    ],
    ids=["empty", "short", "characters, not bytes", "long", "bytes, not characters"],
)
def test_lengths(policy, password, message):
    assert message in refusal(policy, password)


@pytest.mark.parametrize(
    "password",
    [
        "\N{PILE OF POO}" * 12,
        "      twelve spaces",
        "ひらがなカタカナ漢字の言葉",
        "nul\0in it, twelve",
        "a\N{COMBINING ACUTE ACCENT}" * 6,
    ],
    ids=["astral", "spaces", "japanese", "nul", "combining"],
)
def test_every_character_may_be_in_a_password(password):
    LONG.check(password, username="ann")


@pytest.mark.parametrize("password", ["correct horse battery staple", HARD, "goose-flute-marzipan"])
def test_no_rule_of_composition(password):
    """Neither digits, nor capitals, nor signs are asked for, only that it is hard to guess."""
    STRONG.check(password, username="ann")


@pytest.mark.parametrize(
    ("password", "hint"),
    [
        ("password1234", "common password"),
        ("aaaaaaaaaaaaaaaa", "Repeats like"),
        ("zaq12wsxcde3", ""),
        ("P@ssw0rd2024!", ""),
        ("uhmalguhm-uhm", ""),
        ("abcdefghijklmnop", "Sequences like"),
    ],
)
def test_what_is_guessed_at_once_is_refused_with_a_reason(password, hint):
    told = refusal(STRONG, password)
    assert "too easy to guess" in told
    assert "3 is asked for" in told
    assert hint in told


@pytest.mark.parametrize(
    ("policy", "most"),
    [(Policy(password_min_length=8, password_min_score=2), 3000), (STRONG, 229)],
    ids=["the 3000 most common of 8 characters", "all common ones of 12"],
)
def test_the_most_common_passwords_are_refused(policy, most):
    """zxcvbn's list has the most common one first."""
    long_enough = [each for each in FREQUENCY_LISTS["passwords"] if len(each) >= policy.password_min_length]
    common = long_enough[:most]
    assert len(common) == most
    for password in common:
        with pytest.raises(InvalidPassword, match="too easy to guess"):
            policy.check(password, username="ann")


@pytest.mark.parametrize("password", ["uhmalguhm", "UhmAlguhm", "uhm4lguhm", "uhmuhmuhm"])
def test_our_names_are_no_secrets(password, monkeypatch):
    assert "too easy" in refusal(SCORED[1], password)
    monkeypatch.setattr("uhm_auth.policy.OUR_NAMES", ())
    SCORED[1].check(password, username="ann")


def test_the_operator_s_words_are_no_secrets(monkeypatch):
    password = "Marzipanflute1"
    STRONG.check(password, username="ann")
    monkeypatch.setenv("UHM_PASSWORD_WORDS", '["marzipanflute", "goose"]')
    policy = AuthSettings(password_min_length=12, password_min_score=3).policy
    assert "too easy" in refusal(policy, password)
    policy.check("correct horse battery staple", username="ann")


@pytest.mark.parametrize("username", ["geschwister.marzipan", "MarzipanFlute42", "marzipan-flute@goose.example"])
def test_a_user_is_no_secret(username):
    """What is hard to guess for others is not, for whom it is the name."""
    strong = Policy(password_min_score=3)
    strong.check(username, username="ann")
    for name in (username, username.upper(), username.lower()):
        assert "is the username" in refusal(SCORED[1], name, username=username)
    assert "too easy" in refusal(strong, f"{username}1", username=username)


def test_the_names_of_two_users_are_not_mixed_up():
    """zxcvbn keeps what it is told of one user in a global; here many ask at once."""
    interval = sys.getswitchinterval()
    names = [f"marzipanflute{number}goose" for number in range(40)]

    def guessed(name: str) -> bool:
        try:
            Policy(password_min_score=2).check(f"{name}1", username=name)
        except InvalidPassword:
            return True
        return False

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(guessed, names * 5))
    finally:
        sys.setswitchinterval(interval)


def test_scores_are_a_ladder():
    """What a higher score takes, every lower one takes too; and each is needed for something."""
    taken = []
    for password in ("test", "testing77", "marzipanfl", "marzipanflute", HARD):
        allowed = 0
        for policy in SCORED:
            try:
                policy.check(password, username="ann")
            except InvalidPassword:
                break
            allowed += 1
        taken.append(allowed - 1)
    assert taken == sorted(taken)
    assert (taken[0], taken[-1]) == (0, 4)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=1100),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,20}"),
)
def test_whatever_is_sent_is_taken_or_refused(password, username):
    with suppress(InvalidPassword):
        SCORED[4].check(password, username=username)


@pytest.mark.parametrize("password", ["4@8({[<69!1|7l0$5+%2" * 50, "1!|l7i+t" * 9, "goose flute " * 80, "aA" * 500])
def test_no_password_takes_long(password, monkeypatch):
    """What is counted is what zxcvbn looks up, because time is noisy; without bounds, the first takes 4 million."""
    looked_up = 0
    look_up = matching.dictionary_match

    def counted(text, *dictionaries, **options):
        nonlocal looked_up
        looked_up += len(text) ** 2
        return look_up(text, *dictionaries, **options)

    monkeypatch.setattr(matching, "dictionary_match", counted)
    with suppress(InvalidPassword):
        SCORED[4].check(password, username="ann")
    assert 0 < looked_up < 400_000


def test_forms_of_a_character_are_not_made_one():
    composed = unicodedata.normalize("NFC", "café au lait, tiède")
    decomposed = unicodedata.normalize("NFD", composed)
    assert len(decomposed) > len(composed)
    Policy(password_min_length=len(composed)).check(composed, username="ann")
    Policy(password_min_length=len(decomposed)).check(decomposed, username="ann")
    assert "too short" in refusal(Policy(password_min_length=len(decomposed)), composed)


@pytest.mark.parametrize(
    ("min_length", "min_score", "weak"),
    [(1, 0, True), (1, 3, True), (12, 0, True), (7, 3, True), (8, 1, False), (12, 3, False)],
)
def test_which_policies_are_weak(min_length, min_score, weak):
    assert Policy(password_min_length=min_length, password_min_score=min_score).weak is weak


def test_the_policy_that_is_set(monkeypatch):
    assert AuthSettings().policy == Policy()
    monkeypatch.setenv("UHM_REGISTRATION", "invitation")
    monkeypatch.setenv("UHM_PASSWORD_MIN_LENGTH", "12")
    monkeypatch.setenv("UHM_PASSWORD_MIN_SCORE", "3")
    policy = Policy(registration=Registration.INVITATION, password_min_length=12, password_min_score=3)
    assert AuthSettings().policy == policy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("registration", "friends"),
        ("password_min_score", 5),
        ("password_min_score", -1),
        ("password_min_length", 257),
        ("bootstrap_invitation", "guess me"),
    ],
)
def test_settings_that_cannot_be(name, value):
    with pytest.raises(ValueError, match=name):
        AuthSettings(**{name: value})


def test_the_bootstrap_code_is_not_shown():
    settings = AuthSettings(bootstrap_invitation="x" * 20)
    assert "xxxx" not in repr(settings)
