"""`uhm doctor`: what this machine has and lacks."""

from __future__ import annotations

import click

__all__ = ["doctor"]


@click.command()
def doctor() -> None:
    """Check what this machine has and lacks."""
