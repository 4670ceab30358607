"""uhmalguhm.machines.v1.MachineService: messages in, messages out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm_common.callers.identity import current_identity
from uhm_machines.messages import log_message, log_source, machine_message, machine_request
from uhm_machines.requests import parse_start, parse_wait
from uhmalguhm.machines.v1 import machine_pb2, machine_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from uhm_machines.service import MachineService

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["MachineServicer"]


class MachineServicer(machine_pb2_grpc.MachineServiceServicer):
    """The gRPC face of MachineService."""

    def __init__(self, service: MachineService) -> None:
        self._service = service

    async def CreateMachine(  # noqa: N802 - the API's name
        self, request: machine_pb2.CreateMachineRequest, _context: Context
    ) -> machine_pb2.CreateMachineResponse:
        """Makes a machine and starts it."""
        machine = await self._service.create(machine_request(request), identity=current_identity())
        return machine_pb2.CreateMachineResponse(machine=machine_message(machine))

    async def GetMachine(  # noqa: N802
        self, request: machine_pb2.GetMachineRequest, _context: Context
    ) -> machine_pb2.GetMachineResponse:
        """Answers one machine."""
        machine = await self._service.get(request.id, identity=current_identity())
        return machine_pb2.GetMachineResponse(machine=machine_message(machine))

    async def ListMachines(  # noqa: N802
        self, request: machine_pb2.ListMachinesRequest, _context: Context
    ) -> machine_pb2.ListMachinesResponse:
        """Lists the caller's machines."""
        machines, token = await self._service.page(
            size=request.page_size,
            token=request.page_token,
            include_ended=request.all,
            identity=current_identity(),
        )
        return machine_pb2.ListMachinesResponse(
            machines=[machine_message(machine) for machine in machines], next_page_token=token
        )

    async def StopMachine(  # noqa: N802
        self, request: machine_pb2.StopMachineRequest, _context: Context
    ) -> machine_pb2.StopMachineResponse:
        """Ends a machine."""
        grace = request.grace_seconds if request.HasField("grace_seconds") else None
        machine = await self._service.stop(request.id, grace=grace, identity=current_identity())
        return machine_pb2.StopMachineResponse(machine=machine_message(machine))

    async def StartMachine(  # noqa: N802
        self, request: machine_pb2.StartMachineRequest, _context: Context
    ) -> machine_pb2.StartMachineResponse:
        """Starts a machine that has ended."""
        machine = await self._service.start(
            request.id,
            wait=parse_wait(request.wait),
            fastest=parse_start(request.start),
            identity=current_identity(),
        )
        return machine_pb2.StartMachineResponse(machine=machine_message(machine))

    async def DeleteMachine(  # noqa: N802
        self, request: machine_pb2.DeleteMachineRequest, _context: Context
    ) -> machine_pb2.DeleteMachineResponse:
        """Deletes a machine."""
        await self._service.delete(request.id, force=request.force, identity=current_identity())
        return machine_pb2.DeleteMachineResponse()

    async def WatchMachine(  # noqa: N802
        self, request: machine_pb2.WatchMachineRequest, _context: Context
    ) -> AsyncIterator[machine_pb2.WatchMachineResponse]:
        """Streams a machine's changes."""
        async for machine in self._service.watch(request.id, identity=current_identity()):
            yield machine_pb2.WatchMachineResponse(machine=machine_message(machine))

    async def StreamLogs(  # noqa: N802
        self, request: machine_pb2.StreamLogsRequest, _context: Context
    ) -> AsyncIterator[machine_pb2.StreamLogsResponse]:
        """Streams a log."""
        tail = request.tail if request.HasField("tail") else None
        source = log_source(request.source)
        async for entry in self._service.logs(
            request.id, source=source, follow=request.follow, tail=tail, identity=current_identity()
        ):
            yield log_message(entry)
