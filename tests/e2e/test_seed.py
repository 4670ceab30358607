"""What the first README promised: register, issue, refresh, create nginx:latest, run it, fetch the page. With curl."""

from __future__ import annotations

import html
import json
import re
import subprocess

import pytest

from tests.e2e.harness import SPARES, fetch
from tests.servers import free_ports
from uhm_gateway.docs.walkthrough import walkthrough

END = "the end of a step: "
CREDENTIALS = json.dumps({"username": "seed", "password": "test"})

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def each_system(request, running):
    """A system of this walk's own, on either database."""
    database = {}
    if request.param == "postgresql":
        database["UHM_DATABASE_URL"] = request.getfixturevalue("postgres").new_database()
    with running(**database) as system:
        yield system


def test_the_walk(each_system):
    system = each_system
    registered = system.curl("/api/v1/user/create", data=CREDENTIALS)
    assert (registered.status, registered.json) == (200, {"status": "registered", "username": "seed"})

    issued = system.curl("/api/v1/token/issue", data=CREDENTIALS)
    assert issued.status == 200
    assert set(issued.json) == {"access_token", "refresh_token"}

    for _ in range(2):  # the refresh token stays usable
        refreshed = system.curl("/api/v1/token/refresh", "-X", "POST", token=issued.json["refresh_token"])
        assert (refreshed.status, set(refreshed.json)) == (200, {"access_token"})
    token = refreshed.json["access_token"]

    created = system.curl("/api/v1/container/create", token=token, data='{"image":"nginx","tag":"latest"}')
    assert (created.status, set(created.json)) == (200, {"id", "status"})
    assert created.json["status"] == "building"

    events = watched(system.curl(f"/api/v1/images/{created.json['id']}:watch", "-N", token=token))
    image = events[-1]["image"]
    assert image["status"] == "ready"
    assert [stage["name"] for stage in image["stages"] if stage["name"] != "base"] == ["resolve", "convert", "compose"]
    assert all(stage["duration_ms"] > 0 for stage in image["stages"])
    assert len(image["layers"]) == 2

    (port,) = free_ports(1)
    ports = [{"host_port": port, "guest_port": 80}]
    asked = json.dumps({"image": "nginx:latest", "name": "web", "ports": ports, "wait": "listening"})
    machine = system.curl("/api/v1/machines", token=token, data=asked)
    assert machine.status == 200, machine.text
    assert machine.json["status"] == "running"
    assert [phase["name"] for phase in machine.json["phases"]][:2] == ["prepare", "spawn"]
    assert "as a virtual machine" in fetch(f"http://127.0.0.1:{port}/")

    stopped = system.curl("/api/v1/machines/web:stop", token=token, data="{}")
    assert (stopped.status, stopped.json["status"], stopped.json["exit_code"]) == (200, "exited", 0)
    assert system.curl("/api/v1/machines/web", "-X", "DELETE", token=token).status == 200
    assert system.curl("/api/v1/machines/web", token=token).status == 404
    deleted = system.curl(f"/api/v1/images/{created.json['id']}", "-X", "DELETE", token=token)
    assert deleted.status == 200
    assert int(deleted.json["freed_bytes"]) > 100_000_000
    collected = system.curl("/api/v1/usage:collect", token=token, data="{}")
    assert int(collected.json["freed_bytes"]) > 100_000_000
    assert len([path for path in (system.state_dir / "machines").iterdir() if path.is_dir()]) <= SPARES
    assert not list((system.state_dir / "artifacts" / "layers").iterdir())


def test_the_walk_as_the_documentation_has_it(each_system):
    """Its commands, as they are copied from the page, in one shell."""
    page = html.unescape(each_system.curl("/", "-H", "Accept: text/html").text)
    assert all(step.command in page for step in walkthrough(each_system.url))
    (port,) = free_ports(1)
    steps = walkthrough(each_system.url, port=port)
    script = "".join(f"{step.command}\nprintf '\\n{END}%s\\n' $?\n" for step in steps)
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, timeout=300, check=True)
    *outputs, rest = re.split(rf"\n{END}0\n", done.stdout)
    assert (len(outputs), rest) == (len(steps), ""), done
    registered, exported, created, watched_lines, machine, served, stopped, deleted = outputs
    assert json.loads(registered) == {"status": "registered", "username": "ada"}
    assert exported == ""
    assert json.loads(created)["status"] == "building"
    assert json.loads(watched_lines.splitlines()[-1])["result"]["image"]["status"] == "ready"
    assert json.loads(machine)["status"] == "running"
    assert "as a virtual machine" in served
    assert json.loads(stopped)["status"] == "exited"
    assert re.fullmatch(r'\{\}\{"freed_bytes":"\d+"\}', "".join(deleted.split()))


def watched(answer) -> list[dict]:
    """The events of a watched build, without their envelopes."""
    assert answer.status == 200, answer.text
    return [json.loads(line)["result"] for line in answer.text.splitlines()]
