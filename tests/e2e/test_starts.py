"""Snapshots in a whole system: made when an image is ready, used by the next machine, gone with the image."""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e.harness import fetch
from tests.servers import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MADE_SECONDS = 60
GONE_SECONDS = 30


def snapshots_of(system, image_id):
    records = (system.state_dir / "snapshots").glob("*/snapshot.json")
    return [path for path in records if json.loads(path.read_text())["image_id"] == image_id]


def eventually(condition, *, within):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_second_machine_of_a_service_is_a_clone_of_it(system):
    token = system.user("starter")
    image_id = system.curl("/api/v1/images", token=token, data='{"image": "nginx"}').json["id"]
    assert system.image(image_id, token=token)["status"] == "ready"
    eventually(lambda: snapshots_of(system, image_id), within=MADE_SECONDS)

    (port,) = free_ports(1)
    started = system.uhm("run", "-d", "--name", "clone", "-p", f"{port}:80", "nginx", token=token)
    assert "ready start" in started.stderr
    assert "as a virtual machine" in fetch(f"http://127.0.0.1:{port}/")
    assert "GET / HTTP/1.1" in system.uhm("logs", "clone", token=token).stdout
    machine = system.curl("/api/v1/machines/clone", token=token).json
    assert (machine["start_kind"], machine.get("start_reason", "")) == ("ready", "")

    asked = system.uhm("run", "-d", "--name", "slow", "--start", "cold", "-e", "A=1", "nginx", token=token)
    assert "cold start" in asked.stderr
    assert "Ready: a slower kind was asked for. Template: a slower kind was asked for." in asked.stderr
    refused = system.curl("/api/v1/machines", token=token, data='{"image": "nginx", "start": "lukewarm"}')
    assert (refused.status, "'cold', 'template', 'ready'" in refused.json["message"]) == (400, True)

    for name in ("clone", "slow"):
        system.uhm("rm", "-f", name, token=token)
    assert system.curl(f"/api/v1/images/{image_id}", "-X", "DELETE", token=token).status == 200
    eventually(lambda: not snapshots_of(system, image_id), within=GONE_SECONDS)
    said = json.loads(system.uhm("doctor", "--state-dir", str(system.state_dir), "--json", check=False).stdout)
    assert any(check["name"] == "snapshots" and "in all" in check["detail"] for check in said["checks"])
