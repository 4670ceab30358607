"""The gRPC face of the audit log: messages to the domain and back, nothing else."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from uhm_auth.audit import check_event
from uhm_auth.credentials import check_username
from uhm_auth.stores.audit import AuditFilter
from uhm_common.paging import Listing, page_size
from uhmalguhm.auth.v1 import audit_pb2, audit_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from uhm_auth.stores.audit import AuditStore, RecordedEvent
    from uhm_common.paging import PageTokens

__all__ = ["SERVICE_NAME", "AuditServicer"]

SERVICE_NAME: str = audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name
END_OF_TIME = 253_402_300_800_000


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Implements uhmalguhm.auth.v1.AuditService."""

    def __init__(self, store: AuditStore, *, pages: PageTokens) -> None:
        self._store = store
        self._pages = pages

    async def ListEvents(
        self, request: audit_pb2.ListEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> audit_pb2.ListEventsResponse:
        """What happened."""
        if request.username:
            check_username(request.username)
        if request.event:
            check_event(request.event)
        wanted = AuditFilter(
            username=request.username,
            event=request.event,
            start=_milliseconds(request.start_time) if request.HasField("start_time") else None,
            end=_milliseconds(request.end_time) if request.HasField("end_time") else None,
        )
        size = page_size(request.page_size)
        listing = Listing(name="audit", filter=(wanted.username, wanted.event, str(wanted.start), str(wanted.end)))
        before = self._pages.read_number(request.page_token, of=listing)
        found = await self._store.page(wanted, before=before, limit=size + 1)
        events, more = self._pages.cut(found, size=size, of=listing, position=lambda event: event.number)
        return audit_pb2.ListEventsResponse(events=[_message(event) for event in events], next_page_token=more)


def _milliseconds(time: Timestamp) -> int:
    """Since the epoch, of a time between it and the year 10000."""
    return min(max(time.seconds * 1000 + time.nanos // 1_000_000, 0), END_OF_TIME)


def _message(event: RecordedEvent) -> audit_pb2.Event:
    time = Timestamp()
    time.FromMilliseconds(event.time)
    return audit_pb2.Event(
        id=str(event.number),
        time=time,
        event=event.event,
        actor=event.actor,
        username=event.username,
        address=event.address,
        request_id=event.request_id,
        details=event.details,
    )
