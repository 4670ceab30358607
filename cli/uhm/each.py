"""One command, several names: all are tried, and what went wrong is told at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from uhm.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["for_each"]

Answer = TypeVar("Answer")


def for_each(names: Sequence[str], act: Callable[[str], Answer]) -> list[Answer]:
    """What `act` answers for each name. Raises after the last: the error itself where there is one, else all in one."""
    answers: list[Answer] = []
    failures: list[CommandError] = []
    for name in names:
        try:
            answers.append(act(name))
        except CommandError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise CommandError("\n".join(str(failure) for failure in failures))
    return answers
