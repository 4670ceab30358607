"""Whether the parts answer: gRPC health checks, the gateway's /readyz, NATS's greeting."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uhm.system.engine import answers
from uhm.system.ports import LOOPBACK
from uhm.system.programs import DOCKER, NATS

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm.system.record import SystemRecord

__all__ = ["Check", "checks", "password_policy"]

SECONDS = 2.0
# Each check stands for itself: no proxy, and no back-off shared with an earlier attempt.
CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True, slots=True)
class Check:
    """A part by its program's name, and whether it answers now."""

    name: str
    answers: Callable[[], bool]


def checks(record: SystemRecord) -> list[Check]:
    """One for every part, in the order in which they become ready."""
    ports = record.ports
    services = {"auth": ports.auth, "builder": ports.builder, "worker": ports.worker, "machines": ports.machines}
    found = [Check(NATS, lambda: nats_answers(ports.nats))]
    if record.private_docker:
        found.append(Check(DOCKER, lambda: answers(record.docker_host)))
    found += [Check(name, lambda port=port: grpc_serves(port)) for name, port in services.items()]  # type: ignore[misc]
    found.append(Check("gateway", lambda: grpc_serves(record.grpc_port) and rest_ready(record.rest_port)))
    return found


def nats_answers(port: int) -> bool:
    """A NATS server greets everybody who connects."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=SECONDS) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False


def grpc_serves(port: int) -> bool:
    """Whether the service at the port says SERVING (grpc.health.v1)."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=SECONDS).close()
    except OSError:
        return False
    import grpc  # noqa: PLC0415 - heavy
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    try:
        with grpc.insecure_channel(f"{LOOPBACK}:{port}", options=CHANNEL_OPTIONS) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def rest_ready(port: int) -> bool:
    """Whether the gateway says that it and what it needs are there."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def password_policy(port: int) -> dict[str, Any] | None:
    """What the system behind that REST port asks of passwords; None where it does not answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SECONDS)
    try:
        connection.request("GET", "/api/v1/user/policy")
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if answer.status == http.HTTPStatus.OK else None
