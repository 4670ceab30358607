"""An image as a disk that boots by itself, as its users get it: command line, REST and gRPC."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time

import grpc
import pytest

from tests.e2e.harness import fetch
from tests.servers import free_ports
from uhmalguhm.builder.v1 import image_pb2, image_pb2_grpc

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def token(system):
    token = system.user("shipper")
    system.uhm("pull", "nginx", token=token)
    return token


@pytest.fixture(scope="module")
def others(system):
    """What is staged for something else: an appliance that is kept warm has the links to its disk there."""
    return set(listed(system))


def listed(system) -> list[str]:
    return [path.name for path in (system.state_dir / "artifacts" / "staging").iterdir()]


def staged(system, others) -> list[str]:
    return [name for name in listed(system) if name not in others]


def wait_until_nothing_is_staged(system, others) -> None:
    deadline = time.monotonic() + 20
    while left := staged(system, others):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_all_ways_give_the_same_disk_and_it_serves_the_page(system, token, others, tmp_path):
    disk = tmp_path / "nginx.qcow2"
    told = json.loads(system.uhm("export", "nginx", "-o", str(disk), "--json", token=token).stdout)
    by_curl = tmp_path / "by-curl"
    headers = tmp_path / "headers"
    system.curl("/api/v1/images/nginx:export", "-o", str(by_curl), "-D", str(headers), token=token, data="{}")
    with system.channel() as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        request = image_pb2.ExportImageRequest(id="nginx")
        call = stub.ExportImage(request, metadata=[("authorization", f"Bearer {token}")])
        metadata = dict(call.initial_metadata())
        by_grpc = hashlib.sha256()
        for answer in call:
            by_grpc.update(answer.body.data)

    digest = f"sha256:{hashlib.sha256(disk.read_bytes()).hexdigest()}"
    assert told["digest"] == digest == f"sha256:{by_grpc.hexdigest()}" == metadata["uhm-digest"]
    assert [phase["name"] for phase in told["phases"]] == ["compose", "convert", "digest", "transfer"]
    assert by_curl.read_bytes() == disk.read_bytes()
    assert f"grpc-metadata-uhm-digest: {digest}" in headers.read_text().lower()
    assert "grpc-metadata-uhm-filename: nginx.qcow2" in headers.read_text().lower()
    wait_until_nothing_is_staged(system, others)
    (port,) = free_ports(1)
    argv = ["qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-accel", "tcg", "-m", "512", "-nodefaults"]
    argv += ["-display", "none", "-drive", f"file={disk},format=qcow2,if=virtio"]
    argv += ["-nic", f"user,hostfwd=tcp:127.0.0.1:{port}-:80"]
    with subprocess.Popen(argv) as qemu:
        try:
            assert "as a virtual machine" in fetch(f"http://127.0.0.1:{port}/", timeout=120)
        finally:
            qemu.kill()


@pytest.mark.parametrize(
    ("image", "wish", "status", "sentence"),
    [
        ("nginx", {"format": "iso"}, 400, "'iso' is no format of a disk. Choose one of qcow2,"),
        ("nginx", {"format": "vdi", "compression": "zstd"}, 400, "cannot be compressed with zstd"),
        ("nginx", {"size_bytes": 1}, 400, "is too small: the image needs"),
        ("absent", {}, 404, "There is no image 'absent'"),
    ],
)
def test_what_cannot_be_exported_is_told_with_a_status(system, token, others, image, wish, status, sentence):
    answer = system.curl(f"/api/v1/images/{image}:export", token=token, data=json.dumps(wish))
    assert (answer.status, sentence in answer.json["message"]) == (status, True), answer.text
    assert staged(system, others) == []


def test_nothing_stays_of_what_a_client_does_not_wait_for(system, token, others):
    with system.channel() as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        request = image_pb2.ExportImageRequest(id="nginx", format="raw")
        call = stub.ExportImage(request, metadata=[("authorization", f"Bearer {token}")])
        assert next(call).body.data
        assert staged(system, others)
        call.cancel()
        wait_until_nothing_is_staged(system, others)
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.ExportImage(request, timeout=0.05, metadata=[("authorization", f"Bearer {token}")]))
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until_nothing_is_staged(system, others)
