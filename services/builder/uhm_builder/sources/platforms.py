"""Platforms that images are made for: `os/architecture[/variant]`, in the words of Go's GOOS and GOARCH."""

from __future__ import annotations

import re
from dataclasses import dataclass

from uhm_builder.errors import InvalidPlatform

__all__ = ["Platform", "parse_platform"]

ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
USUAL_VARIANTS = {"amd64": "v1", "arm64": "v8"}
"""What an architecture without a variant means, so that both are the same platform."""

_WORD = re.compile(r"[a-z0-9_.-]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A platform. Without a variant, any of them will do."""

    architecture: str
    os: str = "linux"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(word for word in (self.os, self.architecture, self.variant) if word)

    def fits(self, other: Platform) -> bool:
        """Whether an image for the other platform is what is wanted of this one."""
        usual = USUAL_VARIANTS.get(self.architecture, "")
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (not self.variant or self.variant == (other.variant or usual))


def parse_platform(text: str) -> Platform:
    """Reads a platform as docker's `--platform` has it. Raises InvalidPlatform."""
    words = text.lower().split("/")
    if not 2 <= len(words) <= 3 or not all(_WORD.fullmatch(word) for word in words):
        raise InvalidPlatform(
            f"{text[:80]!r} is not a platform.", hint="A platform is OS/ARCHITECTURE[/VARIANT], such as linux/amd64."
        )
    system, architecture, *variant = words
    return Platform(os=system, architecture=ALIASES.get(architecture, architecture), variant="".join(variant))
