"""What a machine runs: docker's rules for joining an image's configuration with what was asked for.

Specifications: the OCI image specification (config.Entrypoint, .Cmd, .Env, .StopSignal, .ExposedPorts) and docker run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uhm_common.signals import signal_number
from uhm_machines.errors import InvalidRequest
from uhm_machines.machine import Transport, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uhm_machines.images import ImageConfig
    from uhm_machines.requests import MachineRequest

__all__ = ["exposed_tcp_ports", "join_argv", "join_env", "workload_of"]

_EXPOSED = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?")
_MAX_PORT = 65535
_MAX_WATCHED = 64


def workload_of(request: MachineRequest, config: ImageConfig) -> Workload:
    """What to run for this request with this image; its host name is empty where neither has one.

    Raises InvalidRequest where there is nothing to run.
    """
    published = {port.guest_port for port in request.ports if port.transport is Transport.TCP}
    return Workload(
        argv=join_argv(config.entrypoint, config.cmd, entrypoint=request.entrypoint, command=request.command),
        env=join_env(config.env, request.env),
        working_dir=request.working_dir or config.working_dir,
        user=request.user or config.user,
        hostname=request.hostname or config.hostname,
        stop_signal=signal_number(config.stop_signal),
        watched_ports=tuple(sorted(published | exposed_tcp_ports(config.exposed_ports))[:_MAX_WATCHED]),
    )


def join_argv(
    image_entrypoint: Sequence[str], image_cmd: Sequence[str], *, entrypoint: Sequence[str], command: Sequence[str]
) -> tuple[str, ...]:
    """The argument vector: an entrypoint given drops the image's command, one empty string drops the entrypoint.

    Raises InvalidRequest where nothing is left.
    """
    first = tuple(image_entrypoint)
    rest = tuple(command) or tuple(image_cmd)
    if entrypoint:
        first = () if list(entrypoint) == [""] else tuple(entrypoint)
        rest = tuple(command)
    argv = first + rest
    if not argv or not argv[0]:
        raise InvalidRequest("The image has no command.", hint="Say what to run: `uhm run IMAGE COMMAND...`.")
    return argv


def join_env(image: Sequence[str], override: Sequence[str]) -> tuple[str, ...]:
    """The image's variables, each replaced where the request names it, then the request's others.

    Raises InvalidRequest for one that is not NAME=value.
    """
    variables = dict(variable.partition("=")[::2] for variable in image)
    for variable in override:
        name, equals, value = variable.partition("=")
        if not name or not equals:
            raise InvalidRequest(f"{variable!r} is not NAME=value.", field="env")
        variables[name] = value
    return tuple(f"{name}={value}" for name, value in variables.items())


def exposed_tcp_ports(exposed: Sequence[str]) -> set[int]:
    """The TCP ports of `80/tcp`, `80` and `8000-8010/tcp`; what is not of this form is left out, as docker does."""
    ports: set[int] = set()
    for text in exposed:
        match = _EXPOSED.fullmatch(text)
        if match and match[3] in {None, "tcp"}:
            first, last = int(match[1]), int(match[2] or match[1])
            ports.update(range(first, min(last, _MAX_PORT) + 1))
    return ports - {0}
