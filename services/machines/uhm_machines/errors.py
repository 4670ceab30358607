"""What can go wrong here; the tree that these hang in is in uhm_common.errors.

NotFound            MachineNotFound
AlreadyExists       NameTaken
InvalidArgument     AmbiguousId, InvalidRequest
FailedPrecondition  ImageNotReady, PortInUse, WrongState, HostUnsuitable
ResourceExhausted   CapacityExhausted
Unavailable         StartFailed, GuestFailed, QmpFailed ─ QmpRefused
"""

from __future__ import annotations

from uhm_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

__all__ = [
    "AmbiguousId",
    "CapacityExhausted",
    "GuestFailed",
    "HostUnsuitable",
    "ImageNotReady",
    "InvalidRequest",
    "MachineNotFound",
    "NameTaken",
    "PortInUse",
    "QmpFailed",
    "QmpRefused",
    "StartFailed",
    "WrongState",
]


class MachineNotFound(NotFound):
    """The caller has no such machine."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"There is no machine {reference!r}.", hint="`uhm ps -a` lists yours.", machine=reference)


class NameTaken(AlreadyExists):
    """The caller has a machine of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is a machine named {name!r} already.",
            hint=f"Choose another name, or delete it with `uhm rm {name}`.",
            name=name,
        )


class AmbiguousId(InvalidArgument):
    """Several of the caller's machines have ids that begin so."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"Several machines have ids that begin with {prefix!r}.", hint="Give more characters.")


class InvalidRequest(InvalidArgument):
    """A value of the request cannot be used."""


class ImageNotReady(FailedPrecondition):
    """The image is being built, or its build has failed."""


class PortInUse(FailedPrecondition):
    """A port to publish on is taken."""

    def __init__(self, address: str, port: int, protocol: str, *, holder: str = "another program") -> None:
        super().__init__(
            f"Port {address}:{port}/{protocol} is in use by {holder}.",
            hint="Publish on another port, or on 0 for any free one.",
            address=address,
            port=port,
            protocol=protocol,
        )


class WrongState(FailedPrecondition):
    """What was asked for does not fit what the machine does now."""


class HostUnsuitable(FailedPrecondition):
    """This host lacks something that machines need."""


class CapacityExhausted(ResourceExhausted):
    """As many machines, or as much memory, as the settings allow are in use."""


class StartFailed(Unavailable):
    """QEMU did not come up."""


class GuestFailed(Unavailable):
    """A guest did not do what it was to do while it was being started."""


class QmpFailed(Unavailable):
    """QEMU did not answer, or refused a command."""


class QmpRefused(QmpFailed):
    """QEMU is there, and refused a command."""
