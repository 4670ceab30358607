"""docs/security.md says what is true: its tests exist, no line of the standard lacks, and what is absent is absent."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from uhm_auth.audit import Event
from uhm_auth.models import UserRow
from uhm_auth.policy import OUR_NAMES
from uhm_auth.settings import AuthSettings
from uhm_auth.throttle import Limits
from uhm_builder.settings import BuilderSettings
from uhm_common.callers.access import access_of
from uhm_gateway.settings import GatewaySettings
from uhmalguhm.auth.v1 import api_key_pb2, audit_pb2, auth_pb2, user_pb2, verification_pb2
from uhmalguhm.builder.v1 import image_pb2, registry_pb2, storage_pb2
from uhmalguhm.machines.v1 import machine_pb2

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", DOCUMENT)))

LEVELS = {
    "6.1": "122", "6.2": "111111112222", "6.3": "11223333", "6.4": "112233", "6.5": "22222333", "6.6": "2223",
    "6.7": "33", "6.8": "2222",
    "7.1": "222", "7.2": "1111", "7.3": "22", "7.4": "11222", "7.5": "223", "7.6": "22",
    "9.1": "111", "9.2": "1222",
}  # fmt: skip
"""The level of each line of each section of ASVS 5.0.0 as released, in the chapters V6, V7 and V9."""
LINES = {f"{section}.{at}": level for section, levels in LEVELS.items() for at, level in enumerate(levels, start=1)}
FILES = (
    *(api_key_pb2, audit_pb2, auth_pb2, user_pb2, verification_pb2),
    *(image_pb2, registry_pb2, storage_pb2),
    machine_pb2,
)
SERVICES = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_the_tests_that_it_names_exist(file, test):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_the_standard_has_as_many_lines_as_it_has():
    """So many are in the release of 30 May 2025, in each chapter."""
    assert Counter(line[0] for line in LINES) == {"6": 47, "7": 19, "9": 7}


def test_every_line_of_the_standard_is_there_once():
    rows = re.findall(r"^\| ((?:\d\.\d+\.\d+(?:, )?)+) \|", DOCUMENT, re.MULTILINE)
    assert sorted(line for row in rows for line in row.split(", ")) == sorted(LINES)


def test_every_line_has_its_level():
    told = dict(re.findall(r"^\| (\d\.\d+\.\d+) \| (\d) \|", DOCUMENT, re.MULTILINE))
    assert len(told) > 50
    assert told == {line: LINES[line] for line in told}


def test_what_is_not_met_of_each_level():
    """As the sentence before the tables says."""
    missing = DOCUMENT.partition("### Applies")[2].partition("### Does not")[0]
    lines = re.findall(r"^\| (\d\.\d+\.\d+) \|", missing, re.MULTILINE)
    assert {line for line in lines if LINES[line] != "3"} == {"6.3.3", "7.5.2"}


def test_every_line_that_is_met_names_a_test():
    met = DOCUMENT.partition("### Met")[2].partition("### Applies")[0]
    rows = [row for row in met.splitlines() if re.match(r"\| \d", row)]
    assert len(rows) > 40
    assert [row for row in rows if ".py::test_" not in row] == []


def test_every_event_is_in_the_table():
    table = DOCUMENT.partition("| event | details |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+\.\w+)`", table)) == set(Event)


def test_every_setting_is_one():
    models = (AuthSettings, BuilderSettings, GatewaySettings)
    settings = {f"UHM_{name.upper()}" for model in models for name in model.model_fields}
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


def test_the_words_of_the_context_are_listed():
    passwords = DOCUMENT.partition("## Passwords and accounts")[2].partition("## Guesses")[0]
    told = set(re.findall(r"`(\w+)`", passwords))
    assert {*OUR_NAMES, "UHM_PASSWORD_WORDS"} <= told


def test_every_way_in_is_in_the_table():
    """What is public is a way in, or tells and ends only what its own bearer is good for, or is between services."""
    rest = {"GetPolicy", "RevokeToken", "GetKeys", "WatchRevocations", "VerifyApiKey"}
    table = DOCUMENT.partition("| way | proof |")[2].partition("\n\n")[0]
    ways = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    methods = [(service.full_name, method.name) for service in SERVICES for method in service.methods]
    assert {name for service, name in methods if access_of(f"/{service}/{name}").public} == ways | rest


def test_what_answers_tokens():
    """A session begins with a password, also where that is changed; a refresh goes on with one."""
    answers = {
        method.name
        for service in SERVICES
        for method in service.methods
        if "access_token" in method.output_type.fields_by_name
    }
    assert answers == {"IssueToken", "RefreshToken", "ChangePassword"}
    assert "password" in auth_pb2.IssueTokenRequest.DESCRIPTOR.fields_by_name
    assert "current_password" in auth_pb2.ChangePasswordRequest.DESCRIPTOR.fields_by_name


def test_no_administrator_sets_a_password():
    (service,) = user_pb2.DESCRIPTOR.services_by_name.values()
    messages = [method.input_type for method in service.methods]
    inside = [field.message_type for message in messages for field in message.fields if field.message_type]
    names = {field.name for message in (*messages, *inside) for field in message.fields}
    assert {"username", "role"} <= names
    assert [name for name in names if "password" in name] == []


def test_the_lifetimes_are_those_of_the_settings():
    settings, day = AuthSettings(), 24 * 3600
    text = " ".join(DOCUMENT.split())
    for told in (
        f"{settings.access_token_seconds // 60} minutes (`UHM_ACCESS_TOKEN_SECONDS`)",
        f"{settings.refresh_token_seconds // day} days (`UHM_REFRESH_TOKEN_SECONDS`)",
        f"{settings.longest_session_seconds // day} days in any case (`UHM_LONGEST_SESSION_SECONDS`)",
        f"at most {settings.sessions_per_user} sessions at a time** (`UHM_SESSIONS_PER_USER`)",
        f"{settings.refresh_grace_seconds} seconds of the replacement (`UHM_REFRESH_GRACE_SECONDS`)",
        f"{settings.signing_key_seconds // day} days (`UHM_SIGNING_KEY_SECONDS`)",
        f"`UHM_API_KEYS_PER_USER` ({settings.api_keys_per_user})",
    ):
        assert told in text


def test_the_cluster_asks_for_more():
    """What ASVS 6.2.1 asks for at least, 6.2.4 with it, and 6.3.8."""
    documents = yaml.safe_load_all((ROOT / "deploy/k8s/base/auth.yaml").read_text())
    deployment = next(document for document in documents if document["kind"] in {"Deployment", "StatefulSet"})
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = {each["name"]: each.get("value") for each in container["env"]}
    assert settings["UHM_REGISTRATION"] == "invitation"
    assert (settings["UHM_PASSWORD_MIN_LENGTH"], settings["UHM_PASSWORD_MIN_SCORE"]) == ("12", "3")


def test_the_pages_password_field():
    page = (ROOT / "services/gateway/uhm_gateway/docs/templates/page.html").read_text()
    fields = re.findall(r'<input name="password"[^>]*>', page)
    assert len(fields) == 1
    assert 'type="password"' in fields[0]
    assert 'autocomplete="current-password"' in fields[0]
    assert "onpaste" not in page
    assert "paste" not in (ROOT / "services/gateway/uhm_gateway/docs/static/page.js").read_text()


def test_a_password_has_no_expiry():
    columns = {"id", "username", "password_hash", "role", "created_at", "login_at", "disabled_at", "deleted_at"}
    assert set(UserRow.__table__.columns.keys()) == columns


def test_what_registration_asks_for():
    assert set(auth_pb2.CreateUserRequest.DESCRIPTOR.fields_by_name) == {"username", "password", "invitation"}
    assert set(auth_pb2.ResetPasswordRequest.DESCRIPTOR.fields_by_name) == {"username", "code", "new_password"}
