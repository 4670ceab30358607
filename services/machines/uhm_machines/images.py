"""Images, as the builder service knows them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from uhm_common.callers.identity import Identity, bearer_metadata
from uhm_common.errors import InternalError, NotFound, PermissionDenied, UhmError, Unauthenticated, Unavailable
from uhm_common.healthcheck import Healthcheck
from uhm_machines.errors import ImageNotReady, InvalidRequest
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BuilderImages", "Healthcheck", "Image", "ImageConfig", "Images", "image_of_event"]

_ANSWER_SECONDS = 10.0
_TRY_AGAIN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_PASSED_ON: Mapping[grpc.StatusCode, type[UhmError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What of an image's configuration running it needs (OCI image specification, config)."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    hostname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is ready."""

    id: str
    reference: str
    disk_digest: str
    config: ImageConfig


class Images(Protocol):
    """Where images come from."""

    async def resolve(self, reference: str, *, identity: Identity) -> Image:
        """The caller's ready image of that id or reference. Raises NotFound, ImageNotReady and Unavailable."""


class BuilderImages:
    """Asks the builder service, on the caller's behalf."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._images = image_pb2_grpc.ImageServiceStub(channel)

    async def resolve(self, reference: str, *, identity: Identity) -> Image:
        """The caller's ready image of that id or reference. Raises NotFound, ImageNotReady and Unavailable."""
        try:
            answer = await self._images.GetImage(
                image_pb2.GetImageRequest(id=reference), metadata=bearer_metadata(identity), timeout=_ANSWER_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise _translate(error, reference) from error
        return _ready(answer.image)


def _ready(image: image_pb2.Image) -> Image:
    if image.status == "building":
        raise ImageNotReady(
            f"The image {image.reference} is still being built.",
            hint="`uhm images` shows how far it is.",
            image=image.id,
        )
    if image.status != "ready":
        raise ImageNotReady(
            f"The image {image.reference} cannot be run: it is {image.status}. {image.reason}".rstrip(),
            hint="Make it again with `uhm pull` or `uhm build`.",
            image=image.id,
        )
    config = image.config
    return Image(
        id=image.id,
        reference=image.reference,
        disk_digest=image.disk_digest,
        config=ImageConfig(
            entrypoint=tuple(config.entrypoint),
            cmd=tuple(config.cmd),
            env=tuple(config.env),
            working_dir=config.working_dir,
            user=config.user,
            exposed_ports=tuple(config.exposed_ports),
            stop_signal=config.stop_signal,
            healthcheck=_healthcheck(config.healthcheck) if config.HasField("healthcheck") else None,
            hostname=config.hostname,
        ),
    )


def image_of_event(event: Mapping[str, Any]) -> Image | None:
    """The image that an `uhm.images.ready` event tells of; None where it has no configuration, as of old."""
    config = event.get("config")
    if not isinstance(config, dict):
        return None
    known = {field.name for field in fields(ImageConfig)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.items() if name in known
    }
    return Image(
        id=event["id"],
        reference=event["reference"],
        disk_digest=event["disk_digest"],
        config=ImageConfig(**values | {"healthcheck": Healthcheck.of(config.get("healthcheck"))}),
    )


def _healthcheck(message: image_pb2.Healthcheck) -> Healthcheck:
    return Healthcheck(
        command=tuple(message.command),
        interval_ns=message.interval.ToNanoseconds(),
        timeout_ns=message.timeout.ToNanoseconds(),
        start_period_ns=message.start_period.ToNanoseconds(),
        retries=message.retries,
    )


def _translate(error: grpc.aio.AioRpcError, reference: str) -> UhmError:
    code = error.code()
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(
            f"There is no image {reference!r}.", hint=f"Make it with `uhm pull {reference}`.", image=reference
        )
    if code in _TRY_AGAIN:
        return Unavailable("The builder service does not answer, so the image cannot be looked up.", hint="Try again.")
    if passed_on := _PASSED_ON.get(code):
        return passed_on(error.details() or code.name)
    return InternalError(f"The builder service answered {code.name}: {error.details()}")
