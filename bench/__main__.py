"""`python -m bench`: all benchmarks in a row; ends with 1 where one of them did. `python -m bench.soak` is apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("build", "rebuild", "export", "start", "gateway")


def main() -> int:
    """Answers the exit code."""
    failed = []
    for name in BENCHMARKS:
        print(f"==> bench/{name}.py", flush=True)
        argv = [sys.executable, "-m", f"bench.{name}"]
        if subprocess.run(argv, cwd=Path(__file__).parents[1], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed or missed a target: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
