"""The process that holds a guestfs handle for `uhm_builder.appliance`; it ends when its socket does.

Reads one JSON object per line and answers with one each: `{"call": name, "args": [...], "kwargs": {...}}` gives
`{"result": ...}` or `{"error": text}`; bytes travel as `{"base64": text}`. The first line gives the settings instead.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
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
    handle.launch()
    return handle


def answer(handle: Any, request: dict[str, Any]) -> dict[str, object]:
    """Make one call on the handle."""
    try:
        return {"result": getattr(handle, request["call"])(*request["args"], **request["kwargs"])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller shall hear of it
        return {"error": str(error)}


def main() -> None:
    """Serve the socket whose file descriptor is the only argument."""
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as lines:

        def say(reply: dict[str, object]) -> None:
            lines.write(json.dumps(reply, default=encode) + "\n")
            lines.flush()

        try:
            handle = open_handle(json.loads(lines.readline()))
        except ImportError as error:
            return say({"missing": str(error)})
        except Exception as error:  # noqa: BLE001
            return say({"error": str(error)})
        say({"result": None})
        for line in lines:
            say(answer(handle, json.loads(line)))
        handle.close()
    return None


if __name__ == "__main__":
    main()
