import pytest

from tests.unit.machines.test_store import a_machine
from uhm_machines.errors import InvalidRequest
from uhm_machines.machine import Accelerator, Phase, StartKind, Transport
from uhm_machines.messages import log_message, log_source, machine_message, machine_request
from uhm_machines.names import random_name
from uhm_machines.output import LogEntry, LogSource
from uhm_machines.requests import WaitFor
from uhm_machines.states import Status
from uhmalguhm.machines.v1 import machine_pb2 as pb


def test_a_request():
    request = machine_request(
        pb.CreateMachineRequest(
            image="nginx",
            command=["a"],
            ports=[pb.PortMapping(guest_port=53, protocol="udp")],
            wait="listening",
            start="template",
        )
    )
    assert request.fastest is StartKind.TEMPLATE
    assert (request.image, request.command, request.wait) == ("nginx", ("a",), WaitFor.LISTENING)
    assert (request.ports[0].host_address, request.ports[0].transport) == ("127.0.0.1", Transport.UDP)


@pytest.mark.parametrize("field", ["wait", "start"])
def test_a_request_that_has_no_meaning(field):
    with pytest.raises(InvalidRequest, match=f"{field} is 'soon'"):
        machine_request(pb.CreateMachineRequest(image="nginx", **{field: "soon"}))


def test_a_machine_says_why_it_did_not_start_faster():
    message = machine_message(a_machine(start_kind=StartKind.TEMPLATE, start_reason="Ready: the user was asked for."))
    assert (message.start_kind, message.start_reason) == ("template", "Ready: the user was asked for.")


def test_a_machine_that_runs():
    machine = a_machine(
        status=Status.RUNNING, started_ns=1_700_000_001_500_000_000, pid=7, accelerator=Accelerator.TCG, kernel="6.1",
        phases=(Phase(name="kernel", start_ms=1, duration_ms=2),), listening=True,
    )  # fmt: skip
    message = machine_message(machine)
    assert (message.status, message.accelerator, message.start_kind, message.pid) == ("running", "tcg", "cold", 7)
    assert message.kernel == "6.1"
    assert (message.start_time.seconds, message.start_time.nanos) == (1_700_000_001, 500_000_000)
    assert not message.HasField("exit_code")
    assert not message.HasField("end_time")
    assert message.ports[0].protocol == "udp"


def test_an_exit_code_of_zero_is_told():
    assert machine_message(a_machine(exit_code=0)).HasField("exit_code")


def test_log_entries():
    assert log_message(LogEntry(stream="stdout", data=b"x", time_ns=2_000_000_001)).time.nanos == 1
    assert not log_message(LogEntry(stream="console", data=b"x")).HasField("time")
    assert [log_source(text) for text in ("", "output", "console")] == [
        LogSource.OUTPUT, LogSource.OUTPUT, LogSource.CONSOLE,
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="'kernel'"):
        log_source("kernel")


def test_names_are_names():
    names = {random_name() for _ in range(200)} | {random_name(numbered=True)}
    assert len(names) > 150
    assert all(name.replace("-", "").isalnum() and len(name) <= 63 for name in names)
