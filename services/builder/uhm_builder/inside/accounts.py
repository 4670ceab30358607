"""The users and groups of an image: passwd(5), group(5) and shadow(5) as text, edited line by line.

Lines that are not understood stay as they are. Passwords are only ever hashes; a new user without one gets `*`, with
which no password is right but keys are (`!` would lock the account for sshd, too).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm_builder.errors import CustomizationFailed

if TYPE_CHECKING:
    from collections.abc import Collection

    from uhm_builder.customization import UserAccount

__all__ = ["Account", "Accounts"]

FIRST_ID = 1000
PASSWD, GROUP, SHADOW = 7, 4, 9
"""How many fields a line has."""
NO_PASSWORD = "*"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A line of passwd."""

    name: str
    uid: int
    gid: int
    home: str


class Accounts:
    """The three files of an image; what they become is in `passwd`, `group` and `shadow`."""

    def __init__(self, *, passwd: str, group: str, shadow: str) -> None:
        self._passwd = _fields(passwd)
        self._group = _fields(group)
        self._shadow = _fields(shadow)

    @property
    def passwd(self) -> str:
        """The text of /etc/passwd."""
        return _text(self._passwd)

    @property
    def group(self) -> str:
        """The text of /etc/group."""
        return _text(self._group)

    @property
    def shadow(self) -> str:
        """The text of /etc/shadow."""
        return _text(self._shadow)

    def find(self, user: str) -> Account:
        """The account of a name or number; a number that no line has is taken as it is. Raises CustomizationFailed."""
        for line in self._passwd:
            if len(line) == PASSWD and user in {line[0], line[2]} and line[2].isdecimal() and line[3].isdecimal():
                return Account(name=line[0], uid=int(line[2]), gid=int(line[3]), home=line[5] or "/")
        if user.isdecimal():
            return Account(name=user, uid=int(user), gid=0, home="/")
        if user == "root":
            return Account(name="root", uid=0, gid=0, home="/root")
        raise CustomizationFailed(f"The image has no user {user!r}.", hint="Add it: --user.")

    def owner(self, text: str) -> tuple[int, int]:
        """The numbers behind `user[:group]`; without a group, the user's own one. Raises CustomizationFailed."""
        user, colon, group = text.partition(":")
        account = self.find(user)
        return account.uid, self._gid(group) if colon and group else account.gid

    def put(self, wish: UserAccount) -> None:
        """Adds a user, or changes the one of that name as far as the wish says something."""
        line = next((line for line in self._passwd if len(line) == PASSWD and line[0] == wish.name), None)
        if line is None:
            self._add(wish)
        else:
            if wish.uid and line[2] != str(wish.uid):
                raise CustomizationFailed(
                    f"The image has a user {wish.name} with number {line[2]}.", hint="Leave the number out."
                )
            line[5] = wish.home or line[5]
            line[6] = wish.shell or line[6]
        self._set_password(wish)
        for group in wish.groups:
            self._join(group, wish.name)

    def _add(self, wish: UserAccount) -> None:
        uids = {line[2] for line in self._passwd if len(line) == PASSWD}
        gids = {line[2] for line in self._group if len(line) == GROUP}
        if wish.uid and str(wish.uid) in uids:
            raise CustomizationFailed(f"The image has a user with number {wish.uid} already.", hint="Choose another.")
        uid = str(wish.uid) if wish.uid else _free(uids | gids)
        own = next((line for line in self._group if len(line) == GROUP and line[0] == wish.name), None)
        if own is None:
            own = [wish.name, "x", uid if uid not in gids else _free(gids), ""]
            self._group.append(own)
        home = wish.home or f"/home/{wish.name}"
        self._passwd.append([wish.name, "x", uid, own[2], "", home, wish.shell or "/bin/sh"])

    def _set_password(self, wish: UserAccount) -> None:
        line = next((line for line in self._shadow if len(line) >= 2 and line[0] == wish.name), None)
        if line is None:
            self._shadow.append([wish.name, wish.password_hash or NO_PASSWORD, "", "0", "99999", "7", "", "", ""])
        elif wish.password_hash:
            line[1] = wish.password_hash

    def _join(self, group: str, name: str) -> None:
        line = next((line for line in self._group if len(line) == GROUP and line[0] == group), None)
        if line is None:
            line = [group, "x", _free({line[2] for line in self._group if len(line) == GROUP}), ""]
            self._group.append(line)
        members = [member for member in line[3].split(",") if member]
        if name not in members:
            line[3] = ",".join([*members, name])

    def _gid(self, group: str) -> int:
        for line in self._group:
            if len(line) == GROUP and line[0] == group and line[2].isdecimal():
                return int(line[2])
        if group.isdecimal():
            return int(group)
        raise CustomizationFailed(f"The image has no group {group!r}.", hint="Give its number.")


def _fields(text: str) -> list[list[str]]:
    return [line.split(":") for line in text.split("\n") if line]


def _text(lines: list[list[str]]) -> str:
    return "".join(":".join(line) + "\n" for line in lines)


def _free(taken: Collection[str]) -> str:
    """The first number that is not taken."""
    number = FIRST_ID
    while str(number) in taken:
        number += 1
    return str(number)
