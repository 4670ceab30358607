"""Real machines: what docs/guest.md promises, checked against QEMU without KVM. Each boot takes about two seconds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import tarfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uhm_builder.base import Base, Ingredients, make_base
from uhm_builder.disk import Disk, compose
from uhm_common.artifacts import ArtifactStore
from uhm_guest.clock import measure_tsc_khz

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
MKFS_EROFS = Path(os.environ.get("UHM_MKFS_EROFS", REPOSITORY / "build/tools/mkfs.erofs"))
TUNED_KERNEL = Path(os.environ.get("UHM_GUEST_KERNEL") or REPOSITORY / "build/guest/kernels/minimal")
BUSYBOX = Path("/bin/busybox")
OVMF = Path("/usr/share/OVMF/OVMF_CODE.fd")
BOOT_SECONDS = 60.0
MIB = 1 << 20

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


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all machines share: the store, the base, and QEMU's clock setting."""

    store: ArtifactStore
    base: Base
    khz: int

    def layer(self, files: Mapping[str, bytes | str | None], *, mode: int = 0o755) -> str:
        """Make a layer; bytes are a file's content, text is a link's target, None is a directory."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.mode = mode
                if content is None:
                    member.type = tarfile.DIRTYPE
                elif isinstance(content, str):
                    member.type, member.linkname = tarfile.SYMTYPE, content
                else:
                    member.size = len(content)
                archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
        tar = buffer.getvalue()
        diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        blob = self.store.layer(diff_id)
        blob.parent.mkdir(parents=True, exist_ok=True)
        options = ("--tar=f", "--aufs", "--quiet", "-Enoinline_data", "-T0", "--sort=none")
        subprocess.run([MKFS_EROFS, *options, blob], input=tar, check=True, timeout=60)
        os.truncate(blob, -(-blob.stat().st_size // MIB) * MIB)
        return diff_id

    def disk(self, *layers: str) -> Disk:
        return compose(self.store, self.base, layers)

    def descriptor(self, disk: Disk) -> Path:
        return self.store.disk(disk.digest) / "disk.vmdk"


@dataclass(kw_only=True)
class Machine:
    """A running QEMU and what the host sees of its guest."""

    directory: Path
    qemu: subprocess.Popen[bytes]
    control: socket.socket
    port: int

    def events(self) -> list[tuple[str, str]]:
        """All complete event lines so far, as name and argument."""
        lines = (self.directory / "events").read_text().splitlines(keepends=True)
        words = [line.rstrip("\n").split(" ", 2) for line in lines if line.endswith("\n")]
        return [(word[1], word[2] if len(word) > 2 else "") for word in words]

    def wait_for(self, name: str) -> str:
        """Wait for an event; return its argument."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            for event, argument in self.events():
                if event == name:
                    return argument
            assert self.qemu.poll() is None, f"the machine ended without {name}: {self.events()}"
            time.sleep(0.01)
        pytest.fail(f"no event {name} in {BOOT_SECONDS} s: {self.events()}\n{self.console()}")

    def end(self) -> int:
        """Wait until QEMU has ended by itself; return the workload's exit code."""
        assert self.qemu.wait(BOOT_SECONDS) == 0
        codes = [int(argument) for event, argument in self.events() if event == "exit"]
        assert len(codes) == 1, f"{self.events()}\n{self.console()}"
        return codes[0]

    def run(self, *args: str, settings: Sequence[tuple[str, str]] = ()) -> None:
        """Send `run` with this command and these settings."""
        pairs = [*(("arg", arg) for arg in args), *settings]
        self.send("run", b"".join(f"{key}\0{value}\0".encode() for key, value in pairs))

    def send(self, verb: str, payload: bytes = b"") -> None:
        self.control.sendall(f"{verb} {len(payload)}\n".encode() + payload)

    def frames(self) -> list[tuple[int, int, bytes]]:
        """All frames as stream, nanoseconds, content."""
        raw = (self.directory / "output").read_bytes()
        found = []
        while raw:
            stream, length, at = struct.unpack_from(">B3xIQ", raw)
            found.append((stream, at, raw[16 : 16 + length]))
            raw = raw[16 + length :]
        return found

    def output(self, stream: int = 1) -> str:
        return b"".join(content for number, _, content in self.frames() if number == stream).decode()

    def console(self) -> str:
        return (self.directory / "console.log").read_text(errors="replace")


def connect(path: Path) -> socket.socket:
    """Connect to a Unix socket as soon as somebody listens; its file is there a moment earlier."""
    deadline = time.monotonic() + 10
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline, f"nobody listens on {path}"
            time.sleep(0.002)
        else:
            return connection


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Kill a process at the end of the block."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """How a machine differs from the usual one."""

    kernel_options: str = ""
    with_network: bool = True
    memory: Path | None = None
    """A file that holds the guest's memory, for snapshots."""
    share: bool = False
    """Whether what the guest writes to its memory goes to that file."""
    restored: bool = False
    """Whether to wait for `migrate-incoming` instead of booting."""


def qemu_argv(bench: Bench, directory: Path, hardware: Hardware, *, port: int) -> list[str]:
    """The machine of docs/guest.md, "The devices"."""
    base = bench.store.base(bench.base.digest)
    append = f"{bench.base.command_line} console=hvc0 tsc_early_khz={bench.khz} tsc=reliable no_timer_check"
    machine = "microvm,acpi=on,pit=off,pic=off,rtc=on"
    argv = ["qemu-system-x86_64", "-cpu", "max", "-accel", "tcg", "-m", "256", "-smp", "1"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    argv += ["-kernel", f"{base}/vmlinux", "-initrd", f"{base}/initramfs"]
    argv += ["-append", f"{append} {hardware.kernel_options}"]
    argv += ["-drive", f"if=none,id=disk,format=qcow2,file={directory}/overlay.qcow2"]
    argv += ["-device", "virtio-blk-device,drive=disk", "-device", "virtio-serial-device"]
    argv += ["-chardev", f"socket,id=control,path={directory}/control,server=on,wait=off"]
    argv += ["-device", "virtserialport,chardev=control,name=uhm.control"]
    for name in ("events", "output"):
        argv += ["-chardev", f"file,id={name},path={directory}/{name},append=on"]
        argv += ["-device", f"virtserialport,chardev={name},name=uhm.{name}"]
    argv += ["-chardev", f"file,id=console,path={directory}/console.log", "-device", "virtconsole,chardev=console"]
    argv += ["-qmp", f"unix:{directory}/qmp,server=on,wait=off"]
    if hardware.with_network:
        argv += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:80", "-device", "virtio-net-device,netdev=net"]
    if hardware.memory:
        share = "on" if hardware.share else "off"
        argv += ["-object", f"memory-backend-file,id=ram,size=256M,mem-path={hardware.memory},share={share}"]
        machine += ",memory-backend=ram"
    if hardware.restored:
        argv += ["-incoming", "defer"]
    return [*argv, "-M", machine]


@contextmanager
def exported(bench: Bench, disk: Disk, directory: Path) -> Iterator[str]:
    """Serve a composed disk read-only; gives its address."""
    export = directory / "export"
    export.unlink(missing_ok=True)
    nbd = ["qemu-nbd", "--read-only", "--persistent", "-e", "8", "-k", str(export), "-f", "vmdk"]
    with ended(subprocess.Popen([*nbd, str(bench.descriptor(disk))])):
        connect(export).close()
        yield f"nbd+unix:///?socket={export}"


@contextmanager
def spawned(bench: Bench, directory: Path, hardware: Hardware) -> Iterator[Machine]:
    """Start QEMU on the overlay in a directory."""
    for name in ("events", "output"):
        (directory / name).write_bytes(b"")
    port = free_port()
    argv = qemu_argv(bench, directory, hardware, port=port)
    with ended(subprocess.Popen(argv)) as qemu, connect(directory / "control") as control:
        yield Machine(directory=directory, qemu=qemu, control=control, port=port)


@contextmanager
def booted(bench: Bench, disk: Disk, directory: Path, hardware: Hardware | None = None) -> Iterator[Machine]:
    """Boot a disk; what is in `directory` of an earlier run is its state."""
    with exported(bench, disk, directory) as address:
        if not (overlay := directory / "overlay.qcow2").exists():
            make_overlay(overlay, backing=address)
        with spawned(bench, directory, hardware or Hardware()) as machine:
            yield machine


def make_overlay(path: Path, *, backing: str | None = None, size: str | None = None) -> None:
    """Make a qcow2, empty or over a backing disk, of its size if none is given."""
    over = ["-F", "raw", "-b", backing] if backing else []
    create = ["qemu-img", "create", "-q", "-f", "qcow2", *over, str(path), *([size] if size else [])]
    subprocess.run(create, check=True, timeout=30)


def qmp(machine: Machine, *commands: tuple[str, dict[str, object]]) -> None:
    """Execute QMP commands; those that migrate are waited for."""
    with connect(machine.directory / "qmp") as connection, connection.makefile("rw") as lines:

        def execute(command: str, arguments: dict[str, object]) -> dict[str, object]:
            lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            lines.flush()
            for line in lines:
                reply = json.loads(line)
                assert "error" not in reply, reply
                if "return" in reply:
                    return dict(reply["return"])
            pytest.fail("QMP ended")

        lines.readline()
        execute("qmp_capabilities", {})
        for command, arguments in commands:
            execute(command, arguments)
            while command.startswith("migrate") and "uri" in arguments:
                if execute("query-migrate", {}).get("status") == "completed":
                    break
                time.sleep(0.005)


def make_bench(store: ArtifactStore, kernel: Path | None) -> Bench:
    """Build the init and a base with this kernel; without one, with the distribution's."""
    if not MKFS_EROFS.is_file():
        pytest.skip("no mkfs.erofs; run `make setup`")
    subprocess.run(["make", "-s", "-C", str(REPOSITORY / "guest")], check=True, timeout=60)
    ingredients = Ingredients(init=REPOSITORY / "build/guest/init", mkfs_erofs=MKFS_EROFS, kernel=kernel)
    return Bench(store=store, base=make_base(store, ingredients, kvm=False), khz=measure_tsc_khz())


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(ArtifactStore(tmp_path_factory.mktemp("artifacts")), None)


@pytest.fixture(scope="session")
def tuned_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    if not (TUNED_KERNEL / "kernel.json").is_file():
        pytest.skip(f"no kernel in {TUNED_KERNEL}; run `make kernel`")
    return make_bench(ArtifactStore(tmp_path_factory.mktemp("tuned")), TUNED_KERNEL)


@pytest.fixture(params=["bench", "tuned_bench"], ids=["distribution's kernel", "tuned kernel"])
def any_bench(request: pytest.FixtureRequest) -> Bench:
    """With each kernel in turn."""
    made: Bench = request.getfixturevalue(request.param)
    return made


@pytest.fixture(scope="session")
def busybox(bench: Bench) -> Disk:
    return busybox_disk(bench)


def busybox_disk(bench: Bench) -> Disk:
    """A small image: busybox, two users, and things that cannot be executed."""
    passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv/web:/bin/sh\n"
    group = b"root:x:0:\nwebs:x:102:\nlogs:x:200:other,web\nextra:x:300:web\n"
    tools = {f"bin/{name}": "busybox" for name in ("sh", "id", "cat", "httpd", "sha256sum", "head", "sleep")}
    files = {"bin": None, "bin/busybox": BUSYBOX.read_bytes(), **tools, "etc": None, "www": None, "logs": None}
    files |= {"etc/passwd": passwd, "etc/group": group, "www/index.html": b"<p>hello</p>\n", "logs/out": "/dev/stdout"}
    return bench.disk(bench.layer(files), bench.layer({"etc/plain": b"not a program\n"}, mode=0o644))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets."""
    path = Path(subprocess.check_output(["mktemp", "-d", "/tmp/uhm-guest.XXXXXX"], text=True).strip())
    yield path
    shutil.rmtree(path)


def shell(bench: Bench, disk: Disk, directory: Path, script: str, *settings: tuple[str, str]) -> tuple[Machine, int]:
    """Run a shell script to its end."""
    with booted(bench, disk, directory) as machine:
        machine.run("/bin/sh", "-c", script, settings=settings)
        return machine, machine.end()


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
