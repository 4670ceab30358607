"""Images as messages, and messages as what was asked for."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from uhm_builder.images import Archive, BuildContext, Image, ImageWish
from uhm_builder.inside.messages import wished_customization
from uhm_builder.watch import LayerProgress, OutputLine
from uhmalguhm.builder.v1 import image_pb2

if TYPE_CHECKING:
    from uhm_builder.customization import Customization
    from uhm_builder.images import Healthcheck, ImageConfig
    from uhm_builder.retention import Swept
    from uhm_builder.usage import Usage

__all__ = ["image_message", "swept_message", "timestamp", "usage_message", "watch_message", "wish_of"]


def image_message(image: Image) -> image_pb2.Image:
    """An image."""
    return image_pb2.Image(
        id=image.id,
        reference=image.reference,
        status=image.status,
        reason=image.reason,
        owner=image.owner,
        create_time=timestamp(image.created_at),
        end_time=None if image.ended_at is None else timestamp(image.ended_at),
        digest=image.digest,
        disk_digest=image.disk_digest,
        size_bytes=image.size,
        layers=[
            image_pb2.Layer(diff_id=layer.diff_id, digest=layer.digest, size_bytes=layer.size, reused=layer.reused)
            for layer in image.layers
        ],
        stages=[
            image_pb2.Stage(name=stage.name, start_ms=stage.start_ms, duration_ms=stage.duration_ms, bytes=stage.bytes)
            for stage in image.stages
        ],
        config=_config_message(image.config),
        attempt=image.attempt,
    )


def timestamp(nanoseconds: int) -> Timestamp:
    """A moment, given since the epoch."""
    moment = Timestamp()
    moment.FromNanoseconds(nanoseconds)
    return moment


@singledispatch
def watch_message(event: object) -> image_pb2.WatchImageResponse:
    """One thing that a watched build told."""
    raise TypeError(event)


@watch_message.register
def _image(event: Image) -> image_pb2.WatchImageResponse:
    return image_pb2.WatchImageResponse(image=image_message(event))


@watch_message.register
def _progress(event: LayerProgress) -> image_pb2.WatchImageResponse:
    progress = image_pb2.Progress(stage=event.stage, layer=event.layer, done_bytes=event.done, total_bytes=event.total)
    return image_pb2.WatchImageResponse(progress=progress)


@watch_message.register
def _output(event: OutputLine) -> image_pb2.WatchImageResponse:
    return image_pb2.WatchImageResponse(output=event.text)


def wish_of(request: image_pb2.CreateImageRequest) -> ImageWish:
    """What is asked for."""
    source: BuildContext | Archive | Customization | None = None
    match request.WhichOneof("source"):
        case "context":
            source = _context_of(request.context)
        case "archive":
            source = Archive(id=request.archive.id, name=request.archive.name)
        case "customization":
            source = wished_customization(request.customization)
    return ImageWish(
        name=request.image,
        tag=request.tag,
        source=source,
        platform=request.platform,
        publish=tuple(request.publish),
        secrets=dict(request.context.secrets),
    )


def usage_message(usage: Usage) -> image_pb2.GetUsageResponse:
    """What images take up."""
    quota = image_pb2.Quota(images=usage.quota.images, bytes=usage.quota.bytes, builds=usage.quota.builds)
    return image_pb2.GetUsageResponse(
        images=usage.images,
        building=usage.building,
        layer_bytes=usage.layer_bytes,
        unshared_bytes=usage.unshared_bytes,
        reclaimable_bytes=usage.reclaimable_bytes,
        store_bytes=usage.store_bytes,
        free_bytes=usage.free_bytes,
        quota=quota,
    )


def swept_message(swept: Swept) -> image_pb2.CollectGarbageResponse:
    """What was deleted."""
    collected = swept.collected
    return image_pb2.CollectGarbageResponse(
        freed_bytes=collected.bytes, layers=collected.layers, disks=collected.disks, images=swept.images
    )


def _context_of(context: image_pb2.BuildContext) -> BuildContext:
    return BuildContext(
        id=context.id,
        dockerfile=context.dockerfile,
        build_args=dict(context.build_args),
        target=context.target,
        no_cache=context.no_cache,
    )


def _config_message(config: ImageConfig) -> image_pb2.ImageConfig:
    return image_pb2.ImageConfig(
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        env=config.env,
        working_dir=config.working_dir,
        user=config.user,
        exposed_ports=config.exposed_ports,
        stop_signal=config.stop_signal,
        labels=config.labels,
        volumes=config.volumes,
        architecture=config.architecture,
        healthcheck=None if config.healthcheck is None else _healthcheck_message(config.healthcheck),
        hostname=config.hostname,
    )


def _healthcheck_message(healthcheck: Healthcheck) -> image_pb2.Healthcheck:
    return image_pb2.Healthcheck(
        command=healthcheck.command,
        interval=_duration(healthcheck.interval_ns),
        timeout=_duration(healthcheck.timeout_ns),
        start_period=_duration(healthcheck.start_period_ns),
        retries=healthcheck.retries,
    )


def _duration(nanoseconds: int) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(nanoseconds)
    return duration
