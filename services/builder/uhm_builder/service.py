"""What clients can do with images: ask for them, find, list and cancel them."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from uhm_builder.customization import Customization
from uhm_builder.errors import AmbiguousId, InvalidContext, InvalidReference, NoSuchImage
from uhm_builder.images import Archive, BuildContext, Image, Status
from uhm_builder.inside.checks import check
from uhm_builder.secrets import checked_secrets
from uhm_builder.sources.platforms import parse_platform
from uhm_builder.sources.reference import parse_reference
from uhm_builder.store import NewImage
from uhm_common.events import BUILDS_REQUESTED, cancel_subject
from uhm_common.idempotency import current_claim
from uhm_common.paging import Listing, page_size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from uhm_builder.contexts import Contexts
    from uhm_builder.images import ImageWish
    from uhm_builder.quotas import Quotas
    from uhm_builder.secrets import HeldSecrets
    from uhm_builder.storage.locations import Locations
    from uhm_builder.store import ImageStore
    from uhm_common.database import Database
    from uhm_common.events import EventBus
    from uhm_common.outbox import Outbox
    from uhm_common.paging import PageTokens

__all__ = ["Images", "Page"]

ID = re.compile(r"[0-9a-f]{32}")
ID_PREFIX = re.compile(r"[0-9a-f]{4,31}")
ANY = frozenset(Status)
TEXT_MAX = 100_000
"""Characters of one argument of a program; Linux takes 128 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a list; the token is empty on the last one."""

    images: list[Image]
    next_token: str


class Images:
    """The images of all owners; each method acts for one of them, and what others have does not exist for it."""

    def __init__(
        self,
        *,
        database: Database,
        store: ImageStore,
        outbox: Outbox,
        events: EventBus,
        contexts: Contexts,
        quotas: Quotas,
        secrets: HeldSecrets,
        locations: Locations,
        page_tokens: PageTokens,
    ) -> None:
        self._database = database
        self._store = store
        self._outbox = outbox
        self._events = events
        self._contexts = contexts
        self._quotas = quotas
        self._secrets = secrets
        self._locations = locations
        self._page_tokens = page_tokens

    async def create(self, wish: ImageWish, *, owner: str) -> str:
        """Notes the wish for an image; answers its id.

        Raises InvalidReference, InvalidContext, NoSuchContext, NoSuchStorage.
        """
        claim = current_claim()
        if claim.resource:
            return claim.resource
        source = wish.source
        takes_its_name = isinstance(source, Archive) and not wish.name and not wish.tag
        reference = None if takes_its_name else parse_reference(wish.name, tag=wish.tag)
        elsewhere = reference is not None and (reference.in_engine or reference.location or reference.digest)
        if source is not None and elsewhere:
            raise InvalidReference(
                f"An image that is made here cannot be named {wish.name!r}.", hint="Give it NAME[:TAG]."
            )
        if isinstance(source, BuildContext):
            source = _checked(source, secrets=wish.secrets)
            await self._contexts.path(source.id, owner=owner)
        if isinstance(source, Archive):
            await self._contexts.path(source.id, owner=owner)
        if isinstance(source, Customization):
            source = await self._checked_customization(source, owner=owner)
        for location in wish.publish:
            await self._locations.get(location, owner=owner)
        image_id = uuid.uuid4().hex
        new = NewImage(
            id=image_id,
            owner=owner,
            reference=str(reference or ""),
            source=source,
            platform=str(parse_platform(wish.platform)) if wish.platform else "",
            publish=wish.publish,
            created_at=time.time_ns(),
        )
        self._secrets.hold(image_id, wish.secrets)  # first: once it is committed a worker may ask
        try:
            async with self._database.write() as session:
                await self._quotas.admit(session, owner=owner)
                await self._store.add(session, new)
                await claim.made(session, image_id)
                await self._outbox.add(session, BUILDS_REQUESTED, {"id": image_id}, message_id=image_id)
        except BaseException:
            self._secrets.forget(image_id)
            raise
        self._outbox.wake()
        return image_id

    async def _checked_customization(self, wish: Customization, *, owner: str) -> Customization:
        """With the id of the image below. Raises InvalidCustomization, NoSuchImage, NoSuchContext."""
        check(wish)
        below = await self.get(wish.image, owner=owner)
        for each in wish.copy_in:
            await self._contexts.path(each.context, owner=owner)
        return replace(wish, image=below.id)

    async def get(self, name: str, *, owner: str) -> Image:
        """An image by id, the beginning of an id, or reference (the ready one). Raises NoSuchImage, AmbiguousId."""
        return await self._find(name, owner=owner, among={Status.READY})

    async def newest(self, name: str, *, owner: str) -> Image:
        """Like `get`, but a reference stands for its newest image, whatever has become of it."""
        return await self._find(name, owner=owner, among=ANY)

    async def get_deletable(self, name: str, *, owner: str) -> Image:
        """Like `get`, but where none of a reference is ready, its newest image."""
        try:
            return await self.get(name, owner=owner)
        except NoSuchImage:
            return await self.newest(name, owner=owner)

    async def page(self, *, size: int, token: str, reference: str, owner: str) -> Page:
        """A page of the owner's images, the newest first. Raises InvalidPageToken, InvalidReference."""
        size = page_size(size)
        listing = Listing(name="images", owner=owner, filter=(reference,))
        before = self._page_tokens.read_number(token, of=listing)
        found = await self._store.page(owner=owner, before=before, limit=size + 1, references=_filter(reference))
        images, more = self._page_tokens.cut(found, size=size, of=listing, position=lambda image: image.number)
        return Page(images=images, next_token=more)

    async def cancel(self, name: str, *, owner: str) -> Image:
        """Cancels a build, and tells whoever runs it. Does nothing where it has ended."""
        image = await self.newest(name, owner=owner)
        if await self._store.cancel(image.id, owner=owner, now=time.time_ns()):
            self._secrets.forget(image.id)
            await self._events.publish(cancel_subject(image.id), {})
        return await self._store.get(image.id, owner=owner) or image

    async def _find(self, name: str, *, owner: str, among: Collection[Status]) -> Image:
        if ID.fullmatch(name):
            image = await self._store.get(name, owner=owner)
            if image is None:
                raise NoSuchImage(f"There is no image {name}.", hint="`uhm images` lists yours.")
            return image
        named: list[Image] = []
        try:
            named = await self._store.by_reference(str(parse_reference(name)), owner=owner)
        except InvalidReference:
            if not ID_PREFIX.fullmatch(name):
                raise
        for image in named:
            if image.status in among:
                return image
        return await self._by_prefix(name, named, owner=owner)

    async def _by_prefix(self, name: str, named: list[Image], *, owner: str) -> Image:
        beginning = await self._store.by_prefix(name, owner=owner) if ID_PREFIX.fullmatch(name) else []
        if len(beginning) > 1:
            raise AmbiguousId(f"More than one image's id begins with {name}.", hint="Give more of it.")
        if beginning:
            return beginning[0]
        if named:
            raise NoSuchImage(f"No image {name} is ready; the newest one, {named[0].id}, is {named[0].status}.")
        raise NoSuchImage(f"There is no image {name!r}.", hint="`uhm pull` makes one; `uhm images` lists yours.")


def _filter(reference: str) -> list[str]:
    """What a list is filtered by: the reference itself, or without tag and digest the beginnings that have any."""
    if not reference:
        return []
    parsed = parse_reference(reference, default_tag="")
    return [str(parsed)] if parsed.target else [f"{parsed}:", f"{parsed}@"]


def _checked(context: BuildContext, *, secrets: Mapping[str, bytes]) -> BuildContext:
    """What is stored of the wish. Raises InvalidContext for what no build can have, or a Dockerfile outside."""
    checked_secrets(secrets)
    texts = [context.dockerfile, context.target, *context.build_args, *context.build_args.values()]
    if any("\0" in text or len(text) > TEXT_MAX for text in texts):
        raise InvalidContext(f"A build argument has a NUL character or more than {TEXT_MAX} characters.")
    if any(not name or "=" in name for name in context.build_args):
        raise InvalidContext("A build argument has no name, or '=' in its name.")
    dockerfile = PurePosixPath(context.dockerfile or "Dockerfile")
    if dockerfile.is_absolute() or ".." in dockerfile.parts:
        raise InvalidContext(
            f"The Dockerfile {context.dockerfile!r} is not inside the context.", hint="Give its path in the archive."
        )
    return replace(context, dockerfile=str(dockerfile), secret_ids=tuple(sorted(secrets)))
