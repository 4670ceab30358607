from dataclasses import replace

import pytest

from tests.unit.machines.stand_ins import DIGEST, IMAGE, a_service
from uhm_machines.images import Healthcheck, ImageConfig
from uhm_machines.machine import PortMapping, StartKind, Transport
from uhm_machines.starts.wish import Wish, named, service_of, why_not_ready

SERVICE = a_service()
CHECK = Healthcheck(command=("true",), interval_ns=1, timeout_ns=1, start_period_ns=0, retries=1)
NOTHING_TELLS = "the image exposes no TCP port and has no health check, so nothing tells when its service is ready"


def port(guest_port, transport=Transport.TCP):
    return PortMapping(host_address="127.0.0.1", host_port=0, guest_port=guest_port, transport=transport)


def a_wish(**changes):
    service = changes.get("service", SERVICE)
    workload = replace((service or SERVICE).workload, **changes.pop("workload", {}))
    wish = Wish(disk_digest=DIGEST, workload=workload, ports=(), memory_mib=256, vcpus=1, service=service)
    return replace(wish, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"ports": (port(80), port(53, Transport.UDP))}, ""),
        ({"memory_mib": 1024, "vcpus": 4}, ""),
        ({"service": a_service(exposed_ports=(), healthcheck=CHECK)}, ""),
        ({"fastest": StartKind.TEMPLATE}, "a slower kind was asked for"),
        ({"fastest": StartKind.COLD}, "a slower kind was asked for"),
        ({"has_disk": True}, "the machine has a disk of its own"),
        ({"service": None}, NOTHING_TELLS),
        ({"service": a_service(exposed_ports=())}, NOTHING_TELLS),
        ({"service": a_service(exposed_ports=("53/udp",))}, NOTHING_TELLS),
        ({"workload": {"argv": ("nginx", "-t")}}, "the command was asked for"),
        ({"workload": {"env": ("A=2",)}}, "the environment was asked for"),
        ({"workload": {"working_dir": "/srv"}}, "the working directory was asked for"),
        ({"workload": {"user": "app"}}, "the user was asked for"),
        ({"workload": {"hostname": "web"}}, "the host name was asked for"),
        ({"workload": {"argv": ("sh",), "user": "app"}}, "the command and the user were asked for"),
        (
            {"ports": (port(80), port(9000), port(8080))},
            "the image does not expose port 8080, so nothing tells whether its service listens there",
        ),
    ],
)
def test_what_keeps_a_running_service_from_being_used(changes, said):
    assert why_not_ready(a_wish(**changes)) == said


def test_an_image_that_runs_nothing_has_no_service():
    assert service_of(replace(IMAGE, config=ImageConfig(exposed_ports=("80/tcp",)))) is None


def test_a_service_has_no_host_name_of_its_own():
    assert (SERVICE.workload.argv, SERVICE.workload.hostname, SERVICE.workload.watched_ports) == (("nginx",), "", (80,))


@pytest.mark.parametrize(("hostname", "expected"), [("", "abcdef012345"), ("web", "web")])
def test_a_machine_is_named_as_docker_does(hostname, expected):
    workload = replace(SERVICE.workload, hostname=hostname)
    assert named(workload, "abcdef0123456789") == replace(workload, hostname=expected)
