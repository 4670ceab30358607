"""What is revoked, as the database has it: read again and again, because another replica may have revoked something."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from uhm_common.repeating import repeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from uhm_auth.stores.revocations import RevocationStore
    from uhm_common.callers.revocations import Revocation, Revocations

__all__ = ["RevocationFeed"]

POLL_SECONDS = 0.5
BEAT_SECONDS = 1.0
OVERLAP_SECONDS = 60
"""How long a transaction that revokes may take, with what clocks of replicas are apart."""
BATCH = 1000


class RevocationFeed:
    """Keeps `revocations` as the database has them, and tells them on."""

    def __init__(
        self, store: RevocationStore, revocations: Revocations, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.revocations = revocations
        self._store = store
        self._clock = clock
        self._seen = 0
        self._ended = False

    async def refresh(self) -> None:
        """Reads what is new. Call it after a commit that has revoked something, and this process refuses it at once."""
        now = int(self._clock())
        self.revocations.add(await self._store.since(self._seen, now=now))
        self._seen = now - OVERLAP_SECONDS

    async def run(self) -> None:
        """Reads what is new, until cancelled."""
        await repeat(self.refresh, seconds=POLL_SECONDS, failed="revocations.unread")

    async def watch(self) -> AsyncIterator[tuple[list[Revocation], bool]]:
        """All that are revoked, in batches, then each as it comes, and nothing every second in which none does.

        The flag says whether those that were there at the beginning have all been told. Ends with `end`.
        """
        await self.refresh()
        with self.revocations.listening() as (known, queue):
            for start in range(0, max(len(known), 1), BATCH):
                yield known[start : start + BATCH], start + BATCH >= len(known)
            while not self._ended:
                yield await _batch(queue), True

    async def forget_expired(self) -> int:
        """Deletes what services need not know any more; answers how much that was."""
        return await self._store.delete_expired(now=int(self._clock()))

    def end(self) -> None:
        """Ends all watching."""
        self._ended = True
        self.revocations.nudge()


async def _batch(queue: asyncio.Queue[Revocation | None]) -> list[Revocation]:
    """What comes within a second: the first, and all that are there with it."""
    batch = []
    with suppress(TimeoutError):
        async with asyncio.timeout(BEAT_SECONDS):
            batch.append(await queue.get())
    while not queue.empty() and len(batch) < BATCH:
        batch.append(queue.get_nowait())
    return [revocation for revocation in batch if revocation is not None]
