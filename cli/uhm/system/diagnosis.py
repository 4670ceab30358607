"""`uhm doctor`'s whole answer: what the machine has, and how the system is that runs on it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from uhm.system.findings import CHECKS, Finding, password_finding, port_finding
from uhm.system.health import checks, password_policy
from uhm.system.start import running_system
from uhm.system.supervisor import Supervisor

if TYPE_CHECKING:
    from uhm.system.layout import Layout
    from uhm.system.record import SystemRecord

__all__ = ["Diagnosis", "ProgramHealth", "diagnose"]

THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramHealth:
    """A part of the running system; `pid` is 0 while it does not run."""

    name: str
    state: str
    pid: int
    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found; `record` is None where no system runs on the state directory."""

    state_dir: str
    findings: list[Finding]
    record: SystemRecord | None
    programs: list[ProgramHealth]
    left_behind: bool = False
    """Whether a system was started and not ended, and its supervisord is gone."""

    @property
    def ok(self) -> bool:
        """Whether everything essential is there, and everything that runs answers."""
        return (
            all(finding.ok or not finding.essential for finding in self.findings)
            and all(program.answers for program in self.programs)
            and not self.left_behind
        )

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        record = self.record
        return {
            "ok": self.ok,
            "checks": [asdict(finding) | ({"lack": ""} if finding.ok else {}) for finding in self.findings],
            "system": {
                "running": record is not None,
                "left_behind": self.left_behind,
                "state_dir": self.state_dir,
                "url": record.url if record else None,
                "grpc": record.grpc_target if record else None,
                "programs": [asdict(program) for program in self.programs],
            },
        }


def diagnose(layout: Layout, *, rest_port: int, grpc_port: int) -> Diagnosis:
    """Looks at everything at once; what takes long waits for other programs."""
    record = running_system(layout)
    ours = {record.rest_port, record.grpc_port} if record else set()
    with ThreadPoolExecutor(THREADS) as pool:
        programs = pool.submit(_programs, layout, record)
        findings = list(pool.map(lambda check: check(layout), CHECKS))
    findings += [
        port_finding(name, port, ours=port in ours)
        for name, port in (("rest-port", rest_port), ("grpc-port", grpc_port))
    ]
    if record is not None and (policy := password_policy(record.rest_port)) is not None:
        findings.append(password_finding(policy))
    return Diagnosis(
        state_dir=str(layout.state_dir),
        findings=findings,
        record=record,
        programs=programs.result(),
        left_behind=record is None and layout.record_file.exists(),
    )


def _programs(layout: Layout, record: SystemRecord | None) -> list[ProgramHealth]:
    if record is None:
        return []
    states = {state.name: state for state in Supervisor(layout.supervisor_socket).states() or ()}
    found = []
    for check in checks(record):
        state = states.get(check.name)
        found.append(
            ProgramHealth(
                name=check.name,
                state=state.state.lower() if state else "unknown",
                pid=state.pid if state else 0,
                answers=check.answers(),
            )
        )
    return found
