"""docs/security.md says what is true: its tests exist, no line of the standard lacks, and what is absent is absent."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from uhm_auth.audit import Event
from uhm_auth.models import UserRow
from uhm_auth.settings import AuthSettings
from uhm_auth.throttle import Limits
from uhmalguhm.auth.v1 import auth_pb2

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", DOCUMENT)))

COUNTS = {
    "6.1": 3, "6.2": 12, "6.3": 8, "6.4": 6, "6.5": 8, "6.6": 4, "6.7": 2, "6.8": 4,
    "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 3, "7.6": 2,
    "9.1": 3, "9.2": 4,
}  # fmt: skip
"""How many lines each section of ASVS 5.0.0 has, in the chapters V6, V7 and V9."""


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_the_tests_that_it_names_exist(file, test):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_every_line_of_the_standard_is_there_once():
    rows = re.findall(r"^\| ((?:\d\.\d+\.\d+(?:, )?)+) \|", DOCUMENT, re.MULTILINE)
    lines = [line for row in rows for line in row.split(", ")]
    expected = {f"{section}.{number}" for section, count in COUNTS.items() for number in range(1, count + 1)}
    assert sorted(lines) == sorted(expected)


def test_every_line_that_is_met_names_a_test():
    met = DOCUMENT.partition("### Met")[2].partition("### Applies")[0]
    rows = [row for row in met.splitlines() if re.match(r"\| \d", row)]
    assert len(rows) > 40
    assert [row for row in rows if ".py::test_" not in row] == []


def test_every_event_is_in_the_table():
    table = DOCUMENT.partition("| event | details |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+\.\w+)`", table)) == set(Event)


def test_every_setting_is_one():
    settings = {f"UHM_{name.upper()}" for name in AuthSettings.model_fields} | {"UHM_TRUSTED_PROXIES"}
    named = set(re.findall(r"`(UHM_[A-Z_]+[A-Z])`", DOCUMENT))
    assert named <= settings


def test_the_limits_are_those_of_the_settings():
    limits = AuthSettings().throttle_limits
    assert limits == Limits()
    rows = re.findall(
        r"^\| [\w ]+ \| (\d+) \| `UHM_THROTTLE_\w+` \| (\d+) (min|s) \| (\d+) (min|s)", DOCUMENT, re.MULTILINE
    )
    unit = {"min": 60, "s": 1}
    told = [(int(free), int(leak) * unit[a], int(longest) * unit[b]) for free, leak, a, longest, b in rows]
    buckets = (limits.pair, limits.username, limits.address, limits.everywhere)
    assert told == [(bucket.free, bucket.leak_seconds, bucket.longest_seconds) for bucket in buckets]


def test_the_cluster_asks_for_more():
    """What ASVS 6.2.1 asks for at least."""
    documents = yaml.safe_load_all((ROOT / "deploy/k8s/base/auth.yaml").read_text())
    deployment = next(document for document in documents if document["kind"] in {"Deployment", "StatefulSet"})
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = {each["name"]: each.get("value") for each in container["env"]}
    assert settings["UHM_REGISTRATION"] == "invitation"
    assert (settings["UHM_PASSWORD_MIN_LENGTH"], settings["UHM_PASSWORD_MIN_SCORE"]) == ("12", "3")


def test_the_pages_password_field():
    page = (ROOT / "services/gateway/uhm_gateway/templates/page.html").read_text()
    fields = re.findall(r'<input name="password"[^>]*>', page)
    assert len(fields) == 1
    assert 'type="password"' in fields[0]
    assert 'autocomplete="current-password"' in fields[0]
    assert "onpaste" not in page
    assert "paste" not in (ROOT / "services/gateway/uhm_gateway/static/page.js").read_text()


def test_a_password_has_no_expiry():
    columns = {"id", "username", "password_hash", "role", "created_at", "login_at", "disabled_at", "deleted_at"}
    assert set(UserRow.__table__.columns.keys()) == columns


def test_what_registration_asks_for():
    assert set(auth_pb2.CreateUserRequest.DESCRIPTOR.fields_by_name) == {"username", "password", "invitation"}
    assert set(auth_pb2.ResetPasswordRequest.DESCRIPTOR.fields_by_name) == {"username", "code", "new_password"}
