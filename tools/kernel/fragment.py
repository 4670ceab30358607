"""Whether a kernel's configuration holds what was asked for.

Kconfig drops, without an error, an option whose dependencies are not met and one that the version does not know, and
the guest would show it at its first boot. So what was asked for is compared with what came out.

    python -m tools.kernel.fragment FRAGMENT CONFIG
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main", "read_options", "unmet"]

OFF = "n"
_LINE = re.compile(r"(?:(CONFIG_\w+)=(.+)|# (CONFIG_\w+) is not set)")


def read_options(text: str) -> dict[str, str]:
    """Read a fragment, or a whole configuration: values by option, the last line counts. What is not set is `n`.

    Raises ValueError for a line that is neither an option nor a comment: Kconfig would only warn.
    """
    options: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _LINE.fullmatch(line.strip()):
            options[found[1] or found[3]] = found[2] or OFF
        elif line.strip() and not line.startswith("#"):
            message = f"line {number} is not CONFIG_NAME=value: {line!r}"
            raise ValueError(message)
    return options


def unmet(asked: Mapping[str, str], config: Mapping[str, str]) -> list[str]:
    """What was asked for and is different, a sentence each."""
    return [
        f"{option} is {config.get(option, OFF)}, not {value}"
        for option, value in asked.items()
        if config.get(option, OFF) != value
    ]


def main(fragment: Path, config: Path) -> int:
    """Prints what is unmet; answers the exit code."""
    wrong = unmet(read_options(fragment.read_text()), read_options(config.read_text()))
    for sentence in wrong:
        sys.stderr.write(f"{sentence}: its dependencies are not met, or this kernel has no such option\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
