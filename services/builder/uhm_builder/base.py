"""The base: what every image's disk and machine share, made once and named by the digest of all that went in.

    bases/<digest hex>/
      boot.raw     EFI system partition: loaders for BIOS (syslinux) and UEFI (systemd-boot), a kernel with drivers for
                   any hypervisor's hardware, and two initramfs, the second with what only disks of their own need
      base.erofs   the base root file system
      state.raw    an empty ext4, sparse
      vmlinux      the kernel as QEMU's -kernel takes it (ELF with the PVH entry point)
      initramfs    for -initrd
      mbr.bin      boot code for the disk's master boot record
      base.json    this record

docs/guest.md says what they are for. boot.raw and state.raw are made with libguestfs, in one launch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uhm_builder.appliance import Drive, open_appliance
from uhm_builder.gpt import ALIGNMENT
from uhm_common.errors import InternalError, NotFound
from uhm_common.process import run
from uhm_guest.initramfs import MODULES, build_initramfs
from uhm_guest.kernel import Kernel, KernelNotFound, choose_kernel, extract_vmlinux, find_kernel
from uhm_guest.portable import boot_modules, build_portable
from uhm_guest.rootfs import base_tar

if TYPE_CHECKING:
    from uhm_builder.appliance import Appliance
    from uhm_common.artifacts import ArtifactStore

__all__ = ["Base", "Ingredients", "load_base", "make_base"]

RECIPE = 2
"""Part of every base's digest: count it up when the same ingredients shall give another base."""

BOOT_SIZE = 64 << 20
STATE_SIZE = 10 << 30
STATE_JOURNAL_MIB = 20
"""As small as lets the state grow: a quarter of it must hold the 1024 blocks that ext4 has free for that, and more."""

COMMAND_LINE = "rdinit=/init panic=-1 quiet printk.devkmsg=on cryptomgr.notests noreplace-smp"
"""What every guest's kernel is told; machines add their console and clock (docs/guest.md).

A panic resets at once, which ends QEMU under -no-reboot; init may always write to the console; the self-tests of the
kernel's ciphers, which cost a fifth of a second under emulation, were the distribution's to run; and a machine with one
processor keeps the lock prefixes of its code, because to patch thousands of them away takes 80 ms under emulation."""
NO_SEAL = "0" * 64
PORTABLE_COMMAND_LINE = f"{COMMAND_LINE} gpt console=tty0 console=ttyS0,115200 uhm.seal={NO_SEAL}"
"""What the loaders in boot.raw say: a screen as well as a serial line, because a hypervisor may lack either; that a
partition table whose first copy is broken is read from its second (`gpt`); and room for a root hash, which a sealed
disk has in place of the zeros."""

_LOADERS = ("syslinux", "systemd-boot")
_TOOL_SECONDS = 60.0
_NAMESPACE = uuid.UUID("0b0f7c3a-7a55-5c0e-9c56-7b6a1b3c6d2e")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """Files of this host that a base is made of."""

    init: Path
    """The static init program, which `make -C guest` builds."""
    mkfs_erofs: Path
    """mkfs.erofs, 1.8 or newer."""
    kernel: Path | None = None
    """The directory of a kernel that `make kernel` has built; None: the newest installed one."""
    portable_kernel: Path | None = None
    """Where a kernel with drivers for real hardware was unpacked, for boot.raw. Not used where `kernel` is given, which
    has them built in; None, or nothing there: boot.raw has the guests' kernel."""
    portable: Path | None = None
    """Programs for disks that boot by themselves, which `make -C guest` builds; None, or not there: none."""
    mbr: Path = Path("/usr/lib/syslinux/mbr/gptmbr.bin")
    systemd_boot: Path = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A finished base, as base.json says it. Sizes are bytes, whole mebibytes."""

    digest: str
    kernel_version: str
    """With the profile of a kernel that was built for guests, as in `6.1.192 minimal`."""
    portable_kernel_version: str = ""
    """Likewise, of the one in boot.raw."""
    command_line: str
    """The part of the kernel's command line that every machine needs."""
    boot_size: int
    base_size: int
    state_size: int
    seal_offsets: tuple[int, ...] = ()
    """Where in boot.raw the 64 characters behind `uhm.seal=` are, one for each loader's configuration. Empty in bases
    of the first recipe, whose boot.raw cannot start a disk by itself either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """Everything that goes into a base, in memory."""

    kernel: Kernel
    image: bytes
    initramfs: bytes
    portable_kernel: Kernel
    portable_image: bytes
    portable_initramfs: bytes
    """The first of boot.raw's two; its kernel may have other modules than the guests'."""
    portable: bytes
    """The second."""
    root_tar: bytes
    mbr: bytes
    systemd_boot: bytes

    def digest(self) -> str:
        """Name the base by all of it."""
        recipe = {
            "recipe": RECIPE,
            "kernels": [self.kernel.name, self.portable_kernel.name],
            "sizes": [BOOT_SIZE, STATE_SIZE, STATE_JOURNAL_MIB],
            "command_lines": [COMMAND_LINE, PORTABLE_COMMAND_LINE],
            "modules": MODULES,
            "sha256": [hashlib.sha256(part).hexdigest() for part in self._parts()],
        }
        return f"sha256:{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()}"

    def _parts(self) -> tuple[bytes, ...]:
        guests = (self.image, self.initramfs, self.root_tar)
        return (*guests, self.portable_image, self.portable_initramfs, self.portable, self.mbr, self.systemd_boot)


def make_base(store: ArtifactStore, ingredients: Ingredients, *, kvm: bool) -> Base:
    """Make the base of these ingredients, unless the store has it; takes about 20 s without KVM.

    Processes that want it at the same time make it once. `kvm` is whether KVM really runs guests here.
    Raises NotFound for a missing ingredient, KernelError, ProcessFailed and the appliance's errors.
    """
    contents = _gather(ingredients)
    digest = contents.digest()
    final = store.base(digest)
    with store.making(final), store.stage() as stage:
        if final.exists():
            return load_base(store, digest)
        staged = stage / "base"
        staged.mkdir()
        base_size = _write_root(staged / "base.erofs", contents.root_tar, ingredients.mkfs_erofs, digest)
        (staged / "vmlinux").write_bytes(extract_vmlinux(contents.image))
        (staged / "initramfs").write_bytes(contents.initramfs)
        (staged / "mbr.bin").write_bytes(contents.mbr)
        _write_disks(staged, contents, digest, kvm=kvm)
        base = Base(
            digest=digest,
            kernel_version=contents.kernel.name,
            portable_kernel_version=contents.portable_kernel.name,
            command_line=COMMAND_LINE,
            boot_size=BOOT_SIZE,
            base_size=base_size,
            state_size=STATE_SIZE,
            seal_offsets=_find_seals(staged / "boot.raw"),
        )
        (staged / "base.json").write_text(json.dumps(asdict(base), indent=2) + "\n")
        store.commit(staged, final)
    return base


def load_base(store: ArtifactStore, digest: str) -> Base:
    """Read the record of a base. Raises NotFound where the store has none of this digest."""
    try:
        record: dict[str, Any] = json.loads((store.base(digest) / "base.json").read_text())
    except FileNotFoundError:
        raise NotFound(f"There is no base {digest}.", hint="It is made with the next image.") from None
    return Base(**(record | {"seal_offsets": tuple(record.get("seal_offsets", ()))}))


def _gather(ingredients: Ingredients) -> _Contents:
    for path in (ingredients.init, ingredients.mkfs_erofs, ingredients.mbr, ingredients.systemd_boot):
        if not path.is_file():
            raise NotFound(f"{path} is missing; machines cannot boot without it.", hint="`make setup` installs it.")
    kernel = choose_kernel(ingredients.kernel)
    portable_kernel = _portable_kernel(ingredients) or kernel
    return _Contents(
        kernel=kernel,
        image=kernel.image.read_bytes(),
        initramfs=build_initramfs(ingredients.init, kernel),
        portable_kernel=portable_kernel,
        portable_image=portable_kernel.image.read_bytes(),
        portable_initramfs=build_initramfs(ingredients.init, portable_kernel, modules=boot_modules(portable_kernel)),
        portable=build_portable(portable_kernel, ingredients.portable),
        root_tar=base_tar(),
        mbr=ingredients.mbr.read_bytes(),
        systemd_boot=ingredients.systemd_boot.read_bytes(),
    )


def _portable_kernel(ingredients: Ingredients) -> Kernel | None:
    """The kernel of boot.raw, where it is another one than guests boot."""
    directory = ingredients.portable_kernel
    if ingredients.kernel is not None or directory is None:
        return None
    try:
        return find_kernel(boot=directory / "boot", modules=directory / "lib/modules")
    except KernelNotFound:
        return None


def _write_root(path: Path, tar: bytes, mkfs: Path, digest: str) -> int:
    """Make the EROFS of the base root file system, padded to whole mebibytes; returns its size."""
    identity = uuid.uuid5(_NAMESPACE, digest)
    options = ("--tar=f", "--quiet", "-Enoinline_data", "-T0", f"-U{identity}", "--sort=none")
    run([mkfs, *options, path], timeout=_TOOL_SECONDS, stdin=tar)
    size = path.stat().st_size
    size += -size % ALIGNMENT
    os.truncate(path, size)
    return size


def _write_disks(directory: Path, contents: _Contents, digest: str, *, kvm: bool) -> None:
    """Make boot.raw and state.raw in one appliance."""
    boot, state = directory / "boot.raw", directory / "state.raw"
    for path, size in ((boot, BOOT_SIZE), (state, STATE_SIZE)):
        path.touch()
        os.truncate(path, size)
    # guestfs chooses FAT16 for so small a partition, which not every firmware takes.
    volume = uuid.uuid5(_NAMESPACE, digest).hex[:8]
    run(["mkfs.vfat", "-F", "32", "-n", "UHM-BOOT", "-i", volume, "--invariant", boot], timeout=_TOOL_SECONDS)
    tree = directory / "boot"
    _write_boot_tree(tree, contents)
    with open_appliance([Drive(path=boot), Drive(path=state)], kvm=kvm) as appliance:
        _fill_boot(appliance, tree)
        _fill_state(appliance, digest)
    shutil.rmtree(tree)


def _write_boot_tree(tree: Path, contents: _Contents) -> None:
    """Lay out the files of the boot partition."""
    line = PORTABLE_COMMAND_LINE
    entry = f"title uhmalguhm\nlinux /vmlinuz\ninitrd /initramfs\ninitrd /portable\noptions {line}\n"
    menu = f"DEFAULT uhm\nLABEL uhm\n  LINUX /vmlinuz\n  INITRD /initramfs,/portable\n  APPEND {line}\n"
    files = {
        "vmlinuz": contents.portable_image,
        "initramfs": contents.portable_initramfs,
        "portable": contents.portable,
        "EFI/BOOT/BOOTX64.EFI": contents.systemd_boot,
        "loader/loader.conf": b"default uhm.conf\ntimeout 0\n",
        "loader/entries/uhm.conf": entry.encode(),
        "syslinux/syslinux.cfg": menu.encode(),
    }
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _find_seals(boot: Path) -> tuple[int, ...]:
    """Find the place for a root hash in each loader's configuration. Raises InternalError where one lies in pieces."""
    option, content = f"uhm.seal={NO_SEAL}".encode(), boot.read_bytes()
    found = tuple(match.end() - len(NO_SEAL) for match in re.finditer(re.escape(option), content))
    if len(found) != len(_LOADERS):
        raise InternalError(
            f"boot.raw has {len(found)} places for a seal; each of {' and '.join(_LOADERS)} should have one."
        )
    return found


def _fill_boot(appliance: Appliance, tree: Path) -> None:
    appliance.call("mount", "/dev/sda", "/")
    for path in sorted(tree.iterdir()):
        appliance.call("copy_in", str(path), "/")
    appliance.call("umount", "/")
    appliance.call("syslinux", "/dev/sda", directory="syslinux")


def _fill_state(appliance: Appliance, digest: str) -> None:
    identity = str(uuid.uuid5(_NAMESPACE, f"{digest}/state"))
    appliance.call(
        "mke2fs",
        "/dev/sdb",
        fstype="ext4",
        uuid=identity,
        label="uhm-state",
        journalsize=STATE_JOURNAL_MIB,
        reservedblockspercentage=0,
        lazyitableinit=True,
    )
