import pytest

from uhm_machines.channel import GuestEvent
from uhm_machines.progress import Progress, judge
from uhm_machines.qemu.process import ExitStatus
from uhm_machines.states import Status

STARTED = GuestEvent(1.0, "started", "80")
RESTORED = GuestEvent(1.0, "restored", "0")


def progress(*events):
    made = Progress()
    for event in events:
        made.take(event)
    return made


@pytest.mark.parametrize(
    ("events", "number", "stop_asked", "expected"),
    [
        ([STARTED, GuestEvent(2, "exit", "0")], 0, False, (Status.EXITED, 0, "")),
        ([STARTED, GuestEvent(2, "exit", "3")], 0, False, (Status.EXITED, 3, "")),
        ([STARTED, GuestEvent(2, "exit", "143")], 0, True, (Status.EXITED, 143, "Stopped.")),
        ([STARTED], 137, True, (Status.EXITED, 137, "Ended by force: it did not end in the time it was given.")),
        ([RESTORED], 137, True, (Status.EXITED, 137, "Ended by force: it did not end in the time it was given.")),
        ([], 0, True, (Status.EXITED, 137, "Stopped before its command was started.")),
        (
            [GuestEvent(1, "error", "x: not found"), GuestEvent(2, "exit", "127")], 0, False,
            (Status.FAILED, 127, "X: not found."),
        ),
        ([STARTED], 137, False, (Status.FAILED, None, "QEMU was ended by signal 9 (SIGKILL).")),
        ([STARTED], 1, False, (Status.FAILED, None, "QEMU ended with exit code 1: last words.")),
    ],
)  # fmt: skip
def test_what_became_of_a_machine(events, number, stop_asked, expected):
    verdict = judge(progress(*events), ExitStatus(number), stop_asked=stop_asked, qemu_log="first\nlast words")
    assert (verdict.status, verdict.exit_code, verdict.reason) == expected


@pytest.mark.parametrize(
    ("events", "exit_status", "said"),
    [
        ([STARTED], None, "vanished"),
        ([GuestEvent(1, "init"), STARTED], ExitStatus(0), "console"),
        ([GuestEvent(1, "mounted"), STARTED], ExitStatus(0), "console"),  # it was restored, so its kernel was up
        ([RESTORED], ExitStatus(0), "console"),
        ([], ExitStatus(0), "more memory"),
    ],
)
def test_an_end_that_nobody_explained(events, exit_status, said):
    verdict = judge(progress(*events), exit_status, stop_asked=False, qemu_log="")
    assert verdict.status is Status.FAILED
    assert said in verdict.reason


def test_a_service_that_was_restored_has_started_and_listens():
    made = progress(RESTORED)
    assert (made.booted, made.started, made.listening) == (True, RESTORED, True)


def test_what_the_guest_says_is_taken_with_care():
    made = progress(
        GuestEvent(1, "exit", "soon"),
        GuestEvent(1, "exit", "9" * 30),
        GuestEvent(1, "exit", "-1"),
        GuestEvent(1, "exit"),
        GuestEvent(1, "waiting"),
        GuestEvent(1, "ready"),
    )
    assert made.exit_code is None
    assert made.waiting
    assert made.listening
