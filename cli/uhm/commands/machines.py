"""`uhm ps`, `logs`, `stop`, `start`, `rm`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from uhm.each import for_each
from uhm.output import Output, with_output
from uhm.render.tables import machine_ports, machines_table
from uhm.render.units import short_id
from uhm.render.waterfall import waterfall

__all__ = ["logs", "ps", "rm", "show_started", "start", "stop"]


def show_started(output: Output, machine: dict[str, Any], *, timings: bool) -> None:
    """A machine that was started: its id for other programs, the rest for people."""
    output.say(machine["id"])
    if ports := machine_ports(machine):
        output.note(f"  {ports}")
    if timings:
        kernel = f", kernel {machine['kernel']}" if machine.get("kernel") else ""
        output.note(f"  {machine.get('start_kind') or 'cold'} start, {machine.get('accelerator') or 'unknown'}{kernel}")
        if reason := machine.get("start_reason"):
            output.note(f"  {reason}")
        for line in waterfall(machine.get("phases", [])):
            output.note(line)
    output.document(machine)


@click.command()
@click.option("--all", "-a", "everything", is_flag=True, help="Also machines that have ended.")
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@with_output
def ps(output: Output, *, everything: bool, quiet: bool) -> None:
    """List machines, the newest first."""
    from uhm.client import connect  # noqa: PLC0415 - heavy

    found = connect().pages("/api/v1/machines", field="machines", all=everything)
    if quiet:
        for machine in found:
            output.say(short_id(machine["id"]))
    else:
        output.say(machines_table(found, now=datetime.now(UTC)))
    output.document({"machines": found})


@click.command()
@click.argument("machine")
@click.option("--follow", "-f", is_flag=True, help="Go on until the machine ends.")
@click.option("--tail", "-n", metavar="LINES", default="all", help="Only the last lines.  [default: all]")
@click.option("--console", is_flag=True, help="What the kernel and init wrote, instead of the workload.")
@click.option("--timestamps", "-t", is_flag=True, help="With the time of each piece.")
@with_output
def logs(output: Output, *, machine: str, follow: bool, tail: str, console: bool, timestamps: bool) -> None:
    """Show what the workload of a machine wrote."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy
    from uhm.logs import LogWriter, collect  # noqa: PLC0415

    if tail != "all" and not tail.isdecimal():
        raise click.BadParameter(f"{tail!r} is no number of lines.", param_hint="--tail")
    parameters = {
        "follow": follow,
        "tail": None if tail == "all" else tail,
        "source": "console" if console else None,
    }
    with connect().stream(f"/api/v1/machines/{segment(machine)}/logs", **parameters) as messages:
        if output.is_json:
            output.document({"logs": collect(messages)})
            return
        writer = LogWriter(timestamps=timestamps)
        for message in messages:
            writer.write(message)


@click.command()
@click.argument("machine", nargs=-1, required=True)
@click.option("--time", "-t", "grace", type=click.IntRange(0), help="Seconds until it is ended by force; default 10.")
@with_output
def stop(output: Output, *, machine: tuple[str, ...], grace: int | None) -> None:
    """Stop machines: their stop signal first, force after the grace period."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    client = connect()
    body = {} if grace is None else {"grace_seconds": grace}

    def stop_one(name: str) -> dict[str, Any]:
        answer = client.post(f"/api/v1/machines/{segment(name)}:stop", body)
        output.say(name)
        return answer

    output.document({"machines": for_each(machine, stop_one)})


@click.command()
@click.argument("machine", nargs=-1, required=True)
@click.option("--timings", is_flag=True, help="Show how long each phase took.")
@with_output
def start(output: Output, *, machine: tuple[str, ...], timings: bool) -> None:
    """Start machines that have ended, with their disks as they left them."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    client = connect()

    def start_one(name: str) -> dict[str, Any]:
        answer = client.post(f"/api/v1/machines/{segment(name)}:start")
        output.say(name)
        if timings:
            for line in waterfall(answer.get("phases", [])):
                output.note(line)
        return answer

    output.document({"machines": for_each(machine, start_one)})


@click.command()
@click.argument("machine", nargs=-1, required=True)
@click.option("--force", "-f", is_flag=True, help="End it first where it runs.")
@with_output
def rm(output: Output, *, machine: tuple[str, ...], force: bool) -> None:
    """Delete machines and their disks."""
    from uhm.client import connect, segment  # noqa: PLC0415 - heavy

    client = connect()

    def delete(name: str) -> str:
        client.delete(f"/api/v1/machines/{segment(name)}", force=force)
        output.say(name)
        return name

    output.document({"deleted": for_each(machine, delete)})
