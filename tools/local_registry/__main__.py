"""Makes the images where they are missing, then serves them until interrupted. The first line printed is the URL."""

from __future__ import annotations

import argparse
import signal
import sys

from tools.local_registry import ensure_images, registry
from uhm_common.errors import UhmError


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.local_registry", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on loopback; a free one where it is not given")
    parser.add_argument("--engine", metavar="HOST", help="the Docker Engine to build with, as in DOCKER_HOST")
    parser.add_argument("--make-only", action="store_true", help="make the images and end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        ensure_images(arguments.engine)
        if not arguments.make_only:
            with registry(port=arguments.port) as url:
                print(url, flush=True)
                signal.pause()
    except UhmError as error:
        print(f"local registry: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
