"""Runs a worker: `python -m uhm_builder.worker`."""

from __future__ import annotations

from uhm_builder.settings import BuilderSettings
from uhm_builder.worker.app import run
from uhm_common.bootstrap import main

if __name__ == "__main__":
    main("builder-worker", BuilderSettings, run)
