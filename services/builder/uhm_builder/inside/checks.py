"""What a customization must look like, whatever image it is for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uhm_builder.errors import InvalidCustomization
from uhm_builder.inside.files import MAX_PATH

if TYPE_CHECKING:
    from uhm_builder.customization import Customization, SshKey, UserAccount, WriteFile

__all__ = ["check"]

MAX_NAME = 255
MAX_BYTES = 4 << 20
"""Of contents, keys and scripts together: they travel in one message, and lie in the database."""
MAX_EACH = 1000
MAX_UID = (1 << 31) - 2
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}\$?")
OWNER = re.compile(rf"(?:{NAME.pattern}|\d{{1,10}})(?::(?:{NAME.pattern}|\d{{1,10}}))?")
HOSTNAME = re.compile(
    r"(?=.{1,64}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
HASH = re.compile(r"[!-9;-~]{1,512}")
KEY = re.compile(r"[ -~]*\b(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[ -~]+")


def check(wish: Customization) -> None:
    """Raises InvalidCustomization for what cannot be put on top of any image."""
    for each in (wish.copy_in, wish.write, wish.ssh_keys, wish.users, wish.run_first_boot):
        if len(each) > MAX_EACH:
            raise InvalidCustomization(f"{len(each)} things of a kind are too many; {MAX_EACH} are taken.")
    texts = [*(key.key for key in wish.ssh_keys), *wish.run_first_boot]
    size = sum(len(write.content) for write in wish.write) + sum(len(text.encode()) for text in texts)
    if size > MAX_BYTES:
        raise InvalidCustomization(
            f"What is put in has {size} bytes; {MAX_BYTES} are taken like this.",
            hint="Put larger things into an archive: --copy-in.",
        )
    if not any((wish.copy_in, wish.write, wish.ssh_keys, wish.users, wish.run_first_boot, wish.hostname)):
        raise InvalidCustomization("Nothing is asked for.", hint="`uhm customize --help` says what there is.")
    if wish.hostname and not HOSTNAME.fullmatch(wish.hostname):
        raise InvalidCustomization(f"{wish.hostname!r} is no host name.")
    for copy_in in wish.copy_in:
        _check_path(copy_in.directory)
    for write in wish.write:
        _check_write(write)
    for user in wish.users:
        _check_user(user)
    for key in wish.ssh_keys:
        _check_key(key)


def _check_write(write: WriteFile) -> None:
    _check_path(write.path)
    if write.path.endswith("/"):
        raise InvalidCustomization(f"{write.path!r} is a directory's path, not a file's.")
    if not 0 <= write.mode <= 0o7777:
        raise InvalidCustomization(f"{write.mode:o} are no permission bits.", hint="As in chmod: 0644.")
    if not OWNER.fullmatch(write.owner):
        raise InvalidCustomization(f"{write.owner!r} is no owner.", hint="As in chown: user, or user:group.")


def _check_user(user: UserAccount) -> None:
    for name in (user.name, *user.groups):
        if not NAME.fullmatch(name):
            raise InvalidCustomization(
                f"{name!r} is no name of a user or group.", hint="Small letters, digits, - and _; at most 32."
            )
    if not 0 <= user.uid <= MAX_UID:
        raise InvalidCustomization(f"{user.uid} is no user's number.")
    for path in filter(None, (user.home, user.shell)):
        _check_path(path)
        if ":" in path or not path.isprintable():
            raise InvalidCustomization(f"{path!r} cannot be in /etc/passwd.")
    if user.password_hash and not HASH.fullmatch(user.password_hash):
        raise InvalidCustomization(
            f"The password hash of {user.name} is none.", hint="Make one with `openssl passwd -6` or mkpasswd."
        )


def _check_key(key: SshKey) -> None:
    if not KEY.fullmatch(key.key):
        raise InvalidCustomization(
            f"{key.key[:40]!r}… is no SSH public key.", hint="Give one line, as in ~/.ssh/id_ed25519.pub."
        )
    if not NAME.fullmatch(key.user):
        raise InvalidCustomization(f"{key.user!r} is no user's name.")


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path.startswith("/") or ".." in parts or "\0" in path:
        raise InvalidCustomization(f"{path!r} is no absolute path without `..`.", hint="Begin with a slash.")
    if len(path.encode()) > MAX_PATH or any(len(part.encode()) > MAX_NAME for part in parts):
        raise InvalidCustomization(f"{path[:80]!r}… is too long for a path.")
