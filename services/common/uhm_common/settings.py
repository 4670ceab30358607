"""What every service is told from outside, read once from `UHM_*` in the environment, validated and frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

from uhm_common.tls import ClientTls, ServerTls

__all__ = ["Address", "CommonSettings", "database_url"]


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        message = f"{value!r} is not HOST:PORT"
        raise ValueError(message)
    return value


Address = Annotated[str, AfterValidator(_address)]


class CommonSettings(BaseSettings):
    """Settings that all services share; each derives its own."""

    model_config = SettingsConfigDict(env_prefix="UHM_", frozen=True, extra="ignore")

    state_dir: Path = Field(default=Path("/var/lib/uhmalguhm"), description="Everything that is kept is below it.")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    nats_url: str = Field(default="nats://127.0.0.1:4222", repr=False)
    database_url: str = Field(default="", description="Empty: SQLite in the state directory.", repr=False)
    auth_address: Address = "127.0.0.1:50061"
    builder_address: Address = "127.0.0.1:50062"
    machines_address: Address = "127.0.0.1:50063"
    key_file: Path | None = Field(
        default=None,
        description="The service's key of 32 bytes, which its replicas share: it encrypts what is secret in the"
        " database, and signs page tokens. By default one below keys/ in the state directory, made at the first start.",
    )
    tls_certificate: Path | None = Field(default=None, description="PEM; with tls_key: what listens speaks TLS only.")
    tls_key: Path | None = None
    tls_client_ca: Path | None = Field(
        default=None, description="PEM; set, clients must show a certificate that one of these authorities signed."
    )
    services_ca: Path | None = Field(
        default=None, description="PEM; set, other services are called over TLS, and must be signed by these."
    )
    services_certificate: Path | None = Field(
        default=None, description="PEM; with services_key: what is shown to services that ask who calls."
    )
    services_key: Path | None = None
    token_issuer: str = "uhmalguhm"
    token_audience: str = "uhmalguhm"
    token_leeway_seconds: float = Field(
        default=5, ge=0, le=60, description="How far the clocks of services may be apart when tokens are checked."
    )

    def key_path(self, service: str) -> Path:
        """Where the key of a service is, or will be."""
        return self.key_file or self.state_dir / "keys" / f"{service}.key"

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) is not (self.tls_key is None):
            raise ValueError("UHM_TLS_CERTIFICATE and UHM_TLS_KEY go together")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("UHM_TLS_CLIENT_CA needs UHM_TLS_CERTIFICATE and UHM_TLS_KEY")
        if (self.services_certificate is None) is not (self.services_key is None):
            raise ValueError("UHM_SERVICES_CERTIFICATE and UHM_SERVICES_KEY go together")
        if self.services_certificate and not self.services_ca:
            raise ValueError("UHM_SERVICES_CERTIFICATE needs UHM_SERVICES_CA")
        return self

    @property
    def server_tls(self) -> ServerTls | None:
        """What this process listens with; None: in the clear."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return ServerTls(certificate=self.tls_certificate, key=self.tls_key, client_ca=self.tls_client_ca)

    @property
    def services_tls(self) -> ClientTls | None:
        """What other services are called with; None: in the clear."""
        if self.services_ca is None:
            return None
        return ClientTls(ca=self.services_ca, certificate=self.services_certificate, key=self.services_key)

    @property
    def artifacts_dir(self) -> Path:
        """Layers, bases and disks, which the builder writes and the machines service reads."""
        return self.state_dir / "artifacts"


def database_url(settings: CommonSettings, *, service: str) -> str:
    """The SQLAlchemy address of a service's database: the one set, with its asyncio driver, or a SQLite file.

    Services may share one database: their tables have different names.
    """
    url = settings.database_url
    if not url:
        file = str(settings.state_dir / f"{service}.db")
        return URL.create("sqlite+aiosqlite", database=file).render_as_string(hide_password=False)
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+asyncpg://" + url.removeprefix(scheme)
    return url
