"""A bench for real machines: what the tests of docs/guest.md share.

A pytest plugin, so that all of them use the same fixtures. PYTEST_DONT_REWRITE: they import it before it is loaded.
"""

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from uhm_builder.base import Base, Ingredients, make_base
from uhm_builder.disk import Disk, compose
from uhm_common.artifacts import ArtifactStore
from uhm_guest.clock import measure_tsc_khz
from uhm_machines.qemu import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).parents[2]
MKFS_EROFS = Path(os.environ.get("UHM_MKFS_EROFS", REPOSITORY / "build/tools/mkfs.erofs"))
TUNED_KERNEL = Path(os.environ.get("UHM_GUEST_KERNEL") or REPOSITORY / "build/guest/kernels/minimal")
BUSYBOX = Path("/bin/busybox")
BOOT_SECONDS = 60.0
MIB = 1 << 20


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

    def wait_for(self, name: str, *, count: int = 1) -> str:
        """Wait until an event has come this many times; return its argument."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            arguments = [argument for event, argument in self.events() if event == name]
            if len(arguments) >= count:
                return arguments[count - 1]
            assert self.qemu.poll() is None, f"the machine ended without {name}: {self.events()}"
            time.sleep(0.01)
        pytest.fail(f"no event {name} in {BOOT_SECONDS} s: {self.events()}\n{self.console()}")

    def end(self) -> int:
        """Wait until QEMU has ended by itself; return the workload's exit code."""
        assert self.qemu.wait(BOOT_SECONDS) == 0
        codes = [int(argument) for event, argument in self.events() if event == "exit"]
        assert len(codes) == 1, f"{self.events()}\n{self.console()}"
        return codes[0]

    def wait_for_output(self, text: str, stream: int = 1) -> str:
        """Wait until the workload has said this; return all that it has said."""
        deadline = time.monotonic() + BOOT_SECONDS
        while text not in (said := self.output(stream)):
            assert time.monotonic() < deadline, f"{said}\n{self.output(stream=2)}\n{self.events()}\n{self.console()}"
            time.sleep(0.01)
        return said

    def run(self, *args: str, settings: Sequence[tuple[str, str]] = ()) -> None:
        """Send `run` with this command and these settings."""
        self.send_pairs("run", *(("arg", arg) for arg in args), *settings)

    def send_pairs(self, verb: str, *pairs: tuple[str, str]) -> None:
        self.send(verb, b"".join(f"{key}\0{value}\0".encode() for key, value in pairs))

    def send(self, verb: str, payload: bytes = b"") -> None:
        self.control.sendall(f"{verb} {len(payload)}\n".encode() + payload)

    def frames(self) -> list[tuple[int, int, bytes]]:
        """All frames as stream, nanoseconds, content."""
        raw = (self.directory / "output").read_bytes()
        found = []
        while len(raw) >= 16:
            stream, length, at = struct.unpack_from(">B3xIQ", raw)
            found.append((stream, at, raw[16 : 16 + length]))
            raw = raw[16 + length :]
        return found

    def output(self, stream: int = 1) -> str:
        return b"".join(content for number, _, content in self.frames() if number == stream).decode()

    def console(self) -> str:
        return (self.directory / "console.log").read_text(errors="replace")


def names(machine: Machine) -> list[str]:
    """The names of a machine's events so far."""
    return [name for name, _ in machine.events()]


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
    memory_mib: int = 256
    blank_bytes: int = 0
    """The size of a blank disk, for another to take the place of; 0: the disk is the overlay in the directory."""
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
    argv = ["qemu-system-x86_64", "-cpu", "max", "-accel", "tcg", "-m", str(hardware.memory_mib), "-smp", "1"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    argv += ["-kernel", f"{base}/vmlinux", "-initrd", f"{base}/initramfs"]
    argv += ["-append", f"{append} {hardware.kernel_options}"]
    if hardware.blank_bytes:
        for node in blocks.blank(hardware.blank_bytes):
            argv += ["-blockdev", json.dumps(node)]
    else:
        argv += ["-drive", f"if=none,id={blocks.TOP},format=qcow2,file={directory}/overlay.qcow2"]
    argv += ["-device", f"virtio-blk-device,drive={blocks.TOP}", "-device", "virtio-serial-device"]
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
        size = hardware.memory_mib * MIB
        argv += ["-object", f"memory-backend-file,id=ram,size={size},mem-path={hardware.memory},share={share}"]
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


def qmp(machine: Machine, *commands: tuple[str, dict[str, Any]]) -> None:
    """Execute QMP commands; those that migrate are waited for. Those of the monitor for people must say nothing."""
    with connect(machine.directory / "qmp") as connection, connection.makefile("rw") as lines:

        def execute(command: str, arguments: dict[str, Any]) -> Any:
            lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            lines.flush()
            for line in lines:
                reply = json.loads(line)
                assert "error" not in reply, reply
                if "return" in reply:
                    return reply["return"]
            pytest.fail("QMP ended")

        lines.readline()
        execute("qmp_capabilities", {})
        for command, arguments in commands:
            said = execute(command, arguments)
            assert command != "human-monitor-command" or not said, said
            while command.startswith("migrate") and "uri" in arguments:
                if execute("query-migrate", {}).get("status") == "completed":
                    break
                time.sleep(0.005)


def make_bench(store: ArtifactStore, kernel: Path | None) -> Bench:
    """Build the init and a base with this kernel; without one, with the distribution's."""
    if not MKFS_EROFS.is_file():
        pytest.skip("no mkfs.erofs; run `make setup`")
    subprocess.run(["make", "-s", "-C", str(REPOSITORY / "guest")], check=True, timeout=60)
    ingredients = Ingredients(
        init=REPOSITORY / "build/guest/init",
        mkfs_erofs=MKFS_EROFS,
        kernel=kernel,
        portable_kernel=REPOSITORY / "build/guest/kernels/generic",
        portable=REPOSITORY / "build/guest/portable",
    )
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
