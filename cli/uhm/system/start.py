"""Starts the system and waits until every part answers; where one does not, nothing is left running."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

from uhm.errors import SystemFailed
from uhm.system import nats
from uhm.system.engine import Engine, choose_engine
from uhm.system.health import Check, checks
from uhm.system.ports import holder_of, is_free
from uhm.system.processes import read_process
from uhm.system.programs import KEY_FILE, Program, environment, programs
from uhm.system.record import SystemRecord, load_internal_ports, nats_token, write_private
from uhm.system.stop import clear, system_lock
from uhm.system.supervisor import SUPERVISOR, ProgramState, Supervisor, start_supervisor

if TYPE_CHECKING:
    from uhm.system.layout import Layout

__all__ = ["Options", "Report", "StartedSystem", "running_system", "start_system"]

READY_SECONDS = 180.0
POLL_SECONDS = 0.1
ENDS_TO_FAIL = 3
PORT_ATTEMPTS = 3
LOG_LINES = 20
PORT_TAKEN = ("cannot listen on", "address already in use")


class Report(Protocol):
    """Who is told what happens meanwhile."""

    def note(self, text: str) -> None:
        """Something worth a sentence."""

    def ready(self, name: str, seconds: float) -> None:
        """A part answers, so many seconds after the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `uhm up` was asked for."""

    rest_port: int
    grpc_port: int
    use_docker: bool = True


@dataclass(frozen=True, slots=True)
class StartedSystem:
    """A system that this process has started: its record, and supervisord as a child."""

    record: SystemRecord
    supervisor: subprocess.Popen[bytes] = field(repr=False)


class _PartFailed(SystemFailed):
    """A part did not come up; `port_taken` where somebody else took its internal port meanwhile."""

    def __init__(self, message: str, *, port_taken: bool) -> None:
        super().__init__(message)
        self.port_taken = port_taken


def running_system(layout: Layout) -> SystemRecord | None:
    """What runs on the state directory, or None; a system whose supervisord was killed does not count."""
    supervisor = read_process(layout.process_file(SUPERVISOR))
    return SystemRecord.load(layout) if supervisor is not None and supervisor.is_alive() else None


def start_system(layout: Layout, *, options: Options, report: Report) -> StartedSystem:
    """Starts everything and answers when it is ready. Raises SystemFailed, with everything down again."""
    layout.make()
    with system_lock(layout):
        if running_system(layout) is not None:
            raise SystemFailed(f"Meanwhile another `uhm up` has started the system on {layout.state_dir}.")
        clear(layout)
        _require_free({"--rest-port": options.rest_port, "--grpc-port": options.grpc_port})
        for attempt in range(1, PORT_ATTEMPTS + 1):
            record = _new_record(layout, options=options, report=report, new_ports=attempt > 1)
            try:
                return _start(layout, record=record, report=report)
            except BaseException as failure:
                if isinstance(failure, _PartFailed) and failure.port_taken and attempt < PORT_ATTEMPTS:
                    report.note("An internal port was taken meanwhile: starting again with others.")
                    clear(layout)
                    continue
                _take_down(layout, record, report=report)
                raise
    raise AssertionError  # the last attempt returned or raised


def _take_down(layout: Layout, record: SystemRecord, *, report: Report) -> None:
    """Ends everything after a start that failed, whose error matters more than what goes wrong here."""
    try:
        clear(layout, drain=record)
    except SystemFailed as error:
        report.note(str(error))


def _require_free(ports: dict[str, int]) -> None:
    for flag, port in ports.items():
        if not is_free(port):
            holder = holder_of(port)
            raise SystemFailed(
                f"Port {port} is in use{f' by {holder}' if holder else ''}.",
                hint=f"Choose another with {flag}, or stop what uses it (`ss -ltnp 'sport = :{port}'` shows it).",
            )
    if len(set(ports.values())) < len(ports):
        raise SystemFailed(
            "REST and gRPC cannot share a port.", hint="Give --rest-port and --grpc-port different ones."
        )


def _new_record(layout: Layout, *, options: Options, report: Report, new_ports: bool) -> SystemRecord:
    """Decides on ports and engine, and writes what says so."""
    public = frozenset({options.rest_port, options.grpc_port})
    ports = load_internal_ports(layout, anew=new_ports, avoid=public)
    engine = _engine(layout, options=options)
    report.note(engine.note)
    if os.environ.get(KEY_FILE):
        report.note(f"{KEY_FILE} is for one service: each has its own below {layout.state_dir / 'keys'} here.")
    token = nats_token(layout)
    write_private(layout.run_dir / "nats.conf", nats.configuration(port=ports.nats, token=token))
    record = SystemRecord(
        rest_port=options.rest_port,
        grpc_port=options.grpc_port,
        ports=ports,
        docker_host=engine.host,
        private_docker=engine.private,
        environment=environment(
            layout,
            ports=ports,
            nats_token=token,
            engine=engine,
            inherited=os.environ,
        ),
    )
    record.save(layout)
    return record


def _engine(layout: Layout, *, options: Options) -> Engine:
    if not options.use_docker:
        return Engine(host="", private=False, note="No Docker Engine, as asked: Dockerfile builds are off.")
    return choose_engine(layout, environment=os.environ)


def _start(layout: Layout, *, record: SystemRecord, report: Report) -> StartedSystem:
    started = time.monotonic()
    parts = programs(record)
    child = start_supervisor(layout, parts, environment=_inherited() | record.environment)
    wait = _Wait(layout=layout, record=record, parts=parts, child=child, report=report, started=started)
    wait.until_ready()
    return StartedSystem(record, child)


def _inherited() -> dict[str, str]:
    """The environment without what is meant for the command line; what the services are told is added to it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("UHM_", "PYTEST_"))}


@dataclass(slots=True, kw_only=True)
class _Wait:
    """Waiting for the parts: who has answered, and who has ended how often."""

    layout: Layout
    record: SystemRecord
    parts: list[Program]
    child: subprocess.Popen[bytes]
    report: Report
    started: float
    ends: dict[str, set[int]] = field(default_factory=dict)

    def until_ready(self) -> None:
        """Returns when every part has answered. Raises _PartFailed."""
        supervisor = Supervisor(self.layout.supervisor_socket)
        pending = checks(self.record)
        while pending := [check for check in pending if not self._is_ready(check)]:
            if self.child.poll() is not None:
                raise self._failure(SUPERVISOR, f"supervisord ended with exit code {self.child.returncode}")
            for state in supervisor.states() or ():
                self._count_end(state)
            if time.monotonic() - self.started > READY_SECONDS:
                raise self._failure(pending[0].name, f"It did not answer within {READY_SECONDS:g} s")
            time.sleep(POLL_SECONDS)

    def _is_ready(self, check: Check) -> bool:
        if not check.answers():
            return False
        self.report.ready(check.name, time.monotonic() - self.started)
        return True

    def _count_end(self, state: ProgramState) -> None:
        """A part may end once or twice while what it needs is not there yet; a third time it will not come up."""
        if not state.has_ended:
            return
        ends = self.ends.setdefault(state.name, set())
        ends.add(state.stopped)
        if len(ends) >= ENDS_TO_FAIL:
            raise self._failure(state.name, f"It ended {len(ends)} times while starting ({state.reason})")

    def _failure(self, name: str, reason: str) -> _PartFailed:
        log = self.layout.log_dir / "supervisord.start.log" if name == SUPERVISOR else self.layout.log(name)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        own_port = asdict(self.record.ports).get(name)
        last = "\n".join(lines)
        return _PartFailed(
            f"{name} did not come up. {reason}; its log, {log}, ends with:\n{last or '(nothing)'}",
            port_taken=own_port is not None
            and str(own_port) in last
            and any(words in last.lower() for words in PORT_TAKEN),
        )
