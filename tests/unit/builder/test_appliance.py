"""The door to guestfs, with a stand-in for its bindings in the child process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from uhm_builder.appliance import (
    ApplianceFailed,
    ApplianceLost,
    ApplianceMissing,
    ApplianceTimeout,
    Drive,
    Interruption,
    open_appliance,
)

STAND_IN = """
import os, subprocess, time

class GuestFS:
    def __init__(self, python_return_dict):
        self.told = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.told.append([name, list(args), kwargs])

    def recorded(self):
        return self.told

    def is_ready(self):
        return 1

    def launch(self):
        self.qemu = subprocess.Popen(["sleep", "60"])

    def processes(self):
        return [os.getpid(), self.qemu.pid]

    def read_file(self, path):
        return b"\\xff" + path.encode()

    def hang(self):
        time.sleep(60)

    def crash(self):
        os._exit(1)

    def refuse(self):
        raise RuntimeError("no such device")
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "guestfs.py"
    path.write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    return path


def is_running(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 5
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.01)


def test_calls_and_their_results() -> None:
    drive = Drive(path=Path("/a.qcow2"), format="qcow2", readonly=True)
    with open_appliance([drive], kvm=False, memory_mib=300) as appliance:
        assert appliance.call("read_file", "/x") == b"\xff/x"
        assert appliance.call("recorded") == [
            ["set_backend", ["direct"], {}],
            ["set_backend_settings", [["force_tcg"]], {}],
            ["set_memsize", [300], {}],
            ["set_network", [False], {}],
            ["add_drive_opts", ["/a.qcow2"], {"format": "qcow2", "readonly": True}],
        ]


def test_with_kvm_nothing_is_forced() -> None:
    with open_appliance([], kvm=True) as appliance:
        assert "set_backend_settings" not in [call[0] for call in appliance.call("recorded")]


def test_a_failed_call_says_which_and_why_and_the_next_works() -> None:
    with open_appliance([], kvm=False) as appliance:
        with pytest.raises(ApplianceFailed, match="refuse: no such device") as raised:
            appliance.call("refuse")
        assert not isinstance(raised.value, ApplianceLost)
        assert appliance.call("read_file", "") == b"\xff"


def test_nothing_is_left_behind_at_the_end() -> None:
    with open_appliance([], kvm=False) as appliance:
        processes = appliance.call("processes")
        os.kill(processes[1], 15)  # guestfs ends its QEMU itself; the stand-in does not
    wait_until_gone(processes)


def call_and_note(name: str, processes: list[int]) -> None:
    """Make one call in an appliance that is given two seconds; note its processes first."""
    with open_appliance([], kvm=False, seconds=2) as appliance:
        processes += appliance.call("processes")
        appliance.call(name)


def test_a_hung_appliance_is_killed_with_its_qemu() -> None:
    processes: list[int] = []
    with pytest.raises(ApplianceTimeout, match="hang was not done after 2 s"):
        call_and_note("hang", processes)
    wait_until_gone(processes)


def test_an_appliance_that_dies_is_an_error_and_its_qemu_is_killed() -> None:
    processes: list[int] = []
    with pytest.raises(ApplianceFailed, match="its process ended during crash"):
        call_and_note("crash", processes)
    wait_until_gone(processes)


def call_what_is_dead(processes: list[int]) -> None:
    """Make a call in an appliance whose processes were killed before it."""
    with open_appliance([], kvm=False) as appliance:
        processes += appliance.call("processes")
        os.killpg(processes[0], 9)
        wait_until_gone(processes)
        appliance.call("read_file", "/x")


def test_one_that_was_killed_between_two_calls_is_lost() -> None:
    processes: list[int] = []
    with pytest.raises(ApplianceLost, match="its process ended during read_file"):
        call_what_is_dead(processes)


def test_an_appliance_may_be_given_more_time() -> None:
    with open_appliance([], kvm=False, seconds=60) as appliance:
        appliance.allow(0.2)
        with pytest.raises(ApplianceTimeout, match=r"after 0\.2 s"):
            appliance.call("hang")


def test_one_may_be_interrupted_in_a_call() -> None:
    interruption, begun = Interruption(), time.monotonic()
    with open_appliance([], kvm=False, interruption=interruption) as appliance:
        processes = appliance.call("processes")
        threading.Timer(0.2, interruption).start()
        with pytest.raises(ApplianceLost, match="its process ended during hang"):
            appliance.call("hang")
        wait_until_gone(processes)
    interruption()  # has nothing to do any more
    assert time.monotonic() - begun < 10


def test_one_may_be_interrupted_in_its_launch_and_before(stand_in: Path) -> None:
    stand_in.write_text(STAND_IN.replace("def launch(self):", "def launch(self):\n        time.sleep(60)"))
    for seconds in (1.0, 0.0):
        interruption, begun = Interruption(), time.monotonic()
        timer = threading.Timer(seconds, interruption)
        timer.start()
        if not seconds:
            timer.join()
        with (
            pytest.raises(ApplianceLost, match="its process ended during launch"),
            open_appliance([], kvm=False, interruption=interruption),
        ):
            pass
        assert time.monotonic() - begun < 10


def test_it_ends_with_the_process_that_opened_it() -> None:
    program = (
        "from uhm_builder.appliance import open_appliance\n"
        "with open_appliance([], kvm=False) as appliance:\n"
        "    print(*appliance.call('processes'), flush=True)\n"
        "    appliance.call('hang')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as opener:
        assert opener.stdout is not None
        processes = [int(pid) for pid in opener.stdout.readline().split()]
        opener.kill()
    wait_until_gone(processes)


def test_missing_bindings_are_told_apart(stand_in: Path) -> None:
    stand_in.write_text("raise ImportError('no guestfs here')")
    with pytest.raises(ApplianceMissing, match=r"no guestfs here.*make setup"), open_appliance([], kvm=False):
        pass
