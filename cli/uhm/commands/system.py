"""`uhm up`, `uhm down`: the whole system on this machine."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from uhm.errors import SystemFailed
from uhm.output import Output, with_output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uhm.system.layout import Layout
    from uhm.system.record import SystemRecord
    from uhm.system.start import StartedSystem

__all__ = ["down", "up"]

WATCH_SECONDS = 2.0

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept.  [default: $UHM_STATE_DIR, /var/lib/uhmalguhm for root, else in your home]",
)


def layout_of(state_dir: Path | None) -> Layout:
    """The layout of the state directory given, or of the default one."""
    from uhm.system.layout import Layout, default_state_dir  # noqa: PLC0415

    return Layout.of(state_dir or default_state_dir())


@click.command()
@state_dir_option
@click.option("--rest-port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--grpc-port", type=click.IntRange(1, 65535), default=50051, show_default=True)
@click.option("--detach", is_flag=True, help="Return when everything answers, and leave it running.")
@click.option("--no-docker", is_flag=True, help="Do without a Docker Engine: no Dockerfile builds.")
@with_output
def up(
    output: Output, *, state_dir: Path | None, rest_port: int, grpc_port: int, detach: bool, no_docker: bool
) -> None:
    """Start the whole system on this machine.

    Without --detach it runs until Ctrl-C, and takes everything down again.
    """
    from uhm.system.start import Options, running_system, start_system  # noqa: PLC0415

    layout = layout_of(state_dir)
    if (running := running_system(layout)) is not None:
        _say_running(output, layout, running, asked=(rest_port, grpc_port))
        return
    output.note(f"Starting on {layout.state_dir}")
    options = Options(rest_port=rest_port, grpc_port=grpc_port, use_docker=not no_docker)
    with _signals_interrupt():
        try:
            started = start_system(layout, options=options, report=_Reporter(output))
            _say_ready(output, layout, started.record, detach=detach)
            if not detach:
                _stay(output, layout, started)
        except KeyboardInterrupt:
            output.note("\nTaking everything down ...")
            _stop(layout)


@click.command()
@state_dir_option
@with_output
def down(output: Output, *, state_dir: Path | None) -> None:
    """Stop the system and its machines; what it keeps stays."""
    layout = layout_of(state_dir)
    found = _stop(layout)
    output.say(f"Everything on {layout.state_dir} is down." if found else f"Nothing runs on {layout.state_dir}.")
    output.document({"state_dir": str(layout.state_dir), "stopped": found})


def _stop(layout: Layout) -> bool:
    from uhm.system.stop import stop_system  # noqa: PLC0415

    return stop_system(layout)


def system_document(layout: Layout, record: SystemRecord) -> dict[str, Any]:
    """A running system as `--json` prints it."""
    return {
        "state_dir": str(layout.state_dir),
        "url": record.url,
        "grpc": record.grpc_target,
        "docker_host": record.docker_host,
        "ports": asdict(record.ports),
    }


def _say_running(output: Output, layout: Layout, record: SystemRecord, *, asked: tuple[int, int]) -> None:
    """A second `uhm up` says what runs, and fails only where something else was asked for."""
    source = click.get_current_context().get_parameter_source
    defaulted = click.core.ParameterSource.DEFAULT
    for name, wanted, has in (
        ("rest_port", asked[0], record.rest_port),
        ("grpc_port", asked[1], record.grpc_port),
    ):
        if source(name) is not defaulted and wanted != has:
            raise SystemFailed(
                f"The system on {layout.state_dir} already runs with {name.replace('_', ' ')} {has}, not {wanted}.",
                hint="`uhm down` first, or another --state-dir for a second system.",
            )
    output.say(f"Already running on {layout.state_dir}: {record.url} (gRPC {record.grpc_target})")
    output.document(system_document(layout, record) | {"already_running": True})


def _say_ready(output: Output, layout: Layout, record: SystemRecord, *, detach: bool) -> None:
    output.say(f"Ready: {record.url} (gRPC {record.grpc_target}), logs in {layout.log_dir}")
    output.document(system_document(layout, record) | {"already_running": False})
    if not detach:
        output.note("Ctrl-C ends it.")


class _Reporter:
    """Says on standard error how the start goes."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def note(self, text: str) -> None:
        """Something worth a sentence."""
        self._output.note(f"  {text}")

    def ready(self, name: str, seconds: float) -> None:
        """A part answers."""
        self._output.note(f"  {name:<10} ready  {seconds:5.1f} s")


def _stay(output: Output, layout: Layout, started: StartedSystem) -> None:
    """Waits until somebody ends the system, and says which parts were started again meanwhile."""
    from uhm.system.supervisor import Supervisor  # noqa: PLC0415

    supervisor = Supervisor(layout.supervisor_socket)
    known: dict[str, int] = {}
    while True:
        try:
            started.supervisor.wait(WATCH_SECONDS)
            break
        except subprocess.TimeoutExpired:
            for state in supervisor.states() or ():
                if state.pid and known.setdefault(state.name, state.pid) != state.pid:
                    known[state.name] = state.pid
                    output.note(f"  {state.name:<10} ended and was started again; see {layout.log(state.name)}")
    if _stop(layout):
        raise SystemFailed(
            f"supervisord has ended with exit code {started.supervisor.returncode}; everything was taken down.",
            hint=f"Its log is {layout.log('supervisord')}.",
        )


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does, which itself also works where a shell started us in the background."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
