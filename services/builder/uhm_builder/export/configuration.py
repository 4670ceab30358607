"""What a disk that boots by itself is told of its image: the data area of its `uhm-config` partition.

The first mebibyte: a header of 16 bytes (magic, length of the payload as a little-endian uint32, four zero bytes), then
`key\\0value\\0` pairs as in the `run` message of docs/guest.md, then zeros.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from uhm_builder.errors import UnsupportedImage
from uhm_builder.gpt import ALIGNMENT
from uhm_common.signals import signal_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uhm_builder.images import ImageConfig

__all__ = ["DATA_BYTES", "Pair", "configuration", "data_area"]

Pair = tuple[str, str]

DATA_BYTES = ALIGNMENT
_HEADER = struct.Struct("<8sI4x")
_MAGIC = b"UHMCONF1"


def configuration(config: ImageConfig) -> tuple[Pair, ...]:
    """What runs, exactly as a machine of the image would have it without being asked for anything else.

    Raises UnsupportedImage where the image has no command.
    """
    argv = config.entrypoint + config.cmd
    if not argv or not argv[0]:
        raise UnsupportedImage(
            "The image has no command, so a disk of it would have nothing to run.",
            hint="Give it a CMD or an ENTRYPOINT.",
        )
    variables = dict(variable.partition("=")[::2] for variable in config.env)
    single = {
        "cwd": config.working_dir,
        "user": config.user,
        "hostname": config.hostname,
        "stop-signal": str(int(signal_number(config.stop_signal))),
    }
    return (
        *(("arg", word) for word in argv),
        *(("env", f"{name}={value}") for name, value in variables.items()),
        *((key, value) for key, value in single.items() if value),
    )


def data_area(pairs: Iterable[Pair]) -> bytes:
    """The data area that says these pairs. Raises UnsupportedImage for what it cannot hold."""
    payload = bytearray()
    for key, value in pairs:
        if "\0" in value:
            raise UnsupportedImage(f"The image's configuration has a NUL character in {key} {value[:80]!r}.")
        payload += f"{key}\0{value}\0".encode()
    if _HEADER.size + len(payload) > DATA_BYTES:
        raise UnsupportedImage(
            f"The image's configuration has {len(payload)} bytes; a disk has room for {DATA_BYTES - _HEADER.size}.",
            hint="Shorten its environment or its command.",
        )
    return (_HEADER.pack(_MAGIC, len(payload)) + payload).ljust(DATA_BYTES, b"\0")
