"""How fast the host's time stamp counter runs.

A guest without the old timers has no clock to measure its counter against, so it is told (`tsc_early_khz=`). Under
emulation as under KVM the guest's RDTSC is the host's counter. The kernel's log has the number too, but not for
everyone and not for ever; measuring takes a twentieth of a second and no privilege.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["measure_tsc_khz"]

_MEASURE_SECONDS = 0.05
_TRIES = 20
# lfence; rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_COUNTER = bytes.fromhex("0faee8 0f31 48c1e220 4809d0 c3")


@dataclass(frozen=True, slots=True)
class _Reading:
    """The counter, the clock at about the same time, and how far apart the two may be (ns)."""

    uncertainty_ns: int
    clock_ns: float
    counter: int


def measure_tsc_khz() -> int:
    """Measures the counter's rate in kHz, to within some ten parts in a million. Blocks for 50 ms. x86-64 only.

    Raises OSError where the system allows no executable memory.
    """
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_READ_COUNTER)
        anchor = ctypes.c_char.from_buffer(page)
        read_counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
        first = _best_reading(read_counter)
        time.sleep(_MEASURE_SECONDS)
        last = _best_reading(read_counter)
        del anchor  # the page cannot be closed while something points into it
    return round((last.counter - first.counter) * 1_000_000 / (last.clock_ns - first.clock_ns))


def _best_reading(read_counter: Callable[[], int]) -> _Reading:
    """The reading that was interrupted least of a few."""
    readings = []
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        counter = read_counter()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        readings.append(_Reading(after - before, (before + after) / 2, counter))
    return min(readings, key=lambda reading: reading.uncertainty_ns)
