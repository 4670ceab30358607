from uhm_machines.channel import GuestEvent
from uhm_machines.timeline import Mark, Timeline


def phases(timeline):
    return {phase.name: (phase.start_ms, phase.duration_ms) for phase in timeline.phases()}


def marked(monkeypatch, timeline, mark, moment):
    monkeypatch.setattr("uhm_machines.timeline.time.monotonic", lambda: moment)
    timeline.mark(mark)


def test_phases_of_host_and_guest_are_on_one_clock(monkeypatch):
    timeline = Timeline(asked=100.0)
    marked(monkeypatch, timeline, Mark.PREPARED, 100.05)
    marked(monkeypatch, timeline, Mark.SPAWNED, 100.1)
    timeline.hear(GuestEvent(1.0, "init"), at=101.5)  # heard late
    timeline.hear(GuestEvent(1.3, "started", "80"), at=101.42)  # heard after 20 ms: the best there is
    timeline.hear(GuestEvent(1.5, "ready"), at=101.7)
    assert phases(timeline) == {
        "prepare": (0.0, 50.0),
        "spawn": (50.0, 50.0),
        "kernel": (100.0, 1020.0),
        "init": (1120.0, 300.0),
        "listening": (1420.0, 200.0),
    }


def test_a_machine_out_of_a_template_has_no_kernel_phase(monkeypatch):
    timeline = Timeline(asked=100.0)
    for mark, moment in ((Mark.PREPARED, 100.01), (Mark.SPAWNED, 100.02), (Mark.RESTORED, 100.1)):
        marked(monkeypatch, timeline, mark, moment)
    timeline.hear(GuestEvent(50.0, "mounted"), at=100.08)  # its clock was saved with it
    timeline.hear(GuestEvent(50.05, "started", "80"), at=100.14)
    timeline.hear(GuestEvent(50.06, "first_output"), at=100.14)
    timeline.hear(GuestEvent(50.15, "ready"), at=100.24)
    assert phases(timeline) == {
        "prepare": (0.0, 10.0),
        "spawn": (10.0, 10.0),
        "restore": (20.0, 80.0),
        "init": (100.0, 30.0),
        "first_output": (130.0, 10.0),
        "listening": (130.0, 100.0),
    }


def test_a_service_that_was_restored_begins_with_that(monkeypatch):
    timeline = Timeline(asked=100.0)
    for mark, moment in ((Mark.PREPARED, 100.01), (Mark.SPAWNED, 100.02), (Mark.RESTORED, 100.05)):
        marked(monkeypatch, timeline, mark, moment)
    timeline.hear(GuestEvent(70.0, "restored", "0"), at=100.04)
    timeline.hear(GuestEvent(70.5, "first_output"), at=100.6)
    assert phases(timeline) == {
        "prepare": (0.0, 10.0),
        "spawn": (10.0, 10.0),
        "restore": (20.0, 30.0),
        "first_output": (50.0, 490.0),
    }


def test_a_guest_that_is_faster_than_the_host_takes_no_time(monkeypatch):
    timeline = Timeline(asked=100.0)
    timeline.hear(GuestEvent(1.0, "started"), at=100.1)
    marked(monkeypatch, timeline, Mark.RESTORED, 100.2)
    assert phases(timeline) == {"init": (200.0, 0.0)}


def test_only_phases_with_both_ends_are_told():
    timeline = Timeline(asked=100.0)
    assert timeline.phases() == ()
    timeline.hear(GuestEvent(1.3, "started"), at=101.0)
    assert timeline.phases() == ()


def test_a_guest_cannot_move_the_hosts_marks():
    timeline = Timeline(asked=100.0)
    timeline.hear(GuestEvent(0.0, "asked"), at=1.0)
    timeline.hear(GuestEvent(0.0, "prepared"), at=1.0)
    assert timeline.phases() == ()


def test_the_first_event_of_a_name_counts(monkeypatch):
    timeline = Timeline(asked=0.0)
    marked(monkeypatch, timeline, Mark.SPAWNED, 0.0)
    timeline.hear(GuestEvent(1.0, "init"), at=1.0)
    timeline.hear(GuestEvent(2.0, "init"), at=2.0)
    assert phases(timeline)["kernel"] == (0.0, 1000.0)
