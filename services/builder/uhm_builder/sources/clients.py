"""Opens a client of registries for each build: what the operator has set, and what the build's owner has added."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.sources.registry import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from uhm_builder.hosts import HostRules
    from uhm_builder.sources.challenge import Credentials
    from uhm_builder.sources.registry import Account

__all__ = ["RegistryClients"]


class RegistryClients:
    """Holds what is the same for all builds, and nothing that a build has learnt."""

    def __init__(self, *, mirrors: Mapping[str, str], credentials: Mapping[str, Credentials], rules: HostRules) -> None:
        self._open = partial(RegistryClient, mirrors=mirrors, credentials=credentials, rules=rules)

    def open(self, account: Callable[[str], Awaitable[Account | None]]) -> RegistryClient:
        """A client for a user, whose own registries `account` answers. The caller closes it."""
        return self._open(account=account)

    async def log_in(self, registry: str, account: Account) -> None:
        """Shows credentials to a registry. Raises RegistryDenied, RegistryUnreachable, NotInRegistry, HostDenied."""

        async def answer(_registry: str) -> Account:
            return account

        client = self._open(account=answer)
        try:
            await client.log_in(registry)
        finally:
            await client.close()
