"""Debian's docker-registry as companies run it: behind TLS of an authority of their own, with passwords or tokens."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import bcrypt
import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.servers import free_ports, wait_until
from tools.local_registry.paths import DIRECTORY
from tools.local_registry.server import CONFIG, _program

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE, ISSUER = "private", "tests"


class Authority:
    """A certificate authority, and a certificate of it for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {uuid.uuid4().hex[:8]}")])
        self.certificate = self._signed(name, name, self.key, is_authority=True)
        own_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        own = self._signed(subject, name, own_key, is_authority=False)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.certificate_file, self.key_file, self.authority_file = (
            directory / n for n in ("own.pem", "key.pem", "ca.pem")
        )
        self.certificate_file.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            own_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        self.authority_file.write_text(self.pem)

    def _signed(self, subject: x509.Name, issuer: x509.Name, key: Any, *, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self.key, hashes.SHA256())
        )


@dataclass
class TokenServer:
    """Gives tokens that docker-registry believes, to those who show a password or an identity token."""

    authority: Authority
    passwords: dict[str, str]
    identity_tokens: dict[str, str]
    asked: list[tuple[str, dict[str, list[str]]]]
    port: int = 0

    @contextmanager
    def serving(self) -> Iterator[TokenServer]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer.asked.append(("GET", query))
                scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
                username, _, password = base64.b64decode(encoded).decode().partition(":") if scheme else ("", "", "")
                self.give(username, query, known=bool(scheme) and outer.passwords.get(username) == password)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                outer.asked.append(("POST", form))
                username = outer.identity_tokens.get(form["refresh_token"][0], "")
                self.give(username, form, known=bool(username) and form["grant_type"] == ["refresh_token"])

            def give(self, username: str, query: dict[str, list[str]], *, known: bool) -> None:
                body = json.dumps({"access_token": outer.token(username, query)} if known else {}).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority.certificate_file, self.authority.key_file)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def token(self, username: str, query: dict[str, list[str]]) -> str:
        """A token for all that is asked of repositories that begin with `library/`."""
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": username,
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 5,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        chain = base64.b64encode(self.authority.certificate.public_bytes(serialization.Encoding.DER)).decode()
        return jwt.encode(claims, self.authority.key, algorithm="RS256", headers={"x5c": [chain]})


@contextmanager
def private_registry(
    directory: Path, authority: Authority, *, passwords: dict[str, str] | None = None, tokens: TokenServer | None = None
) -> Iterator[str]:
    """Serves the local registry's images behind TLS, to those who have a password or a token; answers its host."""
    (port,) = free_ports(1)
    directory.mkdir()
    settings = {
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(authority.certificate_file),
        "REGISTRY_HTTP_TLS_KEY": str(authority.key_file),
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(DIRECTORY / "data"),
    }
    if passwords is not None:
        file = directory / "htpasswd"
        lines = [
            f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for name, word in passwords.items()
        ]
        file.write_text("\n".join(lines))
        settings |= {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "private"}
        settings |= {"REGISTRY_AUTH_HTPASSWD_PATH": str(file)}
    if tokens is not None:
        settings |= {
            "REGISTRY_AUTH": "token",
            "REGISTRY_AUTH_TOKEN_REALM": f"https://127.0.0.1:{tokens.port}/token",
            "REGISTRY_AUTH_TOKEN_SERVICE": SERVICE,
            "REGISTRY_AUTH_TOKEN_ISSUER": ISSUER,
            "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE": str(authority.authority_file),
        }
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_program(), "serve", CONFIG],
            env={"PATH": os.defpath, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    trust = ssl.create_default_context(cadata=authority.pem)

    def answers() -> bool:
        try:
            return httpx.get(f"https://127.0.0.1:{port}/v2/", verify=trust, trust_env=False).status_code in (200, 401)
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, process, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
