"""The keys that sign."""

from __future__ import annotations

import subprocess
import sys

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from uhm_auth.errors import SigningKeyUnusable
from uhm_auth.keys import SigningKey, load_keys, thumbprint

LOAD = """
import sys
from pathlib import Path
from uhm_auth.keys import load_keys
print(load_keys(Path(sys.argv[1]), generate=True).signing.key_id)
"""


def pem(private, *, passphrase: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def test_the_thumbprint_of_the_specification():
    """RFC 8037, appendix A.3."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint({**jwk, "use": "sig"}) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


async def test_a_key_is_made_once_and_is_private(tmp_path):
    path = tmp_path / "auth" / "keys" / "signing.pem"

    first, second = (load_keys(path, generate=True) for _ in range(2))

    assert first.signing.key_id == second.signing.key_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["signing.pem"]


def test_processes_that_start_at_once_agree_on_the_key(tmp_path):
    argv = [sys.executable, "-c", LOAD, str(tmp_path / "keys" / "signing.pem")]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(4)]
    ids = {child.communicate(timeout=60)[0].strip().splitlines()[-1] for child in children}

    assert len(ids) == 1
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["signing.pem"]


async def test_what_is_shown_verifies_and_has_nothing_private(tmp_path):
    keys = load_keys(tmp_path / "signing.pem", generate=True)
    (jwk,) = keys.public()
    assert set(jwk) == {"kty", "crv", "x", "kid", "alg", "use"}
    token = jwt.encode({"sub": "ann"}, keys.signing.private, algorithm="EdDSA")
    assert jwt.decode(token, jwt.PyJWK(jwk), algorithms=["EdDSA"]) == {"sub": "ann"}
    assert await keys.key(jwk["kid"]) is not None
    assert await keys.key("unknown") is None


async def test_a_retired_key_goes_on_verifying(tmp_path):
    old = load_keys(tmp_path / "signing.pem", generate=True).signing
    (tmp_path / "signing.pem").rename(tmp_path / "2026.pem")

    keys = load_keys(tmp_path / "signing.pem", generate=True)

    assert keys.signing.key_id != old.key_id
    assert await keys.key(old.key_id) is not None
    assert [jwk["kid"] for jwk in keys.public()] == [keys.signing.key_id, old.key_id]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a private key in PEM form"),
        (b"nonsense", "is not a private key in PEM form"),
        (pem(Ed25519PrivateKey.generate(), passphrase=b"secret"), "without a passphrase"),
        (pem(generate_private_key(SECP256R1())), "is not an Ed25519 key"),
    ],
    ids=["empty", "nonsense", "encrypted", "another kind"],
)
def test_files_that_hold_no_such_key(tmp_path, content, message):
    (tmp_path / "signing.pem").write_bytes(content)
    with pytest.raises(SigningKeyUnusable, match=message):
        load_keys(tmp_path / "signing.pem", generate=True)


def test_a_key_that_was_named_is_not_made(tmp_path):
    with pytest.raises(SigningKeyUnusable, match="No such file"):
        load_keys(tmp_path / "signing.pem", generate=False)
    assert list(tmp_path.iterdir()) == []


def test_the_private_half_is_not_shown():
    assert "private" not in repr(SigningKey.of(Ed25519PrivateKey.generate()))
