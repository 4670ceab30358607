"""Log lines are JSON on standard error, from structlog and from `logging` alike."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging
from uhm_common.logs import configure_logs, get_logger
log = get_logger()
configure_logs(service="test", level="info")
log.info("build.finished", ms=3)
log.debug("not.shown")
logging.getLogger("library").warning("watch %s", "out")
logging.getLogger("library").info("not shown")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("it.failed")
"""


def test_lines():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    ours, librarys, failed = [json.loads(line) for line in done.stderr.splitlines()]

    assert done.stdout == ""
    assert (ours["event"], ours["ms"], ours["service"], ours["level"]) == ("build.finished", 3, "test", "info")
    assert (librarys["event"], librarys["level"]) == ("watch out", "warning")
    assert "ZeroDivisionError" in failed["exception"]
    assert "timestamp" in ours
