"""`python -m tests.fuzz [TARGET…] --seconds N`: coverage-guided fuzzing with atheris, two targets at a time.

Corpora and what was found are kept below build/fuzz/TARGET; inputs that break a target are called `crash-…` or
`timeout-…`, and can be given to it again: `python -m tests.fuzz TARGET --again FILE`.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS

DIRECTORY = Path("build/fuzz")
INPUT_BYTES = 2048
INPUT_SECONDS = 10
AT_ONCE = 2


def main() -> int:
    """Fuzzes, and answers 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run one input instead")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.again is not None:
        for name in names:
            TARGETS[name].run(arguments.again.read_bytes())
        return 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return max(pool.map(lambda name: _fuzz(name, arguments.seconds), names))


def _fuzz(name: str, seconds: int) -> int:
    """One target in a process of its own; what it says goes to its log."""
    directory = DIRECTORY / name
    corpus = directory / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds:
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": INPUT_BYTES,
        "timeout": INPUT_SECONDS,
        "artifact_prefix": f"{directory}/",
        "print_final_stats": 1,
    }
    argv = [sys.executable, "-m", "tests.fuzz.child", name, *(f"-{key}={value}" for key, value in options.items())]
    log = directory / "log"
    with log.open("wb") as output:
        ended = subprocess.run([*argv, str(corpus)], stdout=output, stderr=output, check=False)
    lines = log.read_text(errors="replace").splitlines()
    runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "no")
    verdict = "nothing found" if ended.returncode == 0 else f"FOUND SOMETHING, see {log}"
    sys.stdout.write(f"{name}: {runs} inputs in {seconds} s, {verdict}\n")
    sys.stdout.flush()
    return min(ended.returncode, 1) if ended.returncode >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
