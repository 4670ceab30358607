"""What clients can do with storage locations and publications."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from uhm_builder.errors import InvalidStorage, NoSuchPublication, StillBuilding
from uhm_builder.export.options import DiskFormat
from uhm_builder.hints import hints_on, until_changed
from uhm_builder.images import Status
from uhm_builder.storage.index import read_index
from uhm_builder.storage.layouts import public
from uhm_builder.storage.locations import answer_soon, try_out
from uhm_builder.storage.publications import NewPublication
from uhm_common.events import publication_cancel_subject, publication_progress_subject
from uhm_common.idempotency import current_claim
from uhm_common.paging import Listing, page_size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from uhm_builder.images import Image
    from uhm_builder.service import Images
    from uhm_builder.storage.index import Entry
    from uhm_builder.storage.locations import Location, Locations
    from uhm_builder.storage.places import Place
    from uhm_builder.storage.publications import Publication, PublicationStore
    from uhm_common.database import Database
    from uhm_common.events import EventBus
    from uhm_common.outbox import Outbox
    from uhm_common.paging import PageTokens

__all__ = ["Page", "Storage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a list; the token is empty on the last one."""

    entries: list[Any]
    next_token: str


class Storage:
    """Locations and publications; each method acts for one owner, and what others have does not exist for it."""

    def __init__(
        self,
        *,
        database: Database,
        locations: Locations,
        publications: PublicationStore,
        images: Images,
        outbox: Outbox,
        events: EventBus,
        page_tokens: PageTokens,
    ) -> None:
        self._database = database
        self._locations = locations
        self._publications = publications
        self._images = images
        self._outbox = outbox
        self._events = events
        self._page_tokens = page_tokens

    async def add(self, name: str, place: Place, *, owner: str) -> Location:
        """Adds a location. Raises InvalidStorage, StorageExists, and what trying it out raises."""
        return await self._locations.add(name, place, owner=owner)

    async def get(self, name: str, *, owner: str) -> Location:
        """One location. Raises NoSuchStorage."""
        return await self._locations.get(name, owner=owner)

    async def delete(self, name: str, *, owner: str) -> None:
        """Forgets a location; publications to it fail. Raises NoSuchStorage."""
        await self._locations.delete(name, owner=owner)

    async def page(self, *, size: int, token: str, owner: str) -> Page:
        """A page of the owner's locations, the newest first. Raises InvalidPageToken."""
        size = page_size(size)
        listing = Listing(name="storage locations", owner=owner)
        before = self._page_tokens.read_number(token, of=listing)
        return self._page(await self._locations.page(owner=owner, before=before, limit=size + 1), size, listing)

    async def test(self, name: str, *, owner: str) -> None:
        """Tries a location out. Raises NoSuchStorage, and what failed."""
        async with self._locations.open(name, owner=owner) as opened, answer_soon():
            await try_out(opened)

    async def published(self, name: str, *, owner: str) -> tuple[Entry, ...]:
        """What the index of a location has. Raises NoSuchStorage, and what reading it raises."""
        async with self._locations.open(name, owner=owner) as opened, answer_soon():
            return await read_index(opened.store, opened.layout)

    async def publish(self, name: str, location: str, *, format: str, owner: str) -> Publication:  # noqa: A002
        """Notes the wish for a publication. Raises NoSuchImage, NoSuchStorage, InvalidStorage, StillBuilding."""
        claim = current_claim()
        if claim.resource:
            return await self.publication(claim.resource, owner=owner)
        image = await self._images.newest(name, owner=owner)
        if image.status is not Status.READY:
            raise StillBuilding(f"The image {name} is {image.status}, not ready.", hint="Publish it when it is.")
        new = await self._new(image, location, format or DiskFormat.QCOW2, owner=owner)
        async with self._database.write() as session:
            await self._publications.request(session, new, outbox=self._outbox)
            await claim.made(session, new.id)
        self._outbox.wake()
        return await self.publication(new.id, owner=owner)

    async def publication(self, publication_id: str, *, owner: str) -> Publication:
        """One publication. Raises NoSuchPublication."""
        publication = await self._publications.get(publication_id, owner=owner)
        if publication is None:
            raise NoSuchPublication(f"There is no publication {publication_id[:80]!r}.")
        return publication

    async def publications(self, *, size: int, token: str, owner: str) -> Page:
        """A page of the owner's publications, the newest first. Raises InvalidPageToken."""
        size = page_size(size)
        listing = Listing(name="publications", owner=owner)
        before = self._page_tokens.read_number(token, of=listing)
        return self._page(await self._publications.page(owner=owner, before=before, limit=size + 1), size, listing)

    async def cancel(self, publication_id: str, *, owner: str) -> Publication:
        """Cancels a publication, and tells whoever runs it. Does nothing where it has ended."""
        await self.publication(publication_id, owner=owner)
        if await self._publications.cancel(publication_id, owner=owner):
            await self._events.publish(publication_cancel_subject(publication_id), {})
        return await self.publication(publication_id, owner=owner)

    async def watch(self, publication_id: str, *, owner: str) -> AsyncGenerator[Publication, None]:
        """The publication now and at each change, until it has ended. Raises NoSuchPublication."""
        shown: Publication | None = None
        async with hints_on(publication_progress_subject(publication_id), events=self._events) as hints:
            while True:
                publication = await self.publication(publication_id, owner=owner)
                visible = replace(publication, lease_until=0, uploads={})
                if visible != shown:
                    shown = visible
                    yield visible
                if publication.status.ended:
                    return
                async for hint in until_changed(hints):
                    if "done" in hint:
                        shown = replace(shown, done_bytes=int(hint["done"]), total_bytes=int(hint["total"]))
                        yield shown

    async def _new(self, image: Image, location: str, disk_format: str, *, owner: str) -> NewPublication:
        if disk_format not in set(DiskFormat):
            raise InvalidStorage(
                f"{disk_format!r} is no format of a disk.", hint=f"Choose one of {', '.join(DiskFormat)}."
            )
        async with self._locations.open(location, owner=owner) as opened:
            opened.layout.check(public(image.reference), format=disk_format)
        return NewPublication(
            owner=owner,
            image_id=image.id,
            reference=image.reference,
            location=location,
            format=disk_format,
        )

    def _page(self, found: list[Any], size: int, listing: Listing) -> Page:
        entries, more = self._page_tokens.cut(found, size=size, of=listing, position=lambda entry: entry.number)
        return Page(entries=entries, next_token=more)
