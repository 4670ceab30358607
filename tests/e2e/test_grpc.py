"""gRPC by reflection, as grpcurl would: `buf curl` lists, registers, logs in, builds and watches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BUF = Path(sys.executable).parent / "buf"


@pytest.fixture(scope="module")
def buf_curl(system):
    def call(*arguments: str, data: dict | None = None, token: str = "") -> str:
        argv = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments[:-1]]
        argv += ["--data", json.dumps(data)] if data is not None else []
        argv += ["--header", f"Authorization: Bearer {token}"] if token else []
        url = f"http://127.0.0.1:{system.grpc_port}{arguments[-1]}"
        return subprocess.run([*argv, url], capture_output=True, text=True, check=True, timeout=120).stdout

    return call


def test_reflection_lists_the_services(buf_curl):
    listed = buf_curl("--list-services", "").split()
    assert {
        "grpc.health.v1.Health",
        "uhmalguhm.auth.v1.AuthService",
        "uhmalguhm.builder.v1.ImageService",
        "uhmalguhm.machines.v1.MachineService",
    } <= set(listed)


def test_health(buf_curl):
    assert json.loads(buf_curl("/grpc.health.v1.Health/Check", data={}))["status"] == "SERVING"


def test_register_log_in_build_and_watch(buf_curl):
    credentials = {"username": "curler", "password": "test"}
    assert json.loads(buf_curl("/uhmalguhm.auth.v1.AuthService/CreateUser", data=credentials))["status"] == "registered"
    token = json.loads(buf_curl("/uhmalguhm.auth.v1.AuthService/IssueToken", data=credentials))["accessToken"]
    image = json.loads(buf_curl("/uhmalguhm.builder.v1.ImageService/CreateImage", data={"image": "hello"}, token=token))
    assert image["status"] == "building"
    watched = buf_curl("/uhmalguhm.builder.v1.ImageService/WatchImage", data={"id": image["id"]}, token=token)
    assert '"status": "ready"' in watched.replace('":"', '": "')
