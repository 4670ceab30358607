"""What the builder announces: an image that is ready gets a snapshot of its service, one that was deleted loses all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm_common.errors import UhmError
from uhm_common.events import IMAGES_DELETED, IMAGES_READY
from uhm_common.logs import get_logger
from uhm_machines.disks import read_image_disk
from uhm_machines.images import image_of_event
from uhm_machines.requests import DEFAULT_MEMORY_MIB
from uhm_machines.shape import shape_of
from uhm_machines.starts.wish import service_of

if TYPE_CHECKING:
    from uhm_common.artifacts import ArtifactStore
    from uhm_machines.probe import HostProbe
    from uhm_machines.snapshots.maker import SnapshotMaker

__all__ = ["SUBJECTS", "Announcements"]

log = get_logger()

SUBJECTS = (IMAGES_READY, IMAGES_DELETED)


class Announcements:
    """Handles events; an event that is of no use is passed over, and one may come twice."""

    def __init__(self, *, maker: SnapshotMaker, probe: HostProbe, artifacts: ArtifactStore) -> None:
        self._maker = maker
        self._probe = probe
        self._artifacts = artifacts

    async def handle(self, subject: str, payload: dict[str, Any]) -> None:
        """Acts on one event."""
        try:
            if subject == IMAGES_DELETED:
                self._maker.forget_image(str(payload["id"]))
            else:
                await self._prepare(payload)
        except (UhmError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.info("announcement.passed_over", subject=subject, reason=repr(error))

    async def _prepare(self, payload: dict[str, Any]) -> None:
        """Has the snapshots of an image's service made, in the shape that machines have by default."""
        image = image_of_event(payload)
        if image is None:
            return
        disk = read_image_disk(self._artifacts, image.disk_digest)
        shape = await shape_of(disk, self._probe, memory_mib=DEFAULT_MEMORY_MIB, vcpus=1)
        self._maker.want_template(shape, disk)
        service = service_of(image)
        if service is not None and service.can_tell:
            self._maker.want_ready(shape, disk, service)
