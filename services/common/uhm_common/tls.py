"""TLS by configuration: who this process says it is, and whom it believes. PEM files, read once, at the start.

Without files everything is in the clear, as on one machine's loopback. With a certificate a server speaks TLS only;
with authorities for its clients it asks them for certificates too, and refuses those without (mTLS).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from uhm_common.errors import UhmError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ClientTls", "ServerTls", "open_channel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a server shows, and which authorities its clients' certificates must come from; None: clients need none."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For a server of HTTP/1.1. Raises UhmError where a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        _load_chain(context, self.certificate, self.key)
        if self.client_ca is not None:
            _load_authorities(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server. Raises UhmError where a file cannot be used: grpc itself would not say why."""
        self.context()
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """The authorities of the servers that are called, and what is shown to those that ask who calls."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. Raises UhmError where a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, self.ca)
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(root_certificates=self.ca.read_bytes())
        _load_chain(context, self.certificate, self.key)
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.read_bytes(),
            private_key=self.key.read_bytes(),
            certificate_chain=self.certificate.read_bytes(),
        )


def open_channel(
    address: str, *, tls: ClientTls | None, options: Sequence[tuple[str, Any]] | None = None
) -> grpc.aio.Channel:
    """A channel to HOST:PORT, in the clear where `tls` is None. Raises UhmError where a file cannot be used."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, tls.credentials(), options=options)


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise UhmError(f"The certificate {certificate} with the key {key} cannot be used: {_why(error)}.") from error


def _load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise UhmError(f"The authorities in {ca} cannot be used: {_why(error)}.") from error


def _why(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or "it is not PEM"
