"""Runs the auth service: `python -m uhm_auth`."""

from __future__ import annotations

from uhm_auth.app import run
from uhm_auth.settings import AuthSettings
from uhm_common.bootstrap import main

if __name__ == "__main__":
    main("auth", AuthSettings, run)
