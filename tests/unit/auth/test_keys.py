"""The keys that sign: made, published before they do, retired, sealed."""

from __future__ import annotations

import asyncio

import jwt
import pytest

from uhm_auth.errors import SigningKeyUnusable
from uhm_auth.keys import SigningKeys, thumbprint
from uhm_auth.stores.signing_keys import SigningKeyStore
from uhm_common.vault import Vault

DAY = 86400


def kids(published) -> list[str]:
    return [jwk["kid"] for jwk in published]


async def rotate(keys) -> str:
    return await keys.rotate(actor="ann", reason="command")


def test_the_thumbprint_of_the_specification():
    """RFC 8037, appendix A.3."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint({**jwk, "use": "sig"}) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


async def test_replicas_that_start_at_once_agree(make_keys):
    replicas = [make_keys() for _ in range(5)]
    await asyncio.gather(*(replica.open() for replica in replicas))

    assert len({replica.signing.id for replica in replicas}) == 1
    assert len(await replicas[0].published()) == 2


async def test_keys_survive_a_restart(make_keys, keys):
    again = make_keys()
    await again.open()
    assert again.signing.id == keys.signing.id
    assert await again.published() == await keys.published()


async def test_what_is_shown_verifies_and_has_nothing_private(keys):
    jwk, following = await keys.published()
    assert set(jwk) == set(following) == {"kty", "crv", "x", "kid", "alg", "use"}
    token = jwt.encode({"sub": "ann"}, keys.signing.private, algorithm="EdDSA")
    assert jwt.decode(token, jwt.PyJWK(jwk), algorithms=["EdDSA"]) == {"sub": "ann"}
    assert await keys.verifying.key(jwk["kid"]) is not None
    assert "private" not in repr(keys.signing)


async def test_a_key_is_published_before_it_signs_and_after(keys, logged):
    first, following = kids(await keys.published())

    assert await rotate(keys) == following

    signing, after, retired = kids(await keys.published())
    assert (signing, retired) == (following, first)
    assert after not in (first, following)
    assert keys.signing.id == following
    assert await logged() == [("keys.rotated", "ann")]


async def test_a_retired_key_verifies_until_what_it_signed_has_expired(keys, clock):
    first = keys.signing.id
    await rotate(keys)

    clock.ahead = DAY
    assert first in kids(await keys.published())
    assert await keys.forget_expired() == 0

    clock.ahead = DAY + 120
    assert first not in kids(await keys.published())
    assert await keys.forget_expired() == 1
    assert len(await keys.published()) == 2


async def test_a_retired_key_signs_nothing_for_anybody(database, keys, clock):
    first = keys.signing.id
    await rotate(keys)
    stored = {key.id: key for key in await SigningKeyStore(database).all(now=int(clock()))}
    assert stored[first].sealed is None
    assert all(key.sealed for key in stored.values() if key.id != first)


async def test_a_replica_notices_a_rotation(make_keys, keys):
    other = make_keys()
    await other.open()
    following = await rotate(keys)

    assert await other.verifying.key(following) is not None
    assert following in kids(await other.published())
    assert other.signing.id == following


async def test_a_replica_waits_for_a_key_that_it_does_not_know(make_keys, keys):
    """Two rotations: what signs now was not even made when the replica read the keys."""
    other = make_keys()
    await other.open()
    await rotate(keys)
    newest = await rotate(keys)

    assert await other.verifying.key(newest) is not None


async def test_rotations_at_once_come_one_after_the_other(make_keys, keys):
    replicas = [make_keys() for _ in range(3)]
    for replica in replicas:
        await replica.open()

    signed = await asyncio.gather(*(rotate(replica) for replica in replicas))

    assert len(set(signed)) == 3
    assert len(await keys.published()) == 5


async def test_of_replicas_that_find_it_is_time_one_rotates(make_keys, keys):
    replicas = [make_keys() for _ in range(3)]
    for replica in replicas:
        await replica.open()
    first = keys.signing.id

    signed = await asyncio.gather(
        *(replica.rotate(actor="", reason="schedule", replacing=first) for replica in replicas)
    )

    assert len(set(signed)) == 1
    assert len(await keys.published()) == 3


@pytest.mark.parametrize(("signing_seconds", "ahead", "rotates"), [(100, 101, True), (100, 50, False), (0, DAY, False)])
async def test_the_schedule(make_keys, clock, logged, signing_seconds, ahead, rotates):
    keys = make_keys(signing_seconds=signing_seconds)
    await keys.open()
    first, following = kids(await keys.published())
    clock.ahead = ahead

    await keys.tend()

    assert keys.signing.id == (following if rotates else first)
    assert await logged() == ([("keys.rotated", "")] if rotates else [])


async def test_private_keys_are_nowhere_in_the_database(database, keys, tmp_path):
    """Also not in the journals of a database that was just written to."""
    secrets = [keys.signing.private.private_bytes_raw()]
    await rotate(keys)
    secrets.append(keys.signing.private.private_bytes_raw())
    await database.close()

    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.name.startswith("auth.db"))

    assert keys.signing.id.encode() in raw
    for secret in secrets:
        assert secret not in raw
        assert secret.hex().encode() not in raw


async def test_another_vault_does_not_open_them(database, keys, clock):
    other = SigningKeys(SigningKeyStore(database), Vault(b"x" * 32), signing_seconds=0, token_seconds=DAY, clock=clock)
    with pytest.raises(SigningKeyUnusable, match="UHM_KEY_FILE"):
        await other.open()


async def test_nothing_signs_before_the_keys_were_read(make_keys):
    with pytest.raises(SigningKeyUnusable):
        _ = make_keys().signing
