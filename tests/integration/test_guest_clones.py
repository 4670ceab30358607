"""Commands beside the workload, and ready snapshots: machines that are copies of one which serves (docs/guest.md)."""

from __future__ import annotations

import re
import shutil
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.guest_bench import (
    BUSYBOX,
    Bench,
    Hardware,
    Machine,
    booted,
    busybox_disk,
    exported,
    free_port,
    make_overlay,
    names,
    qmp,
    spawned,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uhm_builder.disk import Disk

pytestmark = pytest.mark.integration
pytest_plugins = ("tests.integration.guest_bench",)

SHARED: tuple[str, dict[str, object]] = (
    "migrate-set-capabilities",
    {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
)
HOOK = "etc/uhmalguhm/after-restore"
OLD_ID, NEW_ID = "0123456789abcdef" * 2, "fedcba9876543210" * 2

TICKING = "i=0; while :; do i=$((i + 1)); echo tick $i; sleep 0.02; done"
WITNESS = """
echo kept > /srv
i=0
report() {
    echo "report $1"
    echo "random $(head -c 16 /dev/urandom | sha256sum)"
    echo "name $(hostname) $(cat /etc/hostname /etc/machine-id /srv | tr '\\n' ' ') $(grep -c "$(hostname)" /etc/hosts)"
    echo "group $(cat /proc/self/cgroup)"
    echo "date $(date +%s)"
    echo "done $1"
}
trap 'i=$((i + 1)); report $i' USR1
echo set
while :; do sleep 0.02; done
"""
"""Says what the machine is when it is sent USR1."""


@contextmanager
def running(bench: Bench, disk: Disk, directory: Path, script: str, *settings: tuple[str, str]) -> Iterator[Machine]:
    """A machine whose workload is this shell script, once that has said something."""
    with booted(bench, disk, directory) as machine:
        machine.run("/bin/sh", "-c", script, settings=settings)
        machine.wait_for_output("\n")
        yield machine


def check(machine: Machine, script: str, *settings: tuple[str, str], count: int = 1) -> int:
    """Run a script as a check, the count-th of this machine; return what it ended with."""
    machine.send_pairs("check", ("arg", "sh"), ("arg", "-c"), ("arg", script), *settings)
    return int(machine.wait_for("checked", count=count))


def report(machine: Machine, number: int) -> dict[str, str]:
    """Have a witness report for the number-th time."""
    machine.send("signal", b"10")
    said = machine.wait_for_output(f"done {number}\n")
    lines = said[said.index(f"report {number}\n") :].splitlines()
    return dict(line.split(" ", 1) for line in lines)


def test_checks_run_as_the_workload_does(any_bench: Bench, directory: Path) -> None:
    disk = busybox_disk(any_bench)
    settings = [("user", "web"), ("env", "A=1 2"), ("cwd", "/tmp/made"), ("hostname", "shop")]
    with running(any_bench, disk, directory, TICKING, *settings) as machine:
        seen = '[ "$(id -un) $A $PWD $HOSTNAME $HOME" = "web 1 2 /tmp/made shop /srv/web" ] && [ -d /proc/1 ] && exit 7'
        assert check(machine, seen) == 7
        assert check(machine, "tr '\\0' ' ' < /proc/1/cmdline | grep -q tick && [ $$ -gt 1 ]", count=2) == 0
        assert check(machine, "kill -TERM $$", count=3) == 128 + 15
        assert check(machine, "echo dropped; echo this >&2; read x || exit 5", count=4) == 5
        for count, (args, code) in enumerate(((["nothing"], 127), (["/etc/plain"], 126), ([], 125)), start=5):
            machine.send_pairs("check", *(("arg", arg) for arg in args))
            assert machine.wait_for("checked", count=count) == str(code)
        assert check(machine, "for p in /proc/[0-9]*; do grep -q 'State.*Z' $p/status && exit 1; done; :", count=8) == 0
        machine.send("stop")
        assert machine.end() == 137
    lines = machine.output().splitlines()
    assert lines == [f"tick {number}" for number in range(1, len(lines) + 1)]
    assert machine.output(stream=2) == ""
    assert names(machine) == ["init", "mounted", "waiting", "started", "first_output", *["checked"] * 8, "exit"]


def test_a_check_that_takes_too_long_is_killed_and_runs_alone(bench: Bench, busybox: Disk, directory: Path) -> None:
    with running(bench, busybox, directory, TICKING) as machine:
        started = time.monotonic()
        machine.send_pairs("check", *(("arg", arg) for arg in ("sh", "-c", "sleep 77; :")), ("timeout", "1000"))
        machine.send_pairs("check", ("arg", "true"))
        assert machine.wait_for("checked") == "124"
        assert 0.8 < time.monotonic() - started < 10
        assert check(machine, "! pgrep -fx 'sleep 77'", ("timeout", ""), count=2) == 0
        assert names(machine).count("checked") == 2
        machine.send("stop")
        assert machine.end() == 137


def test_the_workload_may_end_while_a_check_runs(bench: Bench, busybox: Disk, directory: Path) -> None:
    with running(bench, busybox, directory, "trap 'exit 9' TERM; echo set; while :; do sleep 0.02; done") as machine:
        machine.send_pairs("check", ("arg", "sleep"), ("arg", "60"))
        machine.send("signal", b"15")
        assert machine.end() == 9


def test_what_is_frozen_stops_and_goes_on(any_bench: Bench, directory: Path) -> None:
    """With children in the root's control group, in the workload's own ones, and some that keep forking."""
    own = "/sys/fs/cgroup/own/below"
    grouped = f"mkdir -p {own}; (echo 0 > {own}/cgroup.procs; while :; do echo own >&2; sleep 0.02; done) &"
    script = f"{grouped} (while :; do (:); done) & {WITNESS}"
    settings = [("hostname", "old-name"), ("machine-id", OLD_ID), ("time", "1600000000000000000")]
    with running(any_bench, busybox_disk(any_bench), directory, script, *settings) as machine:
        assert report(machine, 1)["name"] == f"old-name old-name {OLD_ID} kept  1"
        machine.send("freeze")
        machine.wait_for("frozen")
        frames = machine.frames()
        machine.send("signal", b"10")
        machine.send_pairs("check", ("arg", "true"))
        time.sleep(0.5)
        assert machine.frames() == frames
        new = [("hostname", "new"), ("machine-id", NEW_ID), ("time", "1700000000000000000"), ("entropy", "0f" * 32)]
        machine.send_pairs("restore", *new)
        assert machine.wait_for("restored") == "0"
        said = machine.wait_for_output("done 2\n")
        assert f"name new new {NEW_ID} kept  1\n" in said
        assert 0 <= int(re.findall(r"date (\d+)", said)[-1]) - 1_700_000_000 < 5
        assert check(machine, "[ $(hostname) = new ] && [ $HOSTNAME = new ]") == 0
        back = "until [ ! -e /sys/fs/cgroup/uhm.frozen ]; do sleep 0.1; done; grep -x 0::/ /proc/1/cgroup"
        assert check(machine, back, count=2) == 0
        assert report(machine, 3)["group"] == "0::/"
        assert check(machine, f"[ $(wc -l < {own}/cgroup.procs) -ge 1 ]", count=3) == 0
        machine.send("freeze")
        machine.wait_for("frozen", count=2)
        machine.send("stop")
        assert machine.end() == 137
    expected = ["started", "first_output", "frozen", "restored", *["checked"] * 3, "frozen", "exit"]
    assert names(machine)[3:] == expected


def test_what_cannot_be_frozen_runs_on(bench: Bench, busybox: Disk, directory: Path) -> None:
    script = f"for i in $(seq 70); do mkdir /sys/fs/cgroup/$i; done; {TICKING}"
    with running(bench, busybox, directory, script) as machine:
        machine.send("freeze")
        assert machine.wait_for("unfrozen") == "too many control groups: Argument list too long"
        assert check(machine, "grep -x 0::/ /proc/1/cgroup") == 0
        said = machine.output()
        machine.wait_for_output(f"tick {said.count('tick') + 20}\n")
        assert check(machine, "! grep -l 1 /sys/fs/cgroup/*/cgroup.freeze", count=2) == 0
        machine.send("stop")
        assert machine.end() == 137


def test_restore_needs_freeze(bench: Bench, busybox: Disk, directory: Path) -> None:
    with running(bench, busybox, directory, TICKING) as machine:
        machine.send_pairs("restore", ("hostname", "new"))
        assert check(machine, "[ $(hostname) = uhm ]") == 0
        machine.send("stop")
        machine.end()
    assert "restored" not in names(machine)


def image_with_hook(bench: Bench, hook: str) -> Disk:
    tools = ("sh", "id", "cat", "httpd", "sha256sum", "head", "sleep", "hostname", "grep", "date", "tr")
    files = {"bin": None, "bin/busybox": BUSYBOX.read_bytes(), **{f"bin/{name}": "busybox" for name in tools}}
    return bench.disk(bench.layer({**files, "etc": None, "etc/uhmalguhm": None, HOOK: hook.encode()}))


@contextmanager
def saved(bench: Bench, disk: Disk, directory: Path, script: str, *settings: tuple[str, str]) -> Iterator[Path]:
    """A ready snapshot of a machine that runs this script: its disk is `saved.qcow2`, which needs the disk's export."""
    make = Hardware(memory=directory / "memory", share=True)
    with exported(bench, disk, directory) as address:
        make_overlay(directory / "overlay.qcow2", backing=address)
        with spawned(bench, directory, make) as machine:
            machine.run("/bin/sh", "-c", script, settings=settings)
            machine.wait_for("first_output")
            machine.send("freeze")
            machine.wait_for("frozen")
            qmp(machine, ("stop", {}), SHARED, ("migrate", {"uri": f"exec:cat > {directory}/state"}))
        (directory / "overlay.qcow2").rename(directory / "saved.qcow2")
        yield directory


@contextmanager
def loaded(bench: Bench, directory: Path) -> Iterator[Machine]:
    """A machine made of a ready snapshot, frozen still."""
    shutil.copy(directory / "saved.qcow2", directory / "overlay.qcow2")
    with spawned(bench, directory, Hardware(memory=directory / "memory", restored=True)) as machine:
        qmp(machine, SHARED, ("migrate-incoming", {"uri": f"exec:cat {directory}/state"}), ("cont", {}))
        yield machine


@contextmanager
def restored(bench: Bench, directory: Path, *settings: tuple[str, str]) -> Iterator[Machine]:
    """A machine made of a ready snapshot, told now what time it is."""
    with loaded(bench, directory) as machine:
        machine.send_pairs("restore", ("time", str(time.time_ns())), *settings)
        yield machine


def test_a_ready_snapshot_becomes_machines_of_their_own(any_bench: Bench, directory: Path) -> None:
    hook = "#!/bin/sh\necho $(id -u) $PWD $HOSTNAME $A $(hostname) > /hooked\nexit 3\n"
    settings = [("user", "1000"), ("cwd", "/tmp"), ("env", "A=1 2"), ("hostname", "old"), ("machine-id", OLD_ID)]
    disk = image_with_hook(any_bench, hook)
    randoms = set()
    script = WITNESS.replace("/srv", "/tmp/kept")
    with saved(any_bench, disk, directory, script, *settings):
        for number in range(2):
            name, machine_id = f"machine-{number}", f"{number}a" * 16
            own = [("hostname", name), ("machine-id", machine_id), ("entropy", f"{number}f" * 32)]
            with restored(any_bench, directory, *own) as machine:
                assert machine.wait_for("restored") == "3"
                said = report(machine, 1)
                now = time.time_ns()
                assert said["name"] == f"{name} {name} {machine_id} kept  1"
                assert abs(machine.frames()[-1][1] - now) < 2e9
                assert check(machine, f"[ \"$(cat /hooked)\" = '0 / {name} 1 2 {name}' ]") == 0
                machine.send("stop")
                assert machine.end() == 137
            assert names(machine) == ["restored", "checked", "exit"]
            randoms.add(said["random"])
    assert len(randoms) == 2


def test_a_restored_machine_has_the_hosts_time(any_bench: Bench, directory: Path) -> None:
    """As the frames of its output tell, from the first one on: the workload does not run before."""
    with saved(any_bench, busybox_disk(any_bench), directory, TICKING):
        time.sleep(2)
        before = time.time_ns()
        with restored(any_bench, directory) as machine:
            machine.wait_for_output("tick")
            lags = []
            for _ in range(30):
                lags.append(time.time_ns() - machine.frames()[-1][1])
                time.sleep(0.02)
            numbers = [int(number) for number in re.findall(r"tick (\d+)", machine.output())]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert names(machine) == ["restored"]
            assert machine.frames()[0][1] > before
    assert 0 < min(lags) < 1e8


def rehearse(machine: Machine, *settings: tuple[str, str]) -> bytes:
    """Have a frozen machine rehearse; return what its init has served."""
    machine.send_pairs("rehearse", ("time", "1500000000000000000"), ("entropy", "3c" * 32), *settings)
    guest_port, port = machine.wait_for("rehearsing"), free_port()
    rule = f"hostfwd_add net tcp:127.0.0.1:{port}-:{guest_port}"
    qmp(machine, ("human-monitor-command", {"command-line": rule}))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        served = bytes(answer.read())
    machine.wait_for("rehearsed")
    return served


def test_a_clone_rehearses_before_it_is_told_who_it_is(any_bench: Bench, directory: Path) -> None:
    """Two of one snapshot, as spares are: of the rehearsal's names, time and randomness nothing stays."""
    script = f"echo added >> /etc/passwd; ({TICKING}) & {WITNESS}"
    settings = [("hostname", "old"), ("machine-id", OLD_ID)]
    firsts, randoms = set(), set()
    with saved(any_bench, busybox_disk(any_bench), directory, script, *settings):
        for number in range(2):
            name, machine_id = f"machine-{number}", f"{number}a" * 16
            own = [("hostname", name), ("machine-id", machine_id), ("entropy", f"{number}f" * 32)]
            with loaded(any_bench, directory) as machine:
                spare = [("hostname", "a-spare-of-a-longer-name"), ("machine-id", "cd" * 16)]
                assert rehearse(machine, *spare).endswith(b"\nadded\n")
                qmp(machine, ("stop", {}))
                assert machine.frames() == []
                qmp(machine, ("cont", {}))
                before = time.time_ns()
                machine.send_pairs("restore", ("time", str(before)), *own)
                assert machine.wait_for("restored") == "0"
                said = report(machine, 1)
                assert said["name"] == f"{name} {name} {machine_id} kept  1"
                assert check(machine, "! grep spare /etc/hosts /etc/hostname") == 0
                machine.send("stop")
                assert machine.end() == 137
            assert names(machine) == ["rehearsing", "rehearsed", "restored", "checked", "exit"]
            assert machine.frames()[0][1] >= before
            ticks = [int(tick) for tick in re.findall(r"^tick (\d+)$", machine.output(), re.MULTILINE)]
            assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
            firsts.add(ticks[0])
            randoms.add(said["random"])
    assert (len(firsts), len(randoms)) == (1, 2)
