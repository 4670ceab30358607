"""Steps of the set-up are skipped while nothing has changed, and failures are shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

STEPS = Path(__file__).parents[3] / "tools" / "setup" / "step.sh"
RUN = f"""
. {STEPS}
: >"$log"
step "the step" output work.sh input
"""


@pytest.fixture
def tree(tmp_path):
    """A source tree with a step that copies its input and counts its runs."""
    (tmp_path / "build" / "stamps").mkdir(parents=True)
    (tmp_path / "work.sh").write_text("cat input >output\necho >>runs\n")
    (tmp_path / "input").write_text("one")
    return tmp_path


def run(tree: Path, script: str = RUN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-eu", "-c", script], cwd=tree, capture_output=True, text=True, check=False)


def runs(tree: Path) -> int:
    return (tree / "runs").read_text().count("\n")


def test_runs_once_and_shows_its_time(tree):
    first, second = run(tree), run(tree)
    assert first.stdout.startswith("==> the step … 0.")
    assert second.stdout == "==> the step … up to date\n"
    assert runs(tree) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "input").write_text("two"),
        lambda tree: (tree / "output").unlink(),
        lambda tree: (tree / "work.sh").write_text("cat input input >output\necho >>runs\n"),
    ],
    ids=["input", "output deleted", "script"],
)
def test_runs_again_after_a_change(tree, change):
    run(tree)
    change(tree)
    assert run(tree).returncode == 0
    assert runs(tree) == 2


def test_failure_shows_the_end_of_this_steps_output(tree):
    (tree / "work.sh").write_text("echo working\nfalse\necho not reached\n")
    failed = run(tree, RUN.replace(': >"$log"', 'echo earlier >"$log"'))
    assert failed.returncode == 1
    assert "failed after" in failed.stdout
    assert "    working\n" in failed.stderr
    assert "build/setup.log" in failed.stderr
    assert "earlier" not in failed.stderr
    assert "not reached" not in failed.stderr
    assert not (tree / "build" / "stamps" / "work").exists()


def test_a_step_that_failed_runs_again(tree):
    (tree / "work.sh").write_text("echo >>runs\n: >output\nfalse\n")
    run(tree)
    assert run(tree).returncode == 1
    assert runs(tree) == 2
