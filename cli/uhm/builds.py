"""Making images through the server, and watching until they are made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from uhm.client import segment
from uhm.errors import ApiError, CommandError, ServerUnreachable
from uhm.render.progress import build_progress
from uhm.render.units import short_id

if TYPE_CHECKING:
    from uhm.client import Client
    from uhm.output import Output
    from uhm.render.progress import BuildProgress

__all__ = ["BuildFailed", "find_image", "make_image", "watch_image"]

ENDED = frozenset({"ready", "failed", "cancelled"})
NOT_FOUND = 5
RECONNECTS = 10
RECONNECT_SECONDS = 1.0


class BuildFailed(CommandError):
    """An image was not made; it knows the image."""

    def __init__(self, image: dict[str, Any]) -> None:
        reason = image.get("reason") or "it was cancelled."
        super().__init__(f"{image.get('reference') or 'The image'} was not made: {reason}")
        self.image = image

    def document(self) -> dict[str, object]:
        """The error as `--json` prints it, with the image."""
        return super().document() | {"image": self.image}


def make_image(
    client: Client, output: Output, *, request: dict[str, Any], progress: BuildProgress | None = None
) -> dict[str, Any]:
    """Asks for an image and shows how it is made. Raises BuildFailed. Ctrl-C leaves the build running, and says so."""
    image_id = client.create("/api/v1/images", request)["id"]
    try:
        with progress or build_progress(output) as shown:
            image = watch_image(client, image_id, progress=shown)
    except KeyboardInterrupt:
        output.note(
            f"\nThe build of {short_id(image_id)} goes on. `uhm cancel {short_id(image_id)}` cancels it, `uhm images` "
            "shows when it is ready."
        )
        raise
    if image["status"] != "ready":
        raise BuildFailed(image)
    return image


def watch_image(client: Client, image_id: str, *, progress: BuildProgress) -> dict[str, Any]:
    """Follows a build to its end and answers the image. A connection that breaks is made again."""
    for attempt in range(RECONNECTS + 1):
        try:
            with client.stream(f"/api/v1/images/{segment(image_id)}:watch") as messages:
                for message in messages:
                    if image := _told(message, progress):
                        return image
        except ServerUnreachable:
            if attempt == RECONNECTS:
                raise
        time.sleep(RECONNECT_SECONDS)
    raise ServerUnreachable("The server ends the watch before the build has ended.", hint="`uhm images` shows it.")


def _told(message: dict[str, Any], progress: BuildProgress) -> dict[str, Any] | None:
    """Passes one event on; answers the image once the build has ended."""
    if "progress" in message:
        progress.layer(message["progress"])
    elif "output" in message:
        progress.output(message["output"])
    elif "image" in message:
        image: dict[str, Any] = message["image"]
        progress.image(image)
        if image.get("status") in ENDED:
            return image
    return None


def find_image(client: Client, reference: str) -> dict[str, Any] | None:
    """The newest ready image of a reference, or the image with that id; None where there is none."""
    try:
        image = client.get(f"/api/v1/images/{segment(reference)}")
    except ApiError as error:
        if error.code == NOT_FOUND:
            return None
        raise
    return image if image.get("status") == "ready" else None
