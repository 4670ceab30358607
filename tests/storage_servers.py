"""Real servers of storage locations, each in a temporary directory, on a port that stays the same over restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.servers import free_ports, wait_until
from tools.local_registry.paths import BUILD_TOOLS

USER, PASSWORD = "AKIATEST", "a secret: of s3?"
WORD = "wordpass"
BUCKET = "disks"


class StorageServer:
    """A server that can be killed and started again."""

    kind = ""

    def __init__(self) -> None:
        self.ports = free_ports(8)
        self.port = self.ports[0]
        self.directory = Path(tempfile.mkdtemp(prefix=f"uhm-{self.kind}-"))
        self.process: subprocess.Popen | None = None

    def argv(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def prepare(self) -> None:
        """What must be there before the first start."""

    def start(self) -> None:
        self.prepare()
        log = self.directory / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.argv(),
                env=os.environ | self.environment(),
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,
            )
        wait_until(self.answers, self.process, log)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


class RcloneS3(StorageServer):
    kind = "rclone-s3"

    def argv(self) -> list[str]:
        key = f"{USER},{PASSWORD}"
        return [_venv("rclone"), "serve", "s3", "--addr", self.host, "--auth-key", key, str(self.directory / "data")]

    def environment(self) -> dict[str, str]:
        return {"RCLONE_CONFIG": "/dev/null"}

    def prepare(self) -> None:
        (self.directory / "data" / BUCKET).mkdir(parents=True, exist_ok=True)


class SeaweedS3(StorageServer):
    """`weed server -s3`. It hangs on SIGTERM, so it is always killed."""

    kind = "seaweed"

    def argv(self) -> list[str]:
        identities = self.directory / "s3.json"
        credentials = [{"accessKey": USER, "secretKey": PASSWORD}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "test", "credentials": credentials, "actions": actions}
        identities.write_text(json.dumps({"identities": [identity]}))
        port, master, volume, filer, *grpc = self.ports
        return [
            _venv("weed"),
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self.directory / 'data'}",
            "-s3",
            f"-s3.config={identities}",
            *(
                f"-{name}.port{kind}={number}"
                for kind, numbers in (("", (port, master, volume, filer)), (".grpc", grpc))
                for name, number in zip(("s3", "master", "volume", "filer"), numbers, strict=True)
            ),
            "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.max=50",
        ]

    def environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.directory)}

    def prepare(self) -> None:
        (self.directory / "data").mkdir(exist_ok=True)

    def remove(self) -> None:
        super().remove()
        for number in self.ports:
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket_file.unlink(missing_ok=True)


class RcloneWebDav(StorageServer):
    kind = "webdav"

    def argv(self) -> list[str]:
        (self.directory / "data").mkdir(exist_ok=True)
        user = ["--user", USER, "--pass", WORD]
        return [_venv("rclone"), "serve", "webdav", "--addr", self.host, *user, str(self.directory / "data")]

    def environment(self) -> dict[str, str]:
        return {"RCLONE_CONFIG": "/dev/null"}


class DockerRegistry(StorageServer):
    """Debian's, with a secret that outlives it, as registries that are meant to be resumed have it."""

    kind = "registry"
    secret = "one that stays"

    def argv(self) -> list[str]:
        program = shutil.which("docker-registry", path=f"{BUILD_TOOLS}{os.pathsep}{os.defpath}")
        assert program is not None
        config = Path(__file__).parents[1] / "tools" / "local_registry" / "registry.yml"
        return [program, "serve", str(config)]

    def environment(self) -> dict[str, str]:
        return {
            "REGISTRY_HTTP_ADDR": self.host,
            "REGISTRY_HTTP_SECRET": self.secret,
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(self.directory / "data"),
        }


@contextmanager
def running(server: StorageServer):
    """The server, started, and gone in the end."""
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _venv(program: str) -> str:
    return str(Path(sys.executable).parent / program)
