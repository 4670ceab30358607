"""The index of a location: what is published there, in one object, for people, other programs and a quick listing.

The documents are the truth, the index is made from them. Whoever has published lists all documents, writes the index,
and lists once more: where a document came, changed or went meanwhile, it begins again. So no publisher loses another's
image, whatever installations publish there and with no lock among them: let W be the last one to write the index. A
document that W's index lacks came after W's first listing; had it come before W's second one, W would have written
again. So its publisher lists after W wrote, and writes an index that has it, and then W was not the last.

A document whose version the last index has is not read again. Where a location cannot list (a server that takes PUT and
no PROPFIND), the index is read, changed and written, and then two who publish at the same moment can miss each other.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from uhm_builder.errors import ContentMismatch, NotAtStorage, StorageRefused, StorageUnreachable
from uhm_builder.storage.document import Document, parse_document
from uhm_builder.storage.layouts import INDEX_MAX
from uhm_builder.storage.objects import Resume
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from uhm_builder.storage.layouts import Layout
    from uhm_builder.storage.objects import ObjectStore, Stored
    from uhm_common.errors import UhmError

__all__ = ["Entry", "read_index", "renew_index"]

log = get_logger()

ROUNDS = 20
SPREAD_SECONDS = 0.5
READS_AT_ONCE = 8
UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An image of the index: its document, and where that lies in which version."""

    name: str
    version: str
    image: Document


_ENTRIES = TypeAdapter(tuple[Entry, ...])


async def read_index(store: ObjectStore, layout: Layout) -> tuple[Entry, ...]:
    """What the index has; nothing where there is none yet. Raises StorageRefused for one that cannot be read."""
    try:
        body = await layout.read_index(store)
    except NotAtStorage:
        return ()
    try:
        return _ENTRIES.validate_python(json.loads(body)["images"])
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageRefused(
            "The index at the storage location cannot be read.",
            hint="It is made anew when an image is published, unless the location cannot list: there, delete it first.",
        ) from error


async def renew_index(store: ObjectStore, layout: Layout, *, name: str, document: bytes) -> None:
    """Has the index list all documents, among them the one that was just written as `name`.

    Raises what kept the index from being read where nothing but the index knows what there is.
    """
    unread: UhmError | None = None
    try:
        known = {entry.name: entry for entry in await read_index(store, layout)}
    except (StorageRefused, StorageUnreachable) as error:
        log.warning("storage.index_unreadable", error=str(error))
        known, unread = {}, error
    listed = await _listing(store, layout)
    for attempt in range(1, ROUNDS + 1):
        if name not in listed:  # it cannot list
            if unread is not None:
                raise unread
            known[name] = Entry(name=name, version=UNLISTED, image=parse_document(document, name=name))
            listed = {entry: known[entry].version for entry in known}
        known = await _read(store, layout, listed, known)
        contended = await _write(store, layout, known)
        now = await _listing(store, layout)
        if contended is None and (now == listed or name not in now):
            return
        if contended is not None and attempt == ROUNDS:
            raise contended
        await asyncio.sleep(random.uniform(0, SPREAD_SECONDS) if contended else 0)  # noqa: S311 - to part them
        listed = now
    raise StorageUnreachable("Too many images are being published at the storage location to make its index.")


async def _listing(store: ObjectStore, layout: Layout) -> dict[str, str]:
    """Versions of all documents by name."""
    stored: list[Stored] = await store.listing(layout.listing)
    return {each.name: each.version for each in stored if layout.is_document(each.name)}


async def _read(
    store: ObjectStore, layout: Layout, listed: dict[str, str], known: dict[str, Entry]
) -> dict[str, Entry]:
    """Entries of all documents that are listed; one that nobody can read is left out."""
    slots = asyncio.Semaphore(READS_AT_ONCE)

    async def entry(name: str, version: str) -> Entry | None:
        if version and name in known and known[name].version == version:
            return known[name]
        async with slots:
            try:
                return Entry(
                    name=name, version=version, image=parse_document(await layout.listed(store, name), name=name)
                )
            except (NotAtStorage, StorageRefused) as error:
                log.warning("storage.document_unreadable", name=name, error=str(error))
                return None

    entries = await asyncio.gather(*(entry(name, version) for name, version in sorted(listed.items())))
    return {entry.name: entry for entry in entries if entry is not None}


async def _write(store: ObjectStore, layout: Layout, entries: dict[str, Entry]) -> UhmError | None:
    """Writes the index; answers what went wrong where that may be another one who writes it at the same time."""
    images = [json.loads(_ENTRIES.dump_json((entries[name],)))[0] for name in sorted(entries)]
    body = json.dumps({"schema": 1, "images": images}, indent=1, sort_keys=True).encode() + b"\n"
    if len(body) > INDEX_MAX:
        raise StorageRefused(
            f"The index of the storage location would have {len(body)} bytes, which is more than {INDEX_MAX}.",
            hint="Publish to another location.",
        )
    try:
        for upload in layout.index(body):
            await store.put(upload.name, upload.content, resume=Resume())
    except (ContentMismatch, StorageUnreachable) as error:
        return error
    return None
