"""Page tokens: where the next page begins and which list it belongs to, opaque to clients (AIP-158)."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from uhm_builder.errors import InvalidPageToken
from uhm_common.errors import InvalidArgument

__all__ = ["PageToken", "page_size"]

DEFAULT_SIZE = 50
MAX_SIZE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PageToken:
    """The next page has what is numbered below `before`, of the list that was asked for with `reference`."""

    before: int
    reference: str

    def encode(self) -> str:
        """As text for a URL."""
        return base64.urlsafe_b64encode(json.dumps([self.before, self.reference]).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, *, reference: str) -> PageToken:
        """Read a token that `encode` has made for the same list. Raises InvalidPageToken."""
        try:
            before, made_for = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, TypeError, binascii.Error) as error:
            raise InvalidPageToken(
                f"{text[:80]!r} is not a page token.", hint="Take it from next_page_token."
            ) from error
        if type(before) is not int or made_for != reference:
            raise InvalidPageToken(
                f"The page token {text[:80]!r} belongs to another list.", hint="Ask with the same filter as before."
            )
        return cls(before=before, reference=reference)


def page_size(wanted: int) -> int:
    """The size of a page, from what was asked for. Raises InvalidArgument."""
    if wanted < 0:
        raise InvalidArgument(f"page_size is {wanted}.", hint=f"It is between 1 and {MAX_SIZE}; 0 is {DEFAULT_SIZE}.")
    return min(wanted or DEFAULT_SIZE, MAX_SIZE)
