"""Publishing images through the server, and watching until they are at their storage location."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from uhm.client import segment
from uhm.errors import CommandError, ServerUnreachable
from uhm.render.progress import build_progress
from uhm.render.units import size

if TYPE_CHECKING:
    from uhm.client import Client
    from uhm.output import Output
    from uhm.render.progress import BuildProgress

__all__ = ["PublicationFailed", "publications_of", "watch_publication"]

PUBLISHING = "publishing"
RECONNECTS = 10
RECONNECT_SECONDS = 1.0


class PublicationFailed(CommandError):
    """An image was not published; it knows the publication."""

    def __init__(self, publication: dict[str, Any]) -> None:
        reason = publication.get("reason") or "it was cancelled."
        super().__init__(f"{publication.get('reference')} was not published to {publication.get('storage')}: {reason}")
        self.publication = publication

    def document(self) -> dict[str, object]:
        """The error as `--json` prints it, with the publication."""
        return super().document() | {"publication": self.publication}


def watch_publication(client: Client, output: Output, publication: dict[str, Any]) -> dict[str, Any]:
    """Follows a publication to its end and says how it ended. Raises PublicationFailed. Ctrl-C leaves it running."""
    try:
        with build_progress(output) as progress:
            ended = _watched(client, publication["id"], output, progress)
    except KeyboardInterrupt:
        output.note(f"\nThe publication goes on. `uhm storage cancel {publication['id']}` cancels it.")
        raise
    if ended["status"] != "published":
        raise PublicationFailed(ended)
    output.say(f"{ended['reference']} is at {ended['storage']}, {size(ended.get('total_bytes'))}")
    return ended


def publications_of(client: Client, image: dict[str, Any]) -> list[dict[str, Any]]:
    """The publications that were asked for together with an image."""
    found = client.pages("/api/v1/publications", field="publications")
    return [publication for publication in found if publication.get("image") == image["id"]]


def _watched(client: Client, publication_id: str, output: Output, progress: BuildProgress) -> dict[str, Any]:
    told = ""
    for attempt in range(RECONNECTS + 1):
        try:
            with client.stream(f"/api/v1/publications/{segment(publication_id)}:watch") as messages:
                for message in messages:
                    publication: dict[str, Any] = message["publication"]
                    if publication["status"] != PUBLISHING:
                        return publication
                    progress.layer(publication | {"layer": publication["storage"]})
                    if (reason := publication.get("reason", "")) and reason != told:
                        told = reason
                        output.note(f"{reason} It is tried again.")
        except ServerUnreachable:
            if attempt == RECONNECTS:
                raise
        time.sleep(RECONNECT_SECONDS)
    raise ServerUnreachable(
        "The server ends the watch before the publication has ended.", hint="`uhm storage publications` shows it."
    )
