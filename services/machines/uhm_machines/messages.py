"""Between the messages of the API and the values of this service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from uhm_machines.errors import InvalidRequest
from uhm_machines.output import LogSource
from uhm_machines.requests import MachineRequest, parse_port, parse_start, parse_wait
from uhmalguhm.machines.v1 import machine_pb2

if TYPE_CHECKING:
    from uhm_machines.machine import Machine
    from uhm_machines.output import LogEntry

__all__ = ["log_message", "log_source", "machine_message", "machine_request"]


def machine_request(message: machine_pb2.CreateMachineRequest) -> MachineRequest:
    """What a request asks for. Raises InvalidRequest for what has no meaning; bounds are checked later."""
    return MachineRequest(
        image=message.image,
        name=message.name,
        command=tuple(message.command),
        entrypoint=tuple(message.entrypoint),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        hostname=message.hostname,
        memory_mib=message.memory_mib,
        vcpus=message.vcpus,
        ports=tuple(
            parse_port(
                host_address=port.host_address,
                host_port=port.host_port,
                guest_port=port.guest_port,
                protocol=port.protocol,
            )
            for port in message.ports
        ),
        auto_remove=message.auto_remove,
        wait=parse_wait(message.wait),
        fastest=parse_start(message.start),
    )


def machine_message(machine: Machine) -> machine_pb2.Machine:
    """A machine as the API shows it."""
    return machine_pb2.Machine(
        id=machine.id,
        name=machine.name,
        owner=machine.owner,
        image_id=machine.image_id,
        image_reference=machine.image_reference,
        status=machine.status,
        reason=machine.reason,
        exit_code=machine.exit_code,
        create_time=_timestamp(machine.created_ns),
        start_time=_timestamp(machine.started_ns),
        end_time=_timestamp(machine.ended_ns),
        command=machine.workload.argv,
        env=machine.workload.env,
        working_dir=machine.workload.working_dir,
        user=machine.workload.user,
        hostname=machine.workload.hostname,
        memory_mib=machine.memory_mib,
        vcpus=machine.vcpus,
        ports=[
            machine_pb2.PortMapping(
                host_address=port.host_address,
                host_port=port.host_port,
                guest_port=port.guest_port,
                protocol=port.transport,
            )
            for port in machine.ports
        ],
        auto_remove=machine.auto_remove,
        start_kind=machine.start_kind,
        start_reason=machine.start_reason,
        accelerator=machine.accelerator or "",
        kernel=machine.kernel,
        phases=[
            machine_pb2.Phase(name=phase.name, start_ms=phase.start_ms, duration_ms=phase.duration_ms)
            for phase in machine.phases
        ],
        pid=machine.pid or 0,
        console_tail=machine.console_tail,
        listening=machine.listening,
    )


def log_source(text: str) -> LogSource:
    """What `source` says. Raises InvalidRequest."""
    try:
        return LogSource(text or LogSource.OUTPUT)
    except ValueError:
        raise InvalidRequest(f"source is {text!r}; it can be 'output' or 'console'.", field="source") from None


def log_message(entry: LogEntry) -> machine_pb2.StreamLogsResponse:
    """A piece of a log as the API shows it."""
    return machine_pb2.StreamLogsResponse(time=_timestamp(entry.time_ns or None), stream=entry.stream, data=entry.data)


def _timestamp(moment_ns: int | None) -> Timestamp | None:
    if moment_ns is None:
        return None
    seconds, nanos = divmod(moment_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
