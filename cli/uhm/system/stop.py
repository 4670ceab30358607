"""Ends the system, in an order in which nobody is missed, and whatever state it was left in."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uhm.errors import SystemFailed
from uhm.system.engine import private_dockerd
from uhm.system.processes import end_recorded, read_process, told
from uhm.system.programs import STOP_ORDER
from uhm.system.record import SystemRecord
from uhm.system.supervisor import SUPERVISOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uhm.system.layout import Layout

__all__ = ["clear", "stop_system", "system_lock"]

SUPERVISOR_GRACE_SECONDS = 120.0
PART_GRACE_SECONDS = 10.0
DRAIN_SECONDS = 120.0
SWEEP_GRACE_SECONDS = 2.0
LOCK_SECONDS = 300.0
LOCK_POLL_SECONDS = 0.1


@contextmanager
def system_lock(layout: Layout) -> Iterator[None]:
    """Held while the system of a state directory is started or ended. Raises SystemFailed after minutes of waiting."""
    handle = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise SystemFailed(
                        f"Another `uhm up` or `uhm down` has been busy with {layout.state_dir} for minutes."
                    ) from error
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def stop_system(layout: Layout) -> bool:
    """Ends everything; answers whether there was anything. Raises SystemFailed where machines could not be stopped."""
    if not layout.run_dir.is_dir():
        return False
    with system_lock(layout):
        record = SystemRecord.load(layout)
        return clear(layout, drain=record)


def clear(layout: Layout, *, drain: SystemRecord | None = None) -> bool:
    """Ends every process of the system; the caller holds the lock. Answers whether there was anything.

    supervisord, asked to end, ends the parts in order of priority. Where it was killed, the parts are found by what
    they noted about themselves. With `drain` the machines and what serves their disks end too; without, the next start
    finds them again.
    """
    record = SystemRecord.load(layout)
    recorded = {name: read_process(layout.process_file(name)) for name in (SUPERVISOR, *STOP_ORDER)}
    for name, process in recorded.items():
        if process is not None:
            end_recorded([process], grace=SUPERVISOR_GRACE_SECONDS if name == SUPERVISOR else PART_GRACE_SECONDS)
        # Only now, after supervisord has ended, is nobody started any more who would note a new process.
        if name == SUPERVISOR:
            recorded.update({part: read_process(layout.process_file(part)) for part in STOP_ORDER})
    try:
        if drain is not None:
            _drain(drain)
            _sweep(layout)
    finally:
        if record is not None and record.private_docker:
            _stop_docker(layout)
        for path in layout.processes_dir.glob("*"):
            path.unlink()
        layout.supervisor_socket.unlink(missing_ok=True)
    layout.record_file.unlink(missing_ok=True)
    return record is not None


def _stop_docker(layout: Layout) -> None:
    """Ends what an engine of our own leaves: containers, their shims, mounts, control groups."""
    from uhm_common.errors import UhmError  # noqa: PLC0415 - heavy

    try:
        private_dockerd(layout, environment=os.environ).stop()
    except UhmError as error:
        raise SystemFailed(f"The Docker Engine could not be cleared away: {error}") from error


def _sweep(layout: Layout) -> None:
    """Ends what the parts have started and not ended, such as an appliance of libguestfs that is about to notice.

    Only processes of this system were told its directory for temporary files.
    """
    from uhm_common.leftovers import end_processes  # noqa: PLC0415 - heavy

    end_processes(told("TMPDIR", str(layout.temporary_dir)), grace=SWEEP_GRACE_SECONDS)


def _drain(record: SystemRecord) -> None:
    """Stops the machines, which outlive the service that started them."""
    if importlib.util.find_spec("uhm_machines.drain") is None:
        return
    argv = [sys.executable, "-m", "uhm_machines.drain"]
    try:
        done = subprocess.run(
            argv,
            env=dict(os.environ) | record.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DRAIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SystemFailed(
            f"Machines did not stop within {DRAIN_SECONDS:g} s.", hint="Try `uhm down` again."
        ) from error
    if done.returncode != 0:
        raise SystemFailed(
            f"Machines could not be stopped:\n{done.stderr.strip()[-2000:]}", hint="Try `uhm down` again."
        )
