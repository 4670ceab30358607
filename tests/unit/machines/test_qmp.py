"""The monitor's client against a stand-in that speaks QMP over a Unix socket."""

import asyncio
import json
import os
import socket
import threading

import pytest

from uhm_machines.errors import QmpFailed, QmpRefused
from uhm_machines.files import listen_unix
from uhm_machines.qemu.qmp import open_session, qmp_session

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}


class Monitor(threading.Thread):
    """Serves one client after the other; knows `query-name`, `getfd`, and `die`, which closes the connection."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self._server = listen_unix(path)
        self._server.setblocking(True)
        self.clients = 0
        self.files: list[int] = []
        self.asked: list[dict[str, object]] = []
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.clients += 1
            with client:
                self._serve(client)

    def _serve(self, client):
        self._send(client, GREETING)
        received = b""
        while True:
            data, files, *_ = socket.recv_fds(client, 65536, 4)
            self.files += files
            received += data
            if not data:
                return
            while (end := _object_end(received)) is not None:
                command, received = json.loads(received[:end]), received[end:]
                self.asked.append(command)
                if command["execute"] == "die":
                    return
                self._send(client, {"id": command.get("id")} | _answer(command))

    def _send(self, client, message):
        client.sendall(json.dumps(message).encode() + b"\r\n")

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.join()
        for descriptor in self.files:
            os.close(descriptor)


def _object_end(text):
    """Where the first JSON object ends; None where it is not all there."""
    try:
        return json.JSONDecoder().raw_decode(text.decode().lstrip())[1] + len(text) - len(text.lstrip())
    except ValueError:
        return None


def _answer(command):
    known = {"qmp_capabilities": {}, "query-name": {"name": "vm"}, "getfd": {}}
    if command["execute"] in known:
        return {"return": known[command["execute"]]}
    return {"error": {"class": "CommandNotFound", "desc": f"{command['execute']} is unknown"}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "qmp.sock"


@pytest.fixture
def monitor(path):
    made = Monitor(path)
    yield made
    made.close()


async def test_commands_are_answered_refused_or_lost(monitor, path):
    async with qmp_session(path, within=5) as session:
        assert await session.execute("query-name") == {"name": "vm"}
        with pytest.raises(QmpRefused, match="QEMU refused nonsense: nonsense is unknown"):
            await session.execute("nonsense")
        assert await session.execute("query-name") == {"name": "vm"}
        with pytest.raises(QmpFailed, match="went away during die") as lost:
            await session.execute("die")
        assert not isinstance(lost.value, QmpRefused)


async def test_a_monitor_is_free_again_when_it_is_closed(monitor, path):
    for _ in range(2):
        session = await open_session(path, within=5)
        await session.execute("query-name")
        await session.close()
    assert monitor.clients == 2


async def test_a_file_is_lent(monitor, path, tmp_path):
    with (tmp_path / "state").open("wb") as file:
        async with qmp_session(path, within=5) as session:
            await session.lend_fd("state", file.fileno())
        (received,) = monitor.files
        assert (monitor.asked[-1]["execute"], monitor.asked[-1]["arguments"]) == ("getfd", {"fdname": "state"})
        assert os.path.samestat(os.fstat(received), os.fstat(file.fileno()))


async def test_a_monitor_that_is_not_there(path):
    with pytest.raises(QmpFailed, match="does not answer"):
        await open_session(path, within=5)


async def test_a_monitor_that_says_nothing(path):
    with listen_unix(path):
        for opening in (open_session(path, within=0.05), qmp_session(path, within=0.05).__aenter__()):
            with pytest.raises(QmpFailed, match=r"did not answer within 0\.05 s"):
                await opening


async def test_the_time_is_for_the_block_too(monitor, path):
    with pytest.raises(QmpFailed, match=r"within 0\.2 s"):
        async with qmp_session(path, within=0.2):
            await asyncio.Event().wait()
