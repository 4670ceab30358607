"""`uhm registry`: what it asks the server, and where passwords come from."""

from __future__ import annotations

import io

import pytest

from tests.unit.cli.conftest import Refusal

REGISTRY = {"host": "reg.example:5000", "username": "me", "create_time": "2026-11-01T00:00:00Z"}


def test_login_reads_the_password_from_standard_input(server, uhm, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    server.answers["POST /api/v1/registries"] = REGISTRY
    done = uhm("registry", "login", "reg.example:5000", "-u", "me", "--password-stdin")

    assert (done.code, done.out) == (0, "Logged in to reg.example:5000.\n")
    asked = server.asked("POST /api/v1/registries")[0]
    assert asked.json == {"host": "reg.example:5000", "ca_certificate": "", "username": "me", "password": "secret"}
    assert uhm("registry", "login", "-u", "me", "-p", "x", "--json").json == REGISTRY
    assert server.requests[-1].json["host"] == "docker.io"


def test_login_with_a_token_or_an_authority_alone(server, uhm, tmp_path):
    server.answers["POST /api/v1/registries"] = REGISTRY
    certificate = tmp_path / "ca.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----")

    assert uhm("registry", "login", "r.example", "--identity-token", "-p", "t", "--skip-test").code == 0
    assert server.requests[-1].json["identity_token"] == "t"
    assert uhm("registry", "login", "r.example", "--ca", str(certificate)).code == 0
    assert server.requests[-1].json == {"host": "r.example", "ca_certificate": "-----BEGIN CERTIFICATE-----"}


@pytest.mark.parametrize(
    "arguments", [("r.example",), ("r.example", "-u", "me"), ("r.example", "-u", "me", "-p", "x", "--password-stdin")]
)
def test_a_login_that_lacks_something_is_wrong_usage(server, uhm, monkeypatch, arguments):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert uhm("registry", "login", *arguments).code == 2
    assert server.requests == []


def test_a_refusal_is_told(server, uhm):
    server.answers["POST /api/v1/registries"] = Refusal(403, 7, "The registry wants other credentials.")
    done = uhm("registry", "login", "r.example", "-u", "me", "-p", "x")

    assert (done.code, done.err) == (1, "uhm: The registry wants other credentials.\n")


def test_ls_and_logout(server, uhm):
    server.answers |= {
        "GET /api/v1/registries": {"registries": [REGISTRY]},
        "DELETE /api/v1/registries/reg.example%3A5000": {},
    }

    assert uhm("registry", "ls").out.splitlines()[1].split()[:3] == ["reg.example:5000", "me", "-"]
    assert uhm("registry", "ls", "--json").json == {"registries": [REGISTRY]}
    assert uhm("registry", "logout", "reg.example:5000").out == "Logged out of reg.example:5000.\n"
