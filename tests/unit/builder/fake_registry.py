"""A registry in the test's own process that misbehaves as told: distribution specification 1.1, over plain sockets."""
# ruff: noqa: PLR0911 - one return for each way to misbehave

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from dataclasses import dataclass, field

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FakeRegistry:
    """Content by path; `fail` holds answers to give first, for a path: a status, or bytes after which to hang up."""

    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    fail: dict[str, list[int | str]] = field(default_factory=dict)
    redirect: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    challenge: str = ""
    token: str = ""
    basic: str = ""
    requests: list[Request] = field(default_factory=list)
    server: asyncio.Server | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    def put_blob(self, name: str, content: bytes) -> dict:
        self.content[f"/v2/{name}/blobs/{digest_of(content)}"] = ("application/octet-stream", content)
        return {"digest": digest_of(content), "size": len(content)}

    def put_manifest(self, name: str, tag: str, record: dict, media_type: str = OCI_MANIFEST) -> dict:
        body = json.dumps(record).encode()
        for target in (tag, digest_of(body)):
            self.content[f"/v2/{name}/manifests/{target}"] = (media_type, body)
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}

    def put_image(self, name: str, tag: str, layers: list[tuple[bytes, bytes]], **config) -> dict:
        """An image of (compressed, uncompressed) layers."""
        document = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for _, tar in layers]},
            **config,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, **self.put_blob(name, json.dumps(document).encode())},
            "layers": [{"mediaType": OCI_LAYER, **self.put_blob(name, blob)} for blob, _ in layers],
        }
        return self.put_manifest(name, tag, manifest)

    async def serve(self, reader, writer):
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ", 2)
                headers = {}
                while header := (await reader.readline()).decode().strip():
                    key, _, value = header.partition(":")
                    headers[key.lower()] = value.strip()
                request = Request(method, path, headers)
                self.requests.append(request)
                if not await self.answer(request, writer):
                    break
        finally:
            writer.close()

    async def answer(self, request: Request, writer) -> bool:
        """Answers; False where the connection is to be closed."""
        path = request.path.partition("?")[0]
        if path == "/token":
            return await self.give_token(request, writer)
        authorization = request.headers.get("authorization", "")
        if self.challenge and authorization not in {f"Bearer {self.token}", self.basic} - {""}:
            return await self.send(writer, 401, b"", {"WWW-Authenticate": self.challenge})
        if path in self.redirect:
            return await self.send(writer, 307, b"", {"Location": self.redirect[path]})
        failure = self.fail[path].pop(0) if self.fail.get(path) else None
        if isinstance(failure, int) and failure >= 400:
            return await self.send(writer, failure, b"")
        if path not in self.content:
            return await self.send(writer, 404, b"{}")
        media_type, body = self.content[path]
        status = 200
        if self.ranges and (wanted := request.headers.get("range")):
            body, status = body[int(wanted.removeprefix("bytes=").rstrip("-")) :], 206
        headers = {"Content-Type": media_type}
        if isinstance(failure, str):  # so many bytes, then nothing more
            await self.send(writer, status, body, headers, cut=int(failure))
            return False
        return await self.send(writer, status, body, headers)

    async def give_token(self, request: Request, writer) -> bool:
        if self.basic and request.headers.get("authorization") != self.basic:
            return await self.send(writer, 401, b"")
        return await self.send(writer, 200, json.dumps({"token": self.token, "expires_in": 300}).encode())

    async def send(self, writer, status: int, body: bytes, headers: dict | None = None, cut: int | None = None) -> bool:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (body if cut is None else body[:cut]))
        await writer.drain()
        return True


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
