"""How long a machine takes from the request to its first byte, by each kind of start, against `docker run`.

Sections, all of one run:

    alone       docker run, cold, template and ready in turn, each from the client's request to the first byte of a page
    hello       the same with a static hello-world, docker run against template, to the first line of its output
    together    the same as alone with 10 at once
    memory      PSS of idle machines by their kind of start
    crowd       100 machines at once from one snapshot: until the last serves, what they take, what is left afterwards

The system and the engine are started for the occasion, with images out of a registry on loopback; `--url` measures a
system that runs already, without the last two sections. A machine that was not started as asked for ends the run; what
was measured until then is shown.
`--busy` keeps every core busy meanwhile: then every start of `alone` and `hello` must come, and times have no target.

    python -m bench.start [--runs N] [--only SECTION ...] [--busy] [--json FILE] [--picture FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench.busy import busy_cores
from bench.contestants import KINDS, Containers, Machines, WrongKind, wait_until_possible
from bench.crowd import measure_crowd
from bench.host import Host
from bench.memory import idle_memory
from bench.pauses import Pauses
from bench.picture import picture
from bench.report import table
from bench.result import AT_ONCE, Result
from bench.rounds import alternate
from bench.stage import end_on_sigterm, engine_and_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.contestants import Contestant
    from bench.stage import Stage

RESULTS = Path(__file__).parents[1] / "build" / "bench"
SECTIONS = ("alone", "hello", "together", "memory", "crowd")
BUSY_SECTIONS = ("alone", "hello")
URL_SECTIONS = ("alone", "hello", "together")
HELLO = "hello"
FAILURES = (WrongKind, AssertionError, httpx.HTTPError)
"""A start that was not what it was to be, or an error of the API: it ends the run, and what was measured is shown."""


def main() -> None:
    """Prints a table, writes files; ends with 1 where a target is missed."""
    arguments = parsed()
    end_on_sigterm()
    try:
        with engine_and_system((arguments.image, HELLO), url=arguments.url) as stage:
            result = measure(stage, arguments)
    except WrongKind as error:
        sys.exit(f"bench.start: {error}")
    sys.stdout.write(table(result) + "\n")
    write(arguments.json, json.dumps(result.document(), indent=2) + "\n")
    if result.alone or result.together:
        write(arguments.picture, picture(result))
    sys.exit(0 if result.passed else 1)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="rounds one at a time; default 20")
    parser.add_argument("--rounds-together", type=int, default=3, help=f"rounds of {AT_ONCE} at once; default 3")
    parser.add_argument("--crowd", type=int, default=100, help="how many at once from one snapshot; default 100")
    parser.add_argument("--image", default="nginx", help="one that serves a page on port 80 and exposes it")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--busy", action="store_true", help="keep every core busy meanwhile")
    parser.add_argument("--url", help="a system that runs already; default: one is started")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default build/bench/start.json, start-busy.json")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="default build/bench/start.svg, start-busy.svg")
    arguments = parser.parse_args()
    possible = set(arguments.only or SECTIONS)
    possible &= set(BUSY_SECTIONS if arguments.busy else SECTIONS) & set(URL_SECTIONS if arguments.url else SECTIONS)
    arguments.only = [section for section in SECTIONS if section in possible]
    if not arguments.only:
        parser.error("none of these sections is measured with these options")
    stem = "start-busy" if arguments.busy else "start"
    arguments.json = arguments.json or RESULTS / f"{stem}.json"
    arguments.picture = arguments.picture or RESULTS / f"{stem}.svg"
    return arguments


def measure(stage: Stage, arguments: argparse.Namespace) -> Result:
    """The sections that were asked for, once every kind of start is possible."""
    api, image = stage.api, arguments.image
    cold, template, ready = machines = [Machines(api=api, image=image, kind=kind) for kind in KINDS]
    hello = Machines(api=api, image=HELLO, kind="template", serves=False)
    host = Host.of(wait_until_possible(cold))
    for kind in (template, ready, hello):
        wait_until_possible(kind)
    pages: list[Contestant] = [Containers(engine=stage.engine, image=image), *machines]
    lines: list[Contestant] = [Containers(engine=stage.engine, image=HELLO, serves=False), hello]
    for first in (pages[0], lines[0]):  # machines had theirs
        first.remove(first.start())
    pauses = Pauses()
    sections: dict[str, Callable[[], Any]] = {
        "alone": lambda: alternate(pages, rounds=arguments.runs, pauses=pauses),
        "hello": lambda: alternate(lines, rounds=arguments.runs, pauses=pauses),
        "together": lambda: alternate(pages, rounds=arguments.rounds_together, pauses=pauses, at_once=AT_ONCE),
        "memory": lambda: idle_memory(machines),
        "crowd": lambda: measure_crowd(ready, stage.state_dir, count=arguments.crowd),
    }
    found: dict[str, Any] = {}
    failure = ""
    with busy_cores() if arguments.busy else nullcontext():
        for section in arguments.only:
            sys.stderr.write(f"{section}\n")
            pauses.rest()
            try:
                found[section] = sections[section]()
            except FAILURES as error:
                failure = f"{section}: {error}"
                break
    return Result(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        host=host,
        image=image,
        busy=arguments.busy,
        load_in_pauses=pauses.load,
        failure=failure,
        **found,
    )


def write(path: Path, text: str) -> None:
    """Writes a file and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.stderr.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
