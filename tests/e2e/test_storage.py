"""Storage locations, publications and registries over REST, as curl has them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HOME = {"name": "home", "directory": {"path": "disks"}}
REGISTRY = {"host": "registry.example.com:5000", "username": "robot", "password": "hush-hush"}


@pytest.fixture
def call(system):
    """Calls REST as a user: `call(token, "METHOD /path", body)` answers JSON, and wants a status."""

    def call(token, line, body=None, *, status=200):
        method, path = line.split(" ", 1)
        data = None if body is None else json.dumps(body)
        answer = system.curl(f"/api/v1/{path}", "-X", method, token=token, data=data)
        assert answer.status == status, answer.text
        return answer.json

    return call


def test_an_image_is_published_to_a_location_and_pulled_from_it(system, call):
    token = system.user("publisher")
    system.uhm("pull", "hello", token=token)

    added = call(token, "POST storage", HOME)
    assert (added["name"], added["directory"]["path"].endswith("/publisher/disks")) == ("home", True)
    assert call(token, "GET storage/home") == added
    assert call(token, "GET storage")["storage"] == [added]
    assert call(token, "POST storage/home:test", {}) == {}

    publication = call(token, "POST images/hello:publish", {"storage": "home", "format": "qcow2"})
    watched = system.curl(f"/api/v1/publications/{publication['id']}:watch", token=token)
    seen = [json.loads(line)["result"]["publication"] for line in watched.text.splitlines()]
    assert [each["id"] for each in seen] == [publication["id"]] * len(seen)
    assert (seen[-1]["status"], seen[-1]["done_bytes"]) == ("published", seen[-1]["total_bytes"]), seen[-1]
    assert call(token, f"GET publications/{publication['id']}") == seen[-1]
    assert call(token, f"POST publications/{publication['id']}:cancel", {}) == seen[-1]
    assert [each["id"] for each in call(token, "GET publications")["publications"]] == [publication["id"]]

    (image,) = call(token, "GET storage/home/images")["images"]
    assert image["reference"] == "hello:latest"
    large = [each for each in image["objects"] if each["kind"] != "manifest"]
    assert [each["kind"] for each in large].count("disk") == 1 < len(large) < len(image["objects"])
    for each in large:
        content = (Path(added["directory"]["path"]) / each["name"]).read_bytes()
        found = (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
        assert found == (int(each["size_bytes"]), each["digest"])

    pulled = system.image(call(token, "POST images", {"image": "storage:home/hello"})["id"], token=token)
    assert pulled["status"] == "ready", pulled
    assert system.uhm("run", "--rm", pulled["id"], "again", token=token).stdout == "hello, again\n"

    assert call(token, "DELETE storage/home") == {}
    assert call(token, "GET storage")["storage"] == []
    assert "no storage location 'home'" in call(token, "GET storage/home", status=404)["message"]


@pytest.mark.parametrize(
    ("line", "body", "sentence"),
    [
        ("POST storage", HOME | {"name": "My Disks"}, "'My Disks' is not a name for a storage location."),
        ("POST storage", {"name": "home", "directory": {"path": "/etc"}}, "'/etc' is not below a directory that"),
        ("POST storage", {"name": "home"}, "where it is"),
        ("POST storage", {"name": "home", "directory": {"paht": "x"}}, "paht"),
        ("POST registries", REGISTRY | {"host": "a b"}, "'a b' is not the host of a registry."),
        ("POST registries", REGISTRY | {"password": ""}, "A user name and a password go together."),
    ],
)
def test_wrong_input_is_told_in_a_sentence(system, call, line, body, sentence):
    token = system.user("mistaken")
    answer = call(token, line, body, status=400)
    assert (sentence in answer["message"], "hush" in json.dumps(answer)) == (True, False), answer
    assert call(token, "GET storage")["storage"] == call(token, "GET registries")["registries"] == []


def test_what_is_another_users_does_not_exist(system, call):
    owner, other = system.user("owner"), system.user("other")
    call(owner, "POST storage", HOME)
    call(owner, "POST registries?skip_test=true", REGISTRY)

    for line in ("GET storage/home", "DELETE storage/home", "GET storage/home/images"):
        call(other, line, status=404)
    call(other, "POST storage/home:test", {}, status=404)
    call(other, "POST images", {"image": "storage:home/hello", "publish": ["home"]}, status=404)
    for method in ("GET", "DELETE"):
        call(other, f"{method} registries/{REGISTRY['host']}", status=404)
    assert call(other, "GET storage")["storage"] == call(other, "GET registries")["registries"] == []

    assert call(owner, "POST storage", HOME, status=409)
    call(owner, "DELETE storage/home")
    call(owner, f"DELETE registries/{REGISTRY['host']}")


def test_a_registrys_password_is_never_answered(system, call):
    token = system.user("registrant")
    added = call(token, "POST registries?skip_test=true", REGISTRY)
    got = call(token, f"GET registries/{REGISTRY['host']}")
    (listed,) = call(token, "GET registries")["registries"]

    assert added == got == listed
    assert (got["host"], got["username"]) == (REGISTRY["host"], REGISTRY["username"])
    assert REGISTRY["password"] not in json.dumps([added, got, listed])

    assert call(token, f"DELETE registries/{REGISTRY['host']}") == {}
    assert call(token, "GET registries")["registries"] == []
    assert "registry.example.com:5000" in call(token, f"GET registries/{REGISTRY['host']}", status=404)["message"]
