"""A machine in the foreground: its output is ours, our signals are its, and its exit code becomes ours."""

from __future__ import annotations

import base64
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uhm.client import segment
from uhm.errors import CommandError, ServerUnreachable
from uhm.logs import LogWriter, collect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uhm.client import Client
    from uhm.output import Output

__all__ = ["Ended", "run_in_foreground"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED = frozenset({"exited", "failed"})
RECONNECTS = 10
RECONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A machine that has ended, and with `--json` what it wrote."""

    machine: dict[str, Any]
    logs: list[dict[str, str]]

    @property
    def failure(self) -> str:
        """Why the workload never ran or did not end by itself, for people; empty where it did."""
        if self.machine.get("status") != "failed":
            return ""
        reason = self.machine.get("reason") or "nothing is known of why."
        # Where there is an exit code, the guest is well, and its console says nothing about the workload.
        tail = self.machine.get("console_tail", "") if self.machine.get("exit_code") is None else ""
        return f"The machine failed: {reason}" + (f"\nThe end of its console:\n{tail}" if tail else "")

    @property
    def exit_code(self) -> int:
        """The workload's, as docker has it: 127 where its program was not found. 1 where it never came to one."""
        return int(self.machine.get("exit_code") or 1) if self.failure else int(self.machine.get("exit_code") or 0)


def run_in_foreground(client: Client, output: Output, *, request: dict[str, Any], remove: bool) -> Ended:
    """Makes the machine, passes on what it writes until it ends, and with `remove` deletes it then.

    The first Ctrl-C or SIGTERM asks the workload to stop, the second ends it by force.
    """
    stopping = _Stopping(client)
    with stopping.signals():
        machine = client.create("/api/v1/machines", request)
        path = f"/api/v1/machines/{segment(machine['id'])}"
        stopping.of(path)
        logs: list[dict[str, str]] = []
        if output.is_json:
            logs = collect(_output(client, path))
        else:
            writer = LogWriter()
            for message in _output(client, path):
                writer.write(message)
        ended = Ended(machine=_final_state(client, path), logs=logs)
        if remove:
            client.delete(path, force=True)
        return ended


def _output(client: Client, path: str) -> Iterator[dict[str, Any]]:
    """What the workload writes until it ends, every byte once: where the stream breaks, another goes on."""
    passed_on = 0
    for attempt in range(RECONNECTS + 1):
        position = 0
        try:
            with client.stream(f"{path}/logs", follow=True) as messages:
                for message in messages:
                    content = base64.b64decode(message.get("data", ""))
                    fresh = content[max(0, passed_on - position) :]
                    position += len(content)
                    if fresh:
                        passed_on = position
                        yield message | {"data": base64.b64encode(fresh)}
        except ServerUnreachable:
            if attempt == RECONNECTS:
                raise
            time.sleep(RECONNECT_SECONDS)
        else:
            return


def _final_state(client: Client, path: str) -> dict[str, Any]:
    """The machine once it has ended, which it may do a moment after its output has."""
    for attempt in range(RECONNECTS + 1):
        try:
            with client.stream(f"{path}:watch") as messages:
                if any(message["machine"].get("status") in ENDED for message in messages):
                    break
        except ServerUnreachable:
            if attempt == RECONNECTS:
                raise
            time.sleep(RECONNECT_SECONDS)
    return client.get(path)


@dataclass(slots=True)
class _Stopping:
    """Passes signals on. A request blocks, so each is made by a thread, while the output goes on to be read."""

    client: Client
    path: str = ""
    asked: int = 0

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Catches them for the time of the block."""
        before = {number: signal.signal(number, self._caught) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def of(self, path: str) -> None:
        """The machine is known from now on; what was asked before is done now."""
        self.path = path
        if self.asked:
            self._stop()

    def _caught(self, number: int, frame: object) -> None:
        del number, frame
        self.asked += 1
        if self.path:
            self._stop()

    def _stop(self) -> None:
        body = {"grace_seconds": 0} if self.asked > 1 else {}
        threading.Thread(target=self._ask, args=(f"{self.path}:stop", body), daemon=True).start()

    def _ask(self, path: str, body: dict[str, int]) -> None:
        with suppress(CommandError):  # it has ended meanwhile; the output's end says so
            self.client.post(path, body)
