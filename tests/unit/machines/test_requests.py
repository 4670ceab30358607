import pytest

from uhm_machines.errors import InvalidRequest
from uhm_machines.machine import PortMapping, StartKind, Transport
from uhm_machines.requests import Bounds, MachineRequest, WaitFor, checked, parse_port, parse_start, parse_wait

BOUNDS = Bounds(memory_mib=4096, vcpus=4)


def port(host_port, **fields):
    return PortMapping(host_address="127.0.0.1", host_port=host_port, guest_port=80, **fields)


def test_defaults():
    request = checked(MachineRequest(image="nginx"), BOUNDS)
    assert (request.memory_mib, request.vcpus, request.wait) == (256, 1, WaitFor.RUNNING)
    assert request.fastest is StartKind.READY


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": ""}, "image"),
        ({"name": "-x"}, "'-x'"),
        ({"name": "a" * 64}, "63"),
        ({"name": "a b"}, "'a b'"),
        ({"hostname": "a_b"}, "'a_b'"),
        ({"memory_mib": 63}, "memory_mib is 63; it can be from 64 to 4096"),
        ({"memory_mib": 4097}, "4097"),
        ({"memory_mib": -1}, "-1"),
        ({"vcpus": 5}, "vcpus is 5; it can be from 1 to 4"),
        ({"vcpus": -1}, "-1"),
        ({"working_dir": "srv"}, "absolute"),
        ({"command": ("a\0b",)}, "NUL"),
        ({"env": ("A=\0",)}, "NUL"),
        ({"user": "a\0"}, "NUL"),
        ({"env": tuple(f"A{number}=" for number in range(1001))}, "1000 words"),
        ({"command": ("x" * 600_000,)}, "bytes"),
        ({"ports": (port(80), port(80))}, "twice"),
        ({"ports": tuple(port(number) for number in range(1, 66))}, "64"),
    ],
)
def test_bad_values_are_named(fields, said):
    with pytest.raises(InvalidRequest, match=said):
        checked(MachineRequest(**{"image": "nginx"} | fields), BOUNDS)


@pytest.mark.parametrize("ports", [(port(0), port(0)), (port(80), port(80, transport=Transport.UDP))])
def test_ports_that_do_not_collide(ports):
    assert checked(MachineRequest(image="nginx", ports=ports), BOUNDS).ports == ports


def test_a_port_has_defaults():
    assert parse_port(host_address="", host_port=0, guest_port=80, protocol="") == port(0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"host_address": "::1"}, "IPv4"),
        ({"host_address": "localhost"}, "localhost"),
        ({"host_address": "127.0.0.1,guestfwd=x"}, "IPv4"),
        ({"host_port": 65536}, "host_port"),
        ({"host_port": -1}, "host_port"),
        ({"guest_port": 0}, "guest_port"),
        ({"protocol": "sctp"}, "sctp"),
    ],
)
def test_bad_ports_are_named(fields, said):
    good = {"host_address": "127.0.0.1", "host_port": 1, "guest_port": 80, "protocol": "tcp"}
    with pytest.raises(InvalidRequest, match=said):
        parse_port(**good | fields)


def test_wait():
    assert [parse_wait(text) for text in ("", "created", "listening")] == [
        WaitFor.RUNNING, WaitFor.CREATED, WaitFor.LISTENING,
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="'soon'"):
        parse_wait("soon")


def test_start():
    assert [parse_start(text) for text in ("", "cold", "template", "ready")] == [
        StartKind.READY, StartKind.COLD, StartKind.TEMPLATE, StartKind.READY,
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="start is 'warm'; it can be 'cold', 'template', 'ready'"):
        parse_start("warm")
