"""Build secrets, which are never written down: the API that took them holds them in memory, and a worker asks for them.

A worker that begins an attempt sends `{"attempt": N}` to `uhm.builds.<id>.secrets`, a request over NATS that no stream
keeps; whoever has the secrets answers `{id: content in base64}`. It does so once per attempt, and only for the attempt
that counts while the build runs. An API that ended in between has forgotten them: the build fails and says so.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats.errors import Error as NatsError

from uhm_builder.errors import InvalidContext, SecretsLost, SecretsTooMany
from uhm_builder.images import Status
from uhm_common.errors import Unavailable
from uhm_common.events import encode, secrets_subject
from uhm_common.logs import get_logger
from uhm_common.subscription import quietly, while_connected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg

    from uhm_builder.images import Image
    from uhm_builder.store import ImageStore
    from uhm_common.events import EventBus

__all__ = ["HeldSecrets", "SecretRequests", "checked_secrets"]

log = get_logger()

ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
BUILD_BYTES_MAX = 500 << 10
"""All secrets of one build; BuildKit takes no more in one, and NATS no message above 1 MiB."""
BYTES_MAX = 64 << 20
LOOK_SECONDS = 10.0
ANSWER_SECONDS = 5.0
NOTICED_SECONDS = 60.0
"""A build that is not in the database after so long was never committed."""


def checked_secrets(secrets: Mapping[str, bytes]) -> None:
    """Raises InvalidContext for secrets that no build can have."""
    for name in secrets:
        if not ID.fullmatch(name):
            raise InvalidContext(
                f"{name[:80]!r} cannot be the id of a build secret.", hint="Use letters, digits, '_', '.' and '-'."
            )
    if (size := sum(len(content) for content in secrets.values())) > BUILD_BYTES_MAX:
        raise InvalidContext(
            f"The secrets of a build may have {BUILD_BYTES_MAX} bytes together; these have {size}.",
            hint="What is larger belongs into the context or a registry.",
        )


@dataclass(slots=True)
class _Held:
    secrets: Mapping[str, bytes] = field(repr=False)
    since: float = field(default_factory=time.monotonic)
    answered: int = 0
    """The last attempt that got them."""


class HeldSecrets:
    """What this process holds; `run` answers those who ask and forgets what no build needs any more."""

    def __init__(self, *, store: ImageStore, events: EventBus) -> None:
        self._store = store
        self._events = events
        self._held: dict[str, _Held] = {}

    def hold(self, build_id: str, secrets: Mapping[str, bytes]) -> None:
        """Takes a build's secrets. Raises SecretsTooMany where the memory set aside for them is full."""
        if not secrets:
            return
        sizes = (len(content) for held in self._held.values() for content in held.secrets.values())
        if sum(sizes) + sum(map(len, secrets.values())) > BYTES_MAX:
            raise SecretsTooMany(
                "Too many builds with secrets are under way.", hint="Try again when some of them have ended."
            )
        self._held[build_id] = _Held(secrets)

    def holds(self, build_id: str) -> bool:
        """Whether it has a build's secrets."""
        return build_id in self._held

    def forget(self, build_id: str) -> None:
        """Lets go of a build's secrets."""
        self._held.pop(build_id, None)

    async def run(self) -> None:
        """Answers until cancelled."""
        await while_connected(self._events, self._answer_all)

    async def _answer_all(self) -> None:
        asked = await self._events.client.subscribe(secrets_subject("*"), cb=self._answer)
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                self._events.client  # noqa: B018 - raises Unavailable where the connection is gone
                await self._forget_ended()
        finally:
            await quietly(asked.unsubscribe())

    async def _forget_ended(self) -> None:
        for build_id, held in list(self._held.items()):
            image = await self._store.get(build_id)
            never = image is None and time.monotonic() - held.since > NOTICED_SECONDS
            if never or (image is not None and image.status.ended):
                self.forget(build_id)

    async def _answer(self, message: Msg) -> None:
        """Nothing for who asks wrongly, or for what somebody else may have."""
        build_id = message.subject.split(".")[2]
        held = self._held.get(build_id)
        if held is None:
            return
        try:
            attempt = int(json.loads(message.data)["attempt"])
        except (ValueError, KeyError, TypeError):
            return
        image = await self._store.get(build_id)
        counts = image is not None and image.status is Status.BUILDING and image.attempt == attempt
        if not counts or attempt <= held.answered:
            log.warning("secrets.refused", build_id=build_id, attempt=attempt)
            return
        held.answered = attempt
        await message.respond(encode({name: base64.b64encode(held.secrets[name]).decode() for name in held.secrets}))


class SecretRequests:
    """The worker's side."""

    def __init__(self, events: EventBus) -> None:
        self._events = events

    async def of(self, image: Image) -> Mapping[str, bytes]:
        """The secrets of a build's attempt. Raises SecretsLost."""
        if image.context is None or not image.context.secret_ids:
            return {}
        asking = encode({"attempt": image.attempt})
        try:
            answer = await self._events.client.request(secrets_subject(image.id), asking, timeout=ANSWER_SECONDS)
            return {name: base64.b64decode(content) for name, content in json.loads(answer.data).items()}
        except (NatsError, Unavailable, OSError, TimeoutError) as error:
            raise SecretsLost(
                "The build's secrets are gone: the server that took them had them in its memory only, and has ended.",
                hint="Build again.",
            ) from error
