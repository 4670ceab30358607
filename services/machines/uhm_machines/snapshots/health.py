"""Whether a service serves: by its health check, as docker runs it, else by its ports; and whether it has come to rest.

A health check runs every second here until it first succeeds, not at the image's interval, which is meant for a service
that is up. A service fails when it has not succeeded in the time in which docker would have called it unhealthy.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from uhm_machines.channel import Verb, encode_check
from uhm_machines.errors import GuestFailed
from uhm_machines.qemu.process import cpu_seconds

if TYPE_CHECKING:
    from uhm_machines.images import Healthcheck
    from uhm_machines.starts.spawner import Running
    from uhm_machines.starts.wish import Service

__all__ = ["wait_until_serving"]

_LISTEN_SECONDS: Final = 120.0
_CHECK_SECONDS: Final = 1.0
_LEAST_HEALTH_SECONDS: Final = 60.0
_REST_SECONDS: Final = 0.4
_RESTING_LOAD: Final = 0.1
"""What share of a processor a machine that rests takes, timer ticks and emulation included."""
_MOST_RESTLESS_SECONDS: Final = 15.0


async def wait_until_serving(running: Running, service: Service) -> None:
    """Waits for a service whose command runs. Raises GuestFailed."""
    check = service.image.config.healthcheck
    if check is not None:
        await _wait_until_healthy(running, check)
    else:
        await running.guest.expect("ready", within=_LISTEN_SECONDS)
    await _wait_for_rest(running)


async def _wait_until_healthy(running: Running, check: Healthcheck) -> None:
    docker_gives = (check.start_period_ns + (check.interval_ns + check.timeout_ns) * max(1, check.retries)) / 1e9
    patience = max(_LEAST_HEALTH_SECONDS, docker_gives)
    timeout_ms = max(1, check.timeout_ns // 1_000_000)
    payload = encode_check(check.command, timeout_ms=timeout_ms)
    code = ""
    try:
        async with asyncio.timeout(patience):
            while code != "0":
                await running.guest.send(Verb.CHECK, payload)
                code = (await running.guest.expect("checked", within=timeout_ms / 1000 + _CHECK_SECONDS * 10)).argument
                if code != "0":
                    await asyncio.sleep(_CHECK_SECONDS)
    except TimeoutError:
        raise GuestFailed(f"its health check did not succeed in {patience:g} s; it ended with {code}") from None


async def _wait_for_rest(running: Running) -> None:
    """Waits until the machine does next to nothing: a service that listens may not have come up all the way.

    One that is never at rest is taken as it is after a while.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _MOST_RESTLESS_SECONDS
    load = 1.0
    while load > _RESTING_LOAD and loop.time() < deadline:
        before, began = cpu_seconds(running.process.pid), loop.time()
        await asyncio.sleep(_REST_SECONDS)
        load = (cpu_seconds(running.process.pid) - before) / (loop.time() - began)
