"""Platforms that images are made for: `os/architecture[/variant]`, in the words of Go's GOOS and GOARCH."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uhm_builder.errors import InvalidPlatform, UnsupportedImage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Platform", "TargetPlatform", "parse_platform"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlatform:
    """What an image must be made for, and what machines here run: two things, as anything can be asked for."""

    platform: Platform
    architecture: str

    @classmethod
    def of(cls, text: str, *, architecture: str) -> TargetPlatform:
        """What was asked for; nothing asks for what machines here run. Raises InvalidPlatform."""
        platform = parse_platform(text) if text else Platform(architecture=architecture)
        return cls(platform=platform, architecture=architecture)

    @property
    def runnable(self) -> bool:
        """Whether machines here run it."""
        return (self.platform.os, self.platform.architecture) == ("linux", self.architecture)

    @property
    def of_any_variant(self) -> TargetPlatform:
        """The same for an image that is built here: docker names its variant after what it is built from."""
        return replace(self, platform=replace(self.platform, variant=""))

    def check(self, made_for: Platform) -> None:
        """Raises UnsupportedImage where an image for that platform is not what is wanted, or cannot run here."""
        if not self.runnable or not self.platform.fits(made_for):
            raise self.refusal({str(made_for)})

    def refusal(self, offered: Iterable[str]) -> UnsupportedImage:
        """Says which platforms there are instead."""
        there_are = ", ".join(sorted(offered)) or "nothing"
        if self.runnable:
            return UnsupportedImage(
                f"The image is not made for {self.platform}, only for {there_are}.",
                hint="Choose a tag for this platform.",
            )
        return UnsupportedImage(
            f"Machines here run linux/{self.architecture}, not {self.platform}. The image is made for {there_are}.",
            hint="Leave the platform out, or ask a system on a machine of that kind.",
        )
