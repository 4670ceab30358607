"""Scripts of an image that run once on each machine: what docs/guest.md promises, with a host that talks to init."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.guest_bench import BUSYBOX, Bench, booted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from uhm_builder.disk import Disk

pytestmark = pytest.mark.integration
pytest_plugins = ("tests.integration.guest_bench",)

SCRIPTS = "etc/uhmalguhm/first-boot.d"
COMMAND = "echo workload as $(id -un) with $A; cat /order"


def image(bench: Bench, scripts: Mapping[str, str]) -> Disk:
    """busybox, and these scripts."""
    tools = {f"bin/{name}": "busybox" for name in ("sh", "cat", "head", "id", "sleep")}
    files = {"bin": None, "bin/busybox": BUSYBOX.read_bytes(), **tools, "etc": None, "etc/passwd": b"root:x:0:0::/:\n"}
    return bench.disk(
        bench.layer(files),
        bench.layer({f"{SCRIPTS}/{name}": text.encode() for name, text in scripts.items()}),
        bench.layer({f"{SCRIPTS}/50-not-executable": b"#!/bin/sh\necho never\n"}, mode=0o644),
    )


def test_they_run_once_in_order_as_root_before_the_workload(bench: Bench, directory: Path) -> None:
    disk = image(
        bench,
        {
            "30-user": "#!/bin/sh\necho 30 >> /order; echo web:x:101:101::/: >> /etc/passwd\n",
            "10-first": "#!/bin/sh\necho 10 >> /order; echo I am $(id -u):$(id -g) in $PWD with $A, home $HOME\n",
            "20-fails": "#!/bin/sh\necho 20 >> /order; exit 3\n",
            "25-cannot": "#!/no/such/shell\n",
            "40-much": "#!/bin/sh\nhead -c 300000 /dev/zero\n",
        },
    )
    settings = [("env", "A=1"), ("user", "web"), ("cwd", "/tmp")]
    with booted(bench, disk, directory) as machine:
        machine.run("/bin/sh", "-c", COMMAND, settings=settings)
        assert machine.end() == 0
    said = machine.output().replace("\0", "")
    assert said == "I am 0:0 in / with 1, home /\nworkload as web with 1\n10\n20\n30\n"
    assert machine.output().count("\0") == 300_000
    assert machine.output(stream=2).splitlines() == [
        "uhm: first boot: 20-fails ended with 3",
        "uhm: /etc/uhmalguhm/first-boot.d/25-cannot: No such file or directory",
        "uhm: first boot: 25-cannot ended with 127",
    ]
    assert [name for name, _ in machine.events()] == [
        "init", "mounted", "waiting", "first_output", "started", "exit",
    ]  # fmt: skip
    with booted(bench, disk, directory) as again:
        again.run("/bin/sh", "-c", COMMAND, settings=settings)
        assert again.end() == 0
    assert again.output() == "workload as web with 1\n10\n20\n30\n"


def test_a_machine_can_be_stopped_meanwhile(bench: Bench, directory: Path) -> None:
    disk = image(bench, {"10-long": "#!/bin/sh\necho working; sleep 1000\n"})
    with booted(bench, disk, directory) as machine:
        machine.run("/bin/sh", "-c", "echo workload")
        machine.wait_for_output("working")
        machine.send("stop")
        assert machine.end() == 137
    assert machine.output() == "working\n"


def test_a_command_that_is_not_there_is_told_after_them(bench: Bench, directory: Path) -> None:
    disk = image(bench, {"10-first": "#!/bin/sh\necho first\n"})
    with booted(bench, disk, directory) as machine:
        machine.run("/no/such")
        assert machine.end() == 127
    assert machine.output() == "first\n"
    assert dict(machine.events())["error"] == 'exec: "/no/such": No such file or directory'
    assert "started" not in dict(machine.events())
