"""What every service is told from outside, read once from `UHM_*` in the environment, validated and frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

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
    token_issuer: str = "uhmalguhm"
    token_audience: str = "uhmalguhm"

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
