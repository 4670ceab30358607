from dataclasses import replace

import pytest

from uhm_machines.errors import InvalidRequest
from uhm_machines.images import ImageConfig
from uhm_machines.machine import PortMapping, Transport
from uhm_machines.requests import MachineRequest
from uhm_machines.workload import exposed_tcp_ports, join_argv, join_env, workload_of


@pytest.mark.parametrize(
    ("image_entrypoint", "image_cmd", "entrypoint", "command", "argv"),
    [
        ([], ["sh"], [], [], ("sh",)),
        (["/run"], ["a", "b"], [], [], ("/run", "a", "b")),
        (["/run"], ["a"], [], ["x"], ("/run", "x")),
        (["/run"], ["a"], ["/other"], [], ("/other",)),
        (["/run"], ["a"], ["/other", "-v"], ["x"], ("/other", "-v", "x")),
        (["/run"], ["a"], [""], ["x"], ("x",)),
        (["/run"], [], [], [""], ("/run", "")),
    ],
)
def test_argv_is_joined_as_docker_does(image_entrypoint, image_cmd, entrypoint, command, argv):
    assert join_argv(image_entrypoint, image_cmd, entrypoint=entrypoint, command=command) == argv


@pytest.mark.parametrize(("image_entrypoint", "entrypoint"), [([], []), (["/run"], [""])])
def test_nothing_to_run_is_refused(image_entrypoint, entrypoint):
    with pytest.raises(InvalidRequest, match="The image has no command"):
        join_argv(image_entrypoint, [], entrypoint=entrypoint, command=[])


def test_env_overrides_in_place_and_appends():
    assert join_env(["A=1", "B=2", "C="], ["B=x=y", "D="]) == ("A=1", "B=x=y", "C=", "D=")


@pytest.mark.parametrize("variable", ["A", "=1", ""])
def test_env_without_a_value_is_refused(variable):
    with pytest.raises(InvalidRequest):
        join_env([], [variable])


@pytest.mark.parametrize(
    ("exposed", "ports"),
    [
        (["80/tcp", "53/udp", "443"], {80, 443}),
        (["8000-8002/tcp"], {8000, 8001, 8002}),
        (["x", "0/tcp", "", "70000-70001"], set()),
        (["65535-70000/tcp"], {65535}),
    ],
)
def test_exposed_ports(exposed, ports):
    assert exposed_tcp_ports(exposed) == ports


def test_the_request_goes_over_the_image():
    config = ImageConfig(
        cmd=("sh",), env=("A=1",), working_dir="/srv", user="app", exposed_ports=("80/tcp",), stop_signal="SIGINT"
    )
    published = (
        PortMapping(host_address="127.0.0.1", host_port=0, guest_port=8080),
        PortMapping(host_address="127.0.0.1", host_port=0, guest_port=53, transport=Transport.UDP),
    )
    plain = workload_of(MachineRequest(image="i"), config)
    assert (plain.working_dir, plain.user, plain.hostname, plain.stop_signal) == ("/srv", "app", "", 2)
    assert plain.watched_ports == (80,)
    assert workload_of(MachineRequest(image="i"), replace(config, hostname="box")).hostname == "box"
    asked = MachineRequest(image="i", working_dir="/x", user="0", hostname="h", ports=published)
    over = workload_of(asked, replace(config, hostname="box"))
    assert (over.working_dir, over.user, over.hostname) == ("/x", "0", "h")
    assert over.watched_ports == (80, 8080)
