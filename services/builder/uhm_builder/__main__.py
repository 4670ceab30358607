"""Runs the builder's API: `python -m uhm_builder`."""

from __future__ import annotations

from uhm_builder.app import run
from uhm_builder.settings import BuilderSettings
from uhm_common.bootstrap import main

if __name__ == "__main__":
    main("builder", BuilderSettings, run)
