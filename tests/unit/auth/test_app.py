"""What the wiring alone can get wrong."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import OperationalError

from uhm_auth import app as app_module
from uhm_auth.settings import AuthSettings
from uhm_auth.stores.signing_keys import SigningKeyStore


async def test_forgetting_goes_on_when_the_database_was_away(tmp_path, monkeypatch):
    asked, again = [], asyncio.Event()

    async def away_at_first(_self, *, now):
        asked.append(now)
        if len(asked) == 1:
            raise OperationalError("DELETE", {}, Exception("away"))
        again.set()
        return 0

    monkeypatch.setattr(SigningKeyStore, "delete_expired", away_at_first)
    monkeypatch.setattr(app_module, "FORGET_EVERY_SECONDS", 0.01)
    async with app_module.make_server(AuthSettings(state_dir=tmp_path, bcrypt_cost=4)) as server:
        forget = server.background[-1]
        task = asyncio.create_task(forget())
        async with asyncio.timeout(30):
            await again.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
