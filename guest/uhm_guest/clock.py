"""The rate of this host's time stamp counter, which a guest without a reference clock must be told.

A microvm without PIT and HPET has nothing to calibrate the counter against; its kernel takes the rate from
`tsc_early_khz=` instead. Under emulation and under KVM alike the guest's counter runs at the host's rate.
Intel SDM vol. 2, RDTSC. x86-64 only.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time

__all__ = ["measure_tsc_khz"]

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_COUNTER = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_TRIES = 20


def measure_tsc_khz(*, seconds: float = 0.2) -> int:
    """Measure the counter against the monotonic clock for so long; the result is exact to a few parts per million.

    Raises OSError on another architecture, or where the system forbids executable memory.
    """
    if platform.machine() != "x86_64":
        raise OSError(f"no time stamp counter is known on {platform.machine()}")
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(_READ_COUNTER)
        anchor = ctypes.c_char.from_buffer(code)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
        first_ns, first = _sample(read)
        time.sleep(seconds)
        last_ns, last = _sample(read)
        del anchor  # the mapping cannot be closed while something points into it
    return round((last - first) * 1_000_000 / (last_ns - first_ns))


def _sample(read: ctypes._FuncPointer) -> tuple[int, int]:
    """Read clock and counter together; of several tries the one least disturbed."""
    samples = []
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        counter = read()
        after = time.monotonic_ns()
        samples.append((after - before, (before + after) // 2, counter))
    _, at_ns, counter = min(samples)
    return at_ns, counter
