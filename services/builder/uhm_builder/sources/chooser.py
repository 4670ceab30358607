"""From what was asked for to the source that can get it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uhm_builder.errors import UnsupportedImage
from uhm_builder.sources.pull import RegistrySource
from uhm_builder.sources.reference import parse_reference

if TYPE_CHECKING:
    from uhm_builder.images import Image
    from uhm_builder.settings import BuilderSettings
    from uhm_builder.sources.registry import RegistryClient
    from uhm_builder.sources.source import Reporter, Source

__all__ = ["Sources"]


class Sources:
    """Opens sources; holds what they share."""

    def __init__(self, settings: BuilderSettings, *, registry: RegistryClient) -> None:
        self._settings = settings
        self._registry = registry

    def open(self, image: Image, reporter: Reporter) -> Source:
        """The source of an image. Raises InvalidReference."""
        reference = parse_reference(image.reference)
        if image.context is not None or reference.in_engine:
            raise UnsupportedImage("Not yet.")
        return RegistrySource(
            reference, client=self._registry, architecture=self._settings.architecture, reporter=reporter
        )
