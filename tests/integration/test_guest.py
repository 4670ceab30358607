"""Real machines: what docs/guest.md promises, checked against QEMU without KVM. Each boot takes about two seconds."""

from __future__ import annotations

import hashlib
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.integration.guest_bench import (
    BOOT_SECONDS,
    BUSYBOX,
    Bench,
    Hardware,
    booted,
    busybox_disk,
    ended,
    exported,
    make_overlay,
    qmp,
    shell,
    spawned,
)
from uhm_builder.disk import Disk

pytestmark = pytest.mark.integration
pytest_plugins = ("tests.integration.guest_bench",)

OVMF = Path("/usr/share/OVMF/OVMF_CODE.fd")

SCRATCH_PROGRAM = r"""
#include <stdio.h>
#include <unistd.h>
int main(void)
{
    printf("pid %d\n", (int)getpid());
    fprintf(stderr, "complaint\n");
    return 3;
}
"""


def test_a_static_binary_from_scratch(any_bench: Bench, directory: Path) -> None:
    source, program = directory / "main.c", directory / "main"
    source.write_text(SCRATCH_PROGRAM)
    subprocess.run(["cc", "-static", "-O1", "-o", str(program), str(source)], check=True, timeout=60)
    disk = any_bench.disk(any_bench.layer({"app": program.read_bytes()}))
    with booted(any_bench, disk, directory) as machine:
        machine.run("/app")
        assert machine.end() == 3
    assert machine.output() == "pid 1\n"
    assert machine.output(stream=2) == "complaint\n"
    names = [name for name, _ in machine.events()]
    assert names == ["init", "mounted", "waiting", "started", "first_output", "exit"]


def test_environment_and_files_are_as_docker_makes_them(any_bench: Bench, directory: Path) -> None:
    script = "pwd; echo $PATH $HOME $A; hostname; cat /etc/hostname /etc/resolv.conf; grep shop /etc/hosts; ulimit -n"
    script += "; ls -d /dev/fd /dev/shm /dev/pts /sys/fs/cgroup/cgroup.procs; echo again > /proc/self/fd/1; date +%s"
    settings = [("env", "A=1 2"), ("cwd", "/made/here"), ("hostname", "shop"), ("nameserver", "10.0.2.9")]
    machine, code = shell(
        any_bench, busybox_disk(any_bench), directory, script, *settings, ("time", "1700000000000000000")
    )
    assert (code, machine.output(stream=2)) == (0, "")
    lines = machine.output().splitlines()
    assert lines[:5] == [
        "/made/here",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /root 1 2",
        "shop",
        "shop",
        "nameserver 10.0.2.9",
    ]
    assert lines[5].split() == ["10.0.2.15", "shop"]
    assert lines[6:12] == ["1024", "/dev/fd", "/dev/pts", "/dev/shm", "/sys/fs/cgroup/cgroup.procs", "again"]
    assert 0 <= int(lines[12]) - 1_700_000_000 < 5


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root) /root"),
        ("web", "uid=101(web) gid=102(webs) groups=102(webs),200(logs),300(extra) /srv/web"),
        ("101", "uid=101(web) gid=102(webs) groups=102(webs),200(logs),300(extra) /srv/web"),
        ("web:logs", "uid=101(web) gid=200(logs) groups=200(logs) /srv/web"),
        ("1234:42", "uid=1234 gid=42 groups=42 /"),
    ],
)
def test_users(bench: Bench, busybox: Disk, directory: Path, user: str, expected: str) -> None:
    script = "echo $(id) $HOME; echo reopened > /logs/out; echo as well > /dev/stderr"
    machine, code = shell(bench, busybox, directory, script, ("user", user))
    assert code == 0, machine.output(stream=2)
    assert machine.output() == f"{expected}\nreopened\n"
    assert machine.output(stream=2) == "as well\n"


@pytest.mark.parametrize(
    ("args", "user", "code", "reason"),
    [
        (["nothing"], "0", 127, 'exec: "nothing": executable file not found in $PATH'),
        (["/no/such"], "0", 127, 'exec: "/no/such": No such file or directory'),
        (["/etc/plain"], "0", 126, 'exec: "/etc/plain": Permission denied'),
        (["/bin"], "0", 126, 'exec: "/bin": is a directory'),
        (["sh"], "nobody-here", 125, "unable to find user nobody-here: no matching entries in passwd file"),
        (["sh", "-c", "exit 42"], "0", 42, None),
    ],
)
def test_exit_codes(
    bench: Bench, busybox: Disk, directory: Path, args: list[str], user: str, code: int, reason: str | None
) -> None:
    with booted(bench, busybox, directory) as machine:
        machine.run(*args, settings=[("user", user)])
        assert machine.end() == code
    assert dict(machine.events()).get("error") == reason


def test_signals_and_stop(bench: Bench, busybox: Disk, directory: Path) -> None:
    script = "trap 'echo caught' TERM; echo set; while :; do sleep 0.05; done"
    with booted(bench, busybox, directory) as machine:
        machine.run("/bin/sh", "-c", script)
        machine.wait_for("first_output")
        machine.send("signal", b"15")
        deadline = time.monotonic() + 10
        while "caught" not in machine.output() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert machine.output() == "set\ncaught\n"
        machine.send("stop")
        assert machine.end() == 137


def test_much_output_arrives_whole_and_in_order(bench: Bench, busybox: Disk, directory: Path) -> None:
    script = "head -c 3000000 /dev/urandom > /tmp/x; cat /tmp/x; sha256sum < /tmp/x >&2"
    machine, code = shell(bench, busybox, directory, script, ("time", str(time.time_ns())))
    assert code == 0
    content = b"".join(part for stream, _, part in machine.frames() if stream == 1)
    assert len(content) == 3_000_000
    assert machine.output(stream=2).split()[0] == hashlib.sha256(content).hexdigest()
    times = [at for _, at, _ in machine.frames()]
    assert times == sorted(times)
    assert abs(times[-1] - time.time_ns()) < 20e9


def test_ports_are_watched_and_reachable(bench: Bench, busybox: Disk, directory: Path) -> None:
    script = "httpd -p 80 -h /www; httpd -p 127.0.0.1:8080 -h /www; exec sleep 60"
    with booted(bench, busybox, directory) as machine:
        settings = [("port", "80"), ("port", "8080"), ("user", "web")]
        machine.run("/bin/sh", "-c", script, settings=settings)
        machine.wait_for("ready")
        assert {argument for name, argument in machine.events() if name == "listening"} == {"80", "8080"}
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/", timeout=10) as answer:
            assert answer.read() == b"<p>hello</p>\n"
        machine.send("stop")
        assert machine.end() == 137


def test_state_outlives_the_machine(bench: Bench, busybox: Disk, directory: Path) -> None:
    _, code = shell(bench, busybox, directory, "echo kept > /srv; rm /www/index.html")
    assert code == 0
    machine, code = shell(bench, busybox, directory, "cat /srv; ls /www")
    assert (code, machine.output()) == (0, "kept\n")


def test_whiteouts_hide_what_lies_below(bench: Bench, directory: Path) -> None:
    lower = bench.layer(
        {"bin": None, "bin/sh": BUSYBOX.read_bytes(), "a": None, "a/gone": b"", "a/stays": b"", "b": None, "b/old": b""}
    )
    upper = bench.layer({"a": None, "a/.wh.gone": b"", "b": None, "b/.wh..wh..opq": b"", "b/new": b""})
    machine, code = shell(bench, bench.disk(lower, upper), directory, "echo a/* b/*")
    assert (code, machine.output()) == (0, "a/stays b/new\n")


def test_a_machine_without_network(bench: Bench, busybox: Disk, directory: Path) -> None:
    with booted(bench, busybox, directory, Hardware(with_network=False)) as machine:
        machine.run("sh", "-c", "ip addr | grep -c inet")
        assert machine.end() == 0
    assert machine.output() == "2\n"


def test_a_template_runs_the_disk_that_it_is_given(bench: Bench, busybox: Disk, directory: Path) -> None:
    """A machine saved over an empty disk, restored twice over an image: two runs with randomness of their own."""
    memory, state = directory / "memory", directory / "state"
    shared: tuple[str, dict[str, object]] = (
        "migrate-set-capabilities",
        {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
    )
    make_overlay(directory / "overlay.qcow2", size="64G")
    booting = Hardware(kernel_options="uhm.template", memory=memory, share=True)
    with spawned(bench, directory, booting) as template:
        template.wait_for("waiting")
        assert [name for name, _ in template.events()] == ["init", "waiting"]
        qmp(template, ("stop", {}), shared, ("migrate", {"uri": f"exec:cat > {state}"}))
    outputs = set()
    for entropy in ("0f" * 32, "f0" * 32):
        (directory / "overlay.qcow2").unlink()
        with exported(bench, busybox, directory) as address:
            make_overlay(directory / "overlay.qcow2", size="64G", backing=address)
            with spawned(bench, directory, Hardware(memory=memory, restored=True)) as machine:
                qmp(machine, shared, ("migrate-incoming", {"uri": f"exec:cat {state}"}), ("cont", {}))
                machine.run("sh", "-c", "head -c 16 /dev/urandom | sha256sum", settings=[("entropy", entropy)])
                assert machine.end() == 0
        assert [name for name, _ in machine.events()] == ["mounted", "started", "first_output", "exit"]
        outputs.add(machine.output())
    assert len(outputs) == 2


def test_more_layers_than_classic_partitions(bench: Bench, directory: Path) -> None:
    bottom = bench.layer({"bin": None, "bin/sh": BUSYBOX.read_bytes()})
    layers = [bench.layer({"top": f"{number}", f"l{number}": b""}) for number in range(40)]
    disk = bench.disk(bottom, *layers)
    machine, code = shell(bench, disk, directory, "set -- /l*; echo $#; readlink /top")
    assert (code, machine.output()) == (0, "40\n39\n")


def test_a_run_message_without_a_command_is_an_error(bench: Bench, busybox: Disk, directory: Path) -> None:
    with booted(bench, busybox, directory) as machine:
        machine.run(settings=[("cwd", "/")])
        assert machine.qemu.wait(BOOT_SECONDS) == 0
    assert machine.events()[-1] == ("error", "run message: no arg: there is nothing to execute")


@pytest.mark.parametrize("firmware", ["SeaBIOS", "OVMF"])
def test_the_disk_boots_by_itself(any_bench: Bench, directory: Path, firmware: str) -> None:
    """A copy of the disk needs no -kernel. Nothing tells that machine what to run yet, which it says."""
    if firmware == "OVMF" and not OVMF.exists():
        pytest.skip("ovmf is not installed")
    disk = busybox_disk(any_bench)
    raw, serial = directory / "disk.raw", directory / "serial"
    subprocess.run(["qemu-img", "convert", "-O", "raw", any_bench.descriptor(disk), raw], check=True, timeout=60)
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults"]
    argv += ["-display", "none", "-no-reboot", "-serial", f"file:{serial}"]
    argv += ["-drive", f"if=virtio,format=raw,file={raw}"]
    if firmware == "OVMF":
        argv += ["-drive", f"if=pflash,unit=0,readonly=on,format=raw,file={OVMF}"]
    with ended(subprocess.Popen(argv)) as qemu:
        assert qemu.wait(2 * BOOT_SECONDS) == 0
    text = serial.read_text(errors="replace")
    assert " mounted" in text
    assert "error there is no port uhm.control" in text
