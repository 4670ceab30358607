"""The process that holds a guestfs handle for `uhm_builder.appliance`; it ends when its socket does.

Reads one JSON object per line and answers with one each: `{"call": name, "args": [...], "kwargs": {...}}` gives
`{"result": ...}` or `{"error": text, "ended": bool}`, which tells whether the appliance has ended; bytes travel as
`{"base64": text}`. The first line gives the settings instead.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any


def encode(value: object) -> object:
    """Turn what JSON has no form for into what it has one for."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def open_handle(settings: dict[str, Any]) -> Any:
    """Launch an appliance with the drives that the settings name."""
    import guestfs  # noqa: PLC0415 - its absence is answered, not a crash

    handle = guestfs.GuestFS(python_return_dict=True)
    handle.set_backend("direct")
    if not settings["kvm"]:
        handle.set_backend_settings(["force_tcg"])
    handle.set_memsize(settings["memory_mib"])
    handle.set_network(False)
    for drive in settings["drives"]:
        handle.add_drive_opts(drive["path"], format=drive["format"], readonly=drive["readonly"])
    try:
        handle.launch()
    except RuntimeError:
        handle.close()  # deletes its files before the caller, who may kill this process, hears of it
        raise
    delete_socket_directories()  # connected, it needs them no more, and whoever is killed deletes nothing
    if bound := settings["output_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))  # QEMU runs already, and has none
    return handle


def answer(handle: Any, request: dict[str, Any]) -> dict[str, object]:
    """Make one call on the handle."""
    try:
        return {"result": getattr(handle, request["call"])(*request["args"], **request["kwargs"])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller shall hear of it
        return {"error": str(error), "ended": not handle.is_ready()}


def end_with(connection: socket.socket, terminated: int, directory: str) -> None:
    """Kill this process and its QEMU, even in the middle of a call, once the other end of the socket is gone.

    Or once `terminated` can be read. There may be nobody left to delete files, so that is done here.
    """
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    poller.register(terminated, select.POLLIN)
    poller.poll()
    try:
        shutil.rmtree(directory, ignore_errors=True)
        delete_socket_directories()
    finally:
        os.killpg(0, signal.SIGKILL)


def delete_socket_directories() -> None:
    """Delete what libguestfs has made for this process's sockets."""
    for path in socket_directories():
        shutil.rmtree(path, ignore_errors=True)


def socket_directories() -> set[Path]:
    """Where libguestfs has put this process's sockets; for root that is below /tmp, whatever it is told.

    The kernel lists sockets and their addresses in /proc/net/unix: the inode is the seventh field, the path the eighth.
    """
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            own.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    fields = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]]
    parents = {Path(each[7]).parent for each in fields if len(each) == 8 and each[6] in own}
    return {parent for parent in parents if parent.name.startswith("libguestfs")}


def on_termination() -> int:
    """A descriptor that can be read once SIGTERM has come; a call into libguestfs keeps Python's handlers waiting."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(writing)
    return reading


def main() -> None:
    """Serve the socket and use the directory that are the arguments. This process leads its own process group."""
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as lines:

        def say(reply: dict[str, object]) -> None:
            lines.write(json.dumps(reply, default=encode) + "\n")
            lines.flush()

        watched = (connection, on_termination(), sys.argv[2])
        ending = threading.Thread(target=end_with, args=watched, daemon=True)
        ending.start()
        try:
            handle = open_handle(json.loads(lines.readline()))
        except ImportError as error:
            return say({"missing": str(error)})
        except Exception as error:  # noqa: BLE001
            return say({"error": str(error)})
        say({"result": None})
        for line in lines:
            say(answer(handle, json.loads(line)))
        ending.join()  # it has seen the same end, and takes QEMU along
    return None


if __name__ == "__main__":
    main()
