"""Editing passwd, group and shadow."""

from __future__ import annotations

import pytest

from uhm_builder.customization import UserAccount
from uhm_builder.errors import CustomizationFailed
from uhm_builder.inside.accounts import Account, Accounts

PASSWD = "root:x:0:0:root:/root:/bin/sh\n+::::::\nwww:x:33:34::/srv:/bin/false\n"
GROUP = "root:x:0:\nwww:x:34:\n"
SHADOW = "root:*:1:0:99999:7:::\n"


@pytest.fixture
def accounts():
    return Accounts(passwd=PASSWD, group=GROUP, shadow=SHADOW)


def test_what_is_not_touched_stays_as_it_is(accounts):
    assert (accounts.passwd, accounts.group, accounts.shadow) == (PASSWD, GROUP, SHADOW)


def test_a_new_user(accounts):
    accounts.put(UserAccount(name="ann", groups=("www", "team")))
    accounts.put(UserAccount(name="bob", uid=5, home="/b", shell="/bin/bash", password_hash="$6$h"))
    assert accounts.passwd == PASSWD + "ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:5:5::/b:/bin/bash\n"
    assert accounts.group == "root:x:0:\nwww:x:34:ann\nann:x:1000:\nteam:x:1001:ann\nbob:x:5:\n"
    assert accounts.shadow == SHADOW + "ann:*::0:99999:7:::\nbob:$6$h::0:99999:7:::\n"


def test_a_user_that_is_there_is_changed(accounts):
    accounts.put(UserAccount(name="root", shell="/bin/zsh", password_hash="$6$h"))
    assert accounts.passwd.startswith("root:x:0:0:root:/root:/bin/zsh\n")
    assert accounts.shadow == "root:$6$h:1:0:99999:7:::\n"
    with pytest.raises(CustomizationFailed, match="user www with number 33"):
        accounts.put(UserAccount(name="www", uid=7))
    with pytest.raises(CustomizationFailed, match="number 33 already"):
        accounts.put(UserAccount(name="other", uid=33))


def test_the_same_twice_changes_nothing(accounts):
    wish = UserAccount(name="ann", groups=("www",))
    accounts.put(wish)
    once = (accounts.passwd, accounts.group, accounts.shadow)
    accounts.put(wish)
    assert (accounts.passwd, accounts.group, accounts.shadow) == once


@pytest.mark.parametrize(
    ("text", "owner"),
    [("root", (0, 0)), ("www", (33, 34)), ("www:root", (33, 0)), ("33", (33, 34)), ("7", (7, 0)), ("7:8", (7, 8))],
)
def test_owners(accounts, text, owner):
    assert accounts.owner(text) == owner


@pytest.mark.parametrize(("text", "said"), [("ghost", "no user 'ghost'"), ("root:ghosts", "no group 'ghosts'")])
def test_owners_that_are_not_there(accounts, text, said):
    with pytest.raises(CustomizationFailed, match=said):
        accounts.owner(text)


def test_an_image_without_accounts_has_root():
    assert Accounts(passwd="", group="", shadow="").find("root") == Account(name="root", uid=0, gid=0, home="/root")
