"""A guest that is being started: it is told things, and what it answers is waited for.

Once a machine has started, uhm_machines.live follows it instead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uhm_machines.channel import EventLog, GuestChannel
from uhm_machines.errors import GuestFailed

if TYPE_CHECKING:
    from uhm_machines.channel import GuestEvent, Verb
    from uhm_machines.files import MachineFiles
    from uhm_machines.qemu.process import DetachedProcess

__all__ = ["StartingGuest"]

_LOOK_SECONDS = 0.2
"""How often the events are looked at without a bell, which the guest does not ring where that would block it."""
_OVER = frozenset({"error", "exit"})


class StartingGuest:
    """Its end of the channel may be handed on with `channel`."""

    def __init__(self, files: MachineFiles, process: DetachedProcess) -> None:
        self.channel = GuestChannel(files.control_socket)
        self._process = process
        self._events = EventLog(files.events)
        self._heard: list[GuestEvent] = []

    async def send(self, verb: Verb, payload: bytes = b"") -> None:
        """Tells it something. Raises GuestFailed where its QEMU is gone."""
        try:
            await self.channel.send(verb, payload)
        except OSError as error:
            raise GuestFailed("QEMU is gone") from error

    async def expect(self, *names: str, within: float) -> GuestEvent:
        """The first event of one of these names, also if it came earlier; those before it are forgotten.

        Raises GuestFailed where the guest ends or reports an error, and where it says nothing of the kind in time.
        """
        ended = asyncio.create_task(self._process.ended())
        try:
            async with asyncio.timeout(within):
                while True:
                    self._heard += self._events.read_new()
                    while self._heard:
                        event = self._heard.pop(0)
                        if event.name in names:
                            return event
                        if event.name in _OVER:
                            raise GuestFailed(event.argument if event.name == "error" else "its command has ended")
                    if ended.done():
                        raise GuestFailed("QEMU has ended")
                    await self._wait_for_bell(ended)
        except TimeoutError:
            raise GuestFailed(f"it did not get so far in {within:g} s ({' or '.join(names)})") from None
        finally:
            ended.cancel()

    async def _wait_for_bell(self, ended: asyncio.Task[object]) -> None:
        bell = asyncio.create_task(self.channel.bell())
        try:
            await asyncio.wait({bell, ended}, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            bell.cancel()
