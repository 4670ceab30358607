"""Where a command writes: its result to standard output, the rest to standard error, one document for `--json`."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

import click

from uhm.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

__all__ = ["Output", "with_output"]

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True, slots=True)
class Output:
    """Standard output and error of one command."""

    is_json: bool = False

    def document(self, document: object) -> None:
        """Prints the one JSON document, where `--json` asked for it."""
        if self.is_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))

    def say(self, text: str) -> None:
        """A line of the result; nothing with `--json`."""
        if not self.is_json:
            click.echo(text)

    def show(self, renderable: RenderableType) -> None:
        """A table or a picture of the result; nothing with `--json`."""
        if not self.is_json:
            self._console(file=sys.stdout).print(renderable)

    def note(self, text: str) -> None:
        """A line beside the result."""
        click.echo(text, err=True)

    @property
    def is_live(self) -> bool:
        """Whether progress may move on the terminal."""
        return sys.stderr.isatty() and not self.is_json

    def console(self) -> Console:
        """A console on standard error, for progress."""
        return self._console(file=sys.stderr)

    @staticmethod
    def _console(*, file: Any) -> Console:
        """rich looks at NO_COLOR and TERM itself. What is no terminal is as wide as it takes."""
        from rich.console import Console  # noqa: PLC0415 - heavy

        return Console(file=file, highlight=False, soft_wrap=not file.isatty(), width=None if file.isatty() else 200)


def with_output(command: Callable[Concatenate[Output, Parameters], None]) -> Callable[Parameters, None]:
    """Gives a command `--json` and an Output as its first argument; an error becomes a document too."""

    @click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
    @functools.wraps(command)
    def run(*args: Any, is_json: bool, **kwargs: Any) -> None:
        output = Output(is_json=is_json)
        try:
            command(output, *args, **kwargs)
        except CommandError as error:
            output.document(error.document())
            raise

    return cast("Callable[Parameters, None]", run)
