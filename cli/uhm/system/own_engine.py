"""`python -m uhm.system.own_engine`, in the state directory: becomes the Docker Engine of this system.

Every start first clears what a killed engine has left; one that finds the id of its dead containerd would wait for it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from uhm.system.engine import private_dockerd
from uhm.system.layout import Layout
from uhm_common.errors import UhmError

__all__ = ["main"]


def main() -> None:
    """Never returns."""
    engine = private_dockerd(Layout.of(Path.cwd()), environment=os.environ)
    try:
        engine.prepare()
    except UhmError as error:
        sys.exit(str(error))
    argv = engine.argv()
    os.execvp(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main()
