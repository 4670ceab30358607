"""Parts that fail in the middle: nothing is lost, nothing is done twice, and the reason is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def system(running):
    """A system of these tests' own, whose store has few layers; it has its base."""
    with running() as system:
        token = system.user("unlucky")
        assert system.image(create(system, token, "hello"), token=token)["status"] == "ready"
        yield system


@pytest.fixture(scope="module")
def token(system):
    return system.user("unlucky")


def create(system, token, image: str) -> str:
    return system.curl("/api/v1/images", token=token, data=json.dumps({"image": image})).json["id"]


def staging(system) -> list:
    return list((system.state_dir / "artifacts" / "staging").iterdir())


def wait_until(condition, *, timeout: float = 60):
    """Waits for a condition; answers what it answered."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return answer


def test_disk_full_during_conversion(system, token):
    place = system.state_dir / "artifacts" / "staging"
    wait_until(lambda: not list(place.iterdir()))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], check=True)
    try:
        image = system.image(create(system, token, "debian"), token=token)
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", place], check=True)
    assert image["status"] == "failed"
    assert "space" in image["reason"]


def test_worker_killed_in_the_middle_of_a_build(system, token):
    worker = system.service_pid("worker")
    image = create(system, token, "nginx")
    wait_until(lambda: staging(system))
    os.kill(worker, signal.SIGKILL)
    built = system.image(image, token=token)
    assert (built["status"], built["attempt"]) == ("ready", 2)
    named = [each["reference"] for each in system.curl("/api/v1/images", token=token).json["images"]]
    assert named.count("nginx:latest") == 1
    assert staging(system) == []


def test_nats_down(system, token):
    os.kill(system.service_pid("nats"), signal.SIGSTOP)
    try:
        created = system.curl("/api/v1/images", token=token, data='{"image":"hello"}')
        assert created.status == 200
        time.sleep(2)
        assert system.curl(f"/api/v1/images/{created.json['id']}", token=token).json["status"] == "building"
    finally:
        os.kill(system.service_pid("nats"), signal.SIGKILL)
    assert system.image(created.json["id"], token=token)["status"] == "ready"


def test_qemu_killed(system, token):
    system.image(create(system, token, "nginx"), token=token)
    asked = json.dumps({"image": "nginx", "name": "victim", "wait": "listening"})
    machine = system.curl("/api/v1/machines", token=token, data=asked).json
    os.kill(machine["pid"], signal.SIGKILL)

    def ended():
        now = system.curl("/api/v1/machines/victim", token=token).json
        return now if now["status"] != "running" else None

    failed = wait_until(ended, timeout=10)
    assert failed["status"] == "failed"
    assert "signal 9" in failed["reason"] or "SIGKILL" in failed["reason"]
    assert system.curl("/api/v1/machines/victim", "-X", "DELETE", token=token).status == 200
    assert not (system.state_dir / "machines" / machine["id"]).exists()


def test_docker_engine_down(running, tmp_path):
    engine = f"unix://{tmp_path}/no-engine.sock"
    with running(UHM_DOCKER_HOST=engine) as system:
        token = system.user("test")
        image = system.image(create(system, token, "docker-daemon:nginx"), token=token)
        assert image["status"] == "failed"
        assert "no-engine.sock" in image["reason"]
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        line = system.uhm("build", "-t", "mine", str(tmp_path), token=token, check=False)
        assert line.returncode == 1
        assert "no-engine.sock" in line.stderr


def test_services_killed_come_back(system, token):
    machine = system.curl("/api/v1/machines", token=token, data='{"image":"nginx","wait":"listening"}').json
    for name in ("auth", "builder", "machines", "gateway"):
        pid = system.service_pid(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda name=name, pid=pid: system.service_pid(name) not in (0, pid))
    wait_until(lambda: system.curl("/readyz", "--retry", "20", "--retry-connrefused").status == 200)
    again = system.curl(f"/api/v1/machines/{machine['id']}", token=token).json
    assert (again["status"], again["pid"]) == ("running", machine["pid"])
    assert system.curl(f"/api/v1/machines/{machine['id']}?force=true", "-X", "DELETE", token=token).status == 200
