"""Guests that rehearse what they will be asked for, and leave no trace of it (docs/guest.md)."""

from __future__ import annotations

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
from uhm_machines.qemu.blocks import BLANK, disk_over, image, swap_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uhm_builder.disk import Disk

pytestmark = pytest.mark.integration
pytest_plugins = ("tests.integration.guest_bench",)

SIZE = "64G"
OWN_COMMAND = ("/proc/self/exe", "rehearsal")
REHEARSED_ID = "0123456789abcdef" * 2
WITNESS = """
echo root: $(ls -d /bin/busybox /www /second /first 2>/dev/null)
echo name: $(hostname) $(cat /etc/hostname /etc/machine-id /second | tr '\\n' ' ')
echo layers: $(grep -c overlay /proc/mounts) $(grep -o 'lowerdir=[^,]*' /proc/mounts)
echo partitions: $(ls -d /sys/block/vda/vda* | wc -l)
echo mounted: $(ls -d /sys/fs/ext4/vd* /sys/fs/erofs/vd* | wc -l)
echo kept > /kept
exit 5
"""
OF_SECOND = {
    "root": "/second",
    "name": "second second 2",
    "layers": "1 lowerdir=/1:/base",
    "partitions": "4",
    "mounted": "3",
}


def second_disk(bench: Bench) -> Disk:
    """An image of one layer, with nothing of the other."""
    tools = ("sh", "ls", "cat", "grep", "tr", "wc", "hostname")
    links = {f"bin/{name}": "box" for name in tools}
    return bench.disk(bench.layer({"bin": None, "bin/box": BUSYBOX.read_bytes(), **links, "second": b"2\n"}))


@contextmanager
def template(bench: Bench, directory: Path) -> Iterator[Machine]:
    """A template that waits, paused."""
    with spawned(bench, directory, Hardware(kernel_options="uhm.template", blank_bytes=64 << 30)) as machine:
        machine.wait_for("waiting")
        assert names(machine) == ["init", "waiting"]
        qmp(machine, ("stop", {}))
        yield machine


@contextmanager
def put_in(bench: Bench, disk: Disk, machine: Machine, name: str) -> Iterator[Path]:
    """A machine's own disk over this image's in a paused template, let run; gives the directory that it is in."""
    directory = machine.directory / name
    directory.mkdir()
    overlay = directory / "overlay.qcow2"
    nodes = disk_over(image(str(directory / "export"), ""), overlay=str(overlay), name="overlay")
    with exported(bench, disk, directory) as address:
        make_overlay(overlay, backing=address, size=SIZE)
        added = [("blockdev-add", node) for node in nodes]
        qmp(machine, *added, ("blockdev-reopen", {"options": swap_in("overlay")}), ("cont", {}))
        yield directory


def take_out(machine: Machine) -> None:
    """Pause the template and put its blank disk back."""
    removed = [("blockdev-del", {"node-name": name}) for name in ("overlay", "image")]
    qmp(machine, ("stop", {}), ("blockdev-reopen", {"options": swap_in(BLANK)}), *removed)


def rehearse(machine: Machine, *command: str, count: int = 1) -> None:
    """Rehearse this command for the count-th time."""
    args = [("arg", arg) for arg in command]
    own = [("machine-id", REHEARSED_ID), ("hostname", "rehearsal"), ("port", "1")]
    machine.send_pairs("rehearse", *args, *own, ("time", str(time.time_ns())), ("entropy", "0f" * 32))
    machine.wait_for("rehearsed", count=count)


def ran(machine: Machine) -> dict[str, str]:
    """Run the witness to its end; return what it has said."""
    own = [("hostname", "second"), ("time", str(time.time_ns())), ("entropy", "f0" * 32)]
    machine.run("/bin/sh", "-c", WITNESS, settings=own)
    assert machine.end() == 5, machine.output(stream=2)
    return dict(line.split(": ", 1) for line in machine.output().splitlines())


def test_what_was_rehearsed_leaves_no_trace(any_bench: Bench, directory: Path) -> None:
    first, second = busybox_disk(any_bench), second_disk(any_bench)
    with template(any_bench, directory) as machine:
        with put_in(any_bench, first, machine, "1"):
            rehearse(machine, *OWN_COMMAND)
            take_out(machine)
        assert names(machine) == ["init", "waiting", "rehearsed"]
        assert machine.frames() == []
        with put_in(any_bench, second, machine, "2") as own:
            said = ran(machine)
    assert names(machine) == ["init", "waiting", "rehearsed", "mounted", "started", "first_output", "exit"]
    assert said == OF_SECOND
    assert "uhm:" not in machine.console()  # what init complains of
    with booted(any_bench, second, own) as again:
        again.run("/bin/cat", "/kept", "/second")
        assert again.end() == 0
    assert again.output() == "kept\n2\n"


def test_a_rehearsal_may_fail_and_be_repeated(any_bench: Bench, directory: Path) -> None:
    """Over the same disk, over another, and with commands that say much or cannot be executed."""
    first, second = busybox_disk(any_bench), second_disk(any_bench)
    with template(any_bench, directory) as machine:
        with put_in(any_bench, second, machine, "1"):
            rehearse(machine, "/no/such/program")
            rehearse(machine, *OWN_COMMAND, count=2)
            rehearse(machine, "/bin/sh", "-c", "echo lost; echo lost >&2; echo lost > /kept; exit 9", count=3)
            take_out(machine)
        with put_in(any_bench, first, machine, "2"):
            rehearse(machine, "nothing", count=4)
            rehearse(machine, *OWN_COMMAND, count=5)
            take_out(machine)
        assert machine.frames() == []
        with put_in(any_bench, second, machine, "3"):
            assert ran(machine) == OF_SECOND
    assert names(machine)[2:] == [*["rehearsed"] * 5, "mounted", "started", "first_output", "exit"]
    complaints = [line.partition("uhm: ")[2] for line in machine.console().splitlines() if "uhm: " in line]
    assert [complaint.partition(": ")[0] for complaint in complaints] == ["rehearsing"] * 2
    assert 'exec: "/no/such/program"' in complaints[0]
    assert 'exec: "nothing"' in complaints[1]


def test_a_template_may_run_the_disk_that_it_has_rehearsed_with(bench: Bench, directory: Path) -> None:
    with template(bench, directory) as machine, put_in(bench, second_disk(bench), machine, "1"):
        rehearse(machine, *OWN_COMMAND)
        assert ran(machine) == OF_SECOND
    assert names(machine)[2:] == ["rehearsed", "mounted", "started", "first_output", "exit"]


def test_a_service_that_is_frozen_rehearses_without_running(any_bench: Bench, directory: Path) -> None:
    script = "echo added >> /etc/passwd; echo up; i=0; while :; do i=$((i + 1)); echo $i; sleep 0.02; done"
    with booted(any_bench, busybox_disk(any_bench), directory) as machine:
        machine.run("/bin/sh", "-c", script, settings=[("machine-id", REHEARSED_ID)])
        machine.wait_for_output("2\n")
        machine.send_pairs("rehearse", ("hostname", "early"))  # nothing is frozen yet: it is ignored
        machine.send("freeze")
        machine.wait_for("frozen")
        frozen = machine.frames()
        for count in (1, 2):
            machine.send_pairs("rehearse", ("hostname", "one"), ("time", str(time.time_ns())), ("entropy", "0f" * 32))
            guest_port = machine.wait_for("rehearsing", count=count)
            page = answer_of(machine, guest_port)
            assert (page[:10], page[-7:]) == (b"root:x:0:0", b"\nadded\n")  # as it is in the merged root
            machine.wait_for("rehearsed", count=count)
        machine.send_pairs("rehearse", ("hostname", "one"))  # nobody connects
        machine.wait_for("rehearsing", count=3)
        began = time.monotonic()
        machine.wait_for("rehearsed", count=3)
        assert 2.5 < time.monotonic() - began < 8
        assert machine.frames() == frozen
        machine.send_pairs("restore", ("hostname", "two"), ("time", str(time.time_ns())), ("entropy", "f0" * 32))
        assert machine.wait_for("restored") == "0"
        machine.wait_for_output(f"{int(frozen[-1][2].split()[-1]) + 1}\n")
        own_names = '[ "$(cat /etc/hostname)" = two ] && grep -qw two /etc/hosts && ! grep -w one /etc/hosts'
        machine.send_pairs("check", *(("arg", arg) for arg in ("sh", "-c", own_names)))
        assert machine.wait_for("checked") == "0"
        machine.send("stop")
        assert machine.end() == 137
    assert names(machine)[5:] == [
        *("frozen", *("rehearsing", "rehearsed") * 3, "restored", "checked", "exit"),
    ]
    assert "uhm: rehearsing: " in machine.console()  # nobody came
    numbers = [int(line) for line in machine.output().splitlines()[1:]]
    assert numbers == list(range(1, len(numbers) + 1))


def answer_of(machine: Machine, guest_port: str) -> bytes:
    """What the guest's init answers on its port."""
    port = free_port()
    rule = f"hostfwd_add net tcp:127.0.0.1:{port}-:{guest_port}"
    qmp(machine, ("human-monitor-command", {"command-line": rule}))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return bytes(answer.read())
