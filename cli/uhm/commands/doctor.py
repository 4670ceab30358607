"""`uhm doctor`: what this machine has and lacks, and how the running system is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from uhm.commands.system import layout_of, state_dir_option
from uhm.output import Output, with_output

if TYPE_CHECKING:
    from uhm.system.diagnosis import Diagnosis
    from uhm.system.findings import Finding

__all__ = ["doctor"]


@click.command()
@state_dir_option
@click.option(
    "--rest-port", type=click.IntRange(1, 65535), help="The port to look at.  [default: the system's, or 5000]"
)
@click.option(
    "--grpc-port", type=click.IntRange(1, 65535), help="The same for gRPC.  [default: the system's, or 50051]"
)
@with_output
def doctor(output: Output, *, state_dir: Path | None, rest_port: int | None, grpc_port: int | None) -> None:
    """Check what this machine has and lacks, and how the system on it is.

    Ends with 1 where something essential is missing or a part does not answer.
    """
    from uhm.system.diagnosis import diagnose  # noqa: PLC0415 - heavy
    from uhm.system.start import running_system  # noqa: PLC0415

    layout = layout_of(state_dir)
    running = running_system(layout)
    usual = (running.rest_port, running.grpc_port) if running else (5000, 50051)
    diagnosis = diagnose(layout, rest_port=rest_port or usual[0], grpc_port=grpc_port or usual[1])
    for finding in diagnosis.findings:
        output.say(_line(finding))
    _say_system(output, diagnosis)
    output.document(diagnosis.document())
    if not diagnosis.ok:
        raise click.exceptions.Exit(1)


def _line(finding: Finding) -> str:
    mark = "ok" if finding.ok else "MISSING" if finding.essential else finding.lack
    fix = f"\n{'':<25}{finding.fix}" if finding.fix and not finding.ok else ""
    return f"  {finding.name:<13} {mark:<8} {finding.detail}{fix}"


def _say_system(output: Output, diagnosis: Diagnosis) -> None:
    if diagnosis.left_behind:
        output.say(
            f"The system on {diagnosis.state_dir} was not ended, and its supervisord is gone: "
            "`uhm up` starts it again, `uhm down` ends what is left."
        )
        return
    if diagnosis.record is None:
        output.say(f"No system runs on {diagnosis.state_dir}; `uhm up` starts it.")
        return
    output.say(f"The system on {diagnosis.state_dir}: {diagnosis.record.url} (gRPC {diagnosis.record.grpc_target})")
    for program in diagnosis.programs:
        mark = "ok" if program.answers else "SILENT"
        output.say(f"  {program.name:<13} {mark:<8} {program.state}, process {program.pid or 'none'}")
