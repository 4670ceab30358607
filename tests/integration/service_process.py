"""Services as processes of their own."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from uhm_common.callers.verifier import RECONNECT_OPTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READY_SECONDS = 60
END_SECONDS = 30


@asynccontextmanager
async def service_process(module: str, address: str, **environment: str) -> AsyncIterator[grpc.aio.Channel]:
    """`python -m MODULE`, answering, with a channel to it; ended with SIGTERM, which must succeed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "UHM_LISTEN": address, **environment},
    )
    try:
        async with grpc.aio.insecure_channel(address, options=RECONNECT_OPTIONS) as channel:
            await asyncio.wait_for(channel.channel_ready(), READY_SECONDS)
            yield channel
        child.terminate()
        assert await asyncio.wait_for(child.wait(), END_SECONDS) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


@asynccontextmanager
async def auth_process(address: str, **environment: str) -> AsyncIterator[grpc.aio.Channel]:
    """The auth service, whose password hashes are cheap."""
    async with service_process("uhm_auth", address, **{"UHM_BCRYPT_COST": "4"} | environment) as channel:
        yield channel
