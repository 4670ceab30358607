"""How a build goes: bars that move on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from uhm.render.units import milliseconds, short_id, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from uhm.output import Output

__all__ = ["BuildProgress", "LiveProgress", "NoProgress", "PlainProgress", "build_progress"]


class BuildProgress(Protocol):
    """Who is shown the events of a build; a context manager around them."""

    def image(self, image: dict[str, Any]) -> None:
        """The image's state."""

    def layer(self, progress: dict[str, Any]) -> None:
        """Bytes done of one layer."""

    def output(self, line: str) -> None:
        """A line of the engine's output."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def build_progress(output: Output) -> BuildProgress:
    """The one that fits where standard error goes."""
    return LiveProgress(output) if output.is_live else PlainProgress(output)


class NoProgress:
    """Shows nothing."""

    def image(self, image: dict[str, Any]) -> None:
        """Not shown."""

    def layer(self, progress: dict[str, Any]) -> None:
        """Not shown."""

    def output(self, line: str) -> None:
        """Not shown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class PlainProgress(NoProgress):
    """A line per stage that has ended, and the engine's output."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told: set[str] = set()

    def image(self, image: dict[str, Any]) -> None:
        """Tells stages that have ended, each once. The last one is known to have ended when another has begun."""
        stages = image.get("stages", [])
        ended = stages if image.get("status") == "ready" else stages[:-1]
        for stage in ended:
            if stage["name"] not in self._told:
                self._told.add(stage["name"])
                self._output.note(f"  {stage['name']:<8} {milliseconds(stage.get('duration_ms', 0.0)):>8}")

    def output(self, line: str) -> None:
        """Passed on."""
        self._output.note(line.rstrip("\n"))


class LiveProgress:
    """A bar per layer and a line with the stage."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415

        self._bars: Progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}"),
            console=output.console(),
            transient=True,
        )
        self._layers: dict[str, TaskID] = {}
        self._stage = self._bars.add_task("waiting", total=None, amount="")

    def image(self, image: dict[str, Any]) -> None:
        """Shows the stage that runs."""
        stages = image.get("stages", [])
        if stages:
            self._bars.update(self._stage, description=stages[-1]["name"])

    def layer(self, progress: dict[str, Any]) -> None:
        """Moves the layer's bar."""
        name = progress.get("layer", "")
        if name not in self._layers:
            self._layers[name] = self._bars.add_task(f"  {short_id(name)}", amount="")
        done, total = int(progress.get("done_bytes", 0)), int(progress.get("total_bytes", 0))
        amount = f"{size(done)} of {size(total)}" if total else size(done)
        self._bars.update(self._layers[name], completed=done, total=total or None, amount=amount)

    def output(self, line: str) -> None:
        """Printed above the bars."""
        self._bars.console.print(line.rstrip("\n"), markup=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
