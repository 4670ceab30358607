"""/openapi.json says what the running system does: schemathesis makes up requests and holds the answers against it.

Three runs, so that nothing is left out and nothing spoils the rest:

1. The two operations that may end the session of the token that is used, with a session that may end.
2. Every other operation, with anything at all for ids, where nothing but users is there. Operations that delete are
   called like all others, and delete the users that they find; the system itself protects the last administrator.
3. The operations on one thing, with things that exist, since made-up ids hardly ever do. Left out is what ends the
   thing that the others need, and what takes long each time and has tests of its own: exporting (test_export.py),
   starting (test_starts.py), and looking inside of images, for which an appliance is started.

After each run its own record of calls tells whether operations were reached at all.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
SEED = 1
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
)
# Not among them: that requests outside of the schema are refused, since the JSON mapping takes more than the one form
# that the schema gives (`"5"` for 5); that all inside of it are taken, since it does not say every rule; and that Allow
# lists what the path's item does, since `/images/{id}:cancel` may also be `/images/{id}` for an id with a colon.
SESSION_ENDERS = ("AuthService_RevokeToken", "AuthService_DeleteSession")
# Operations on one thing: what the thing is, where it is named, and the operations.
THINGS = (
    ("image", "path.id", "GetImage WatchImage CancelImage"),
    ("machine", "path.id", "GetMachine WatchMachine StreamLogs StopMachine"),
    ("publication", "path.id", "GetPublication WatchPublication CancelPublication"),
    ("storage", "path.name", "GetStorage TestStorage ListPublishedImages"),
    ("user", "path.username", "GetUser UpdateUser CreatePasswordReset"),
)


@pytest.fixture(scope="module")
def fuzzed(running):
    """A system of this module's own, with an administrator; it finds no way out of the machine."""
    nowhere = "http://127.0.0.1:9"
    with running(HTTP_PROXY=nowhere, HTTPS_PROXY=nowhere, NO_PROXY="127.0.0.1,localhost") as system:
        yield system


@pytest.fixture(scope="module")
def tokens(fuzzed):
    """Of the administrator and of another user, issued before made-up logins slow logins from this address down."""
    return {name: fuzzed.user(name) for name in ("root", "leaver")}


def test_ends_of_sessions(fuzzed, tokens, tmp_path):
    chosen = [f"--include-operation-id={name}" for name in SESSION_ENDERS]
    statuses = schemathesis(fuzzed, tmp_path, "--max-examples=8", *chosen, token=tokens["leaver"])
    assert set(statuses) == set(SESSION_ENDERS)
    assert 200 in statuses["AuthService_RevokeToken"]
    assert fuzzed.curl("/api/v1/user", token=tokens["leaver"]).status == 401


def test_anything_at_all(fuzzed, tokens, tmp_path):
    left_out = [f"--exclude-operation-id={name}" for name in SESSION_ENDERS]
    statuses = schemathesis(fuzzed, tmp_path, "--max-examples=8", *left_out, token=tokens["root"])
    everything = set(operations(fuzzed)) - set(SESSION_ENDERS)
    assert {name for name, seen in statuses.items() if set(seen) - {401, 403, 429}} == everything
    assert fuzzed.curl("/api/v1/user", token=tokens["root"]).status == 200


def test_things_that_exist(fuzzed, tokens, tmp_path):
    things = make_things(fuzzed, tokens["root"])
    by_method = {name.partition("_")[2]: name for name in operations(fuzzed)}
    given = {
        by_method[method]: (parameter, things[thing])
        for thing, parameter, methods in THINGS
        for method in methods.split()
    }
    config = "".join(
        f"[[operations]]\ninclude-operation-id = '{name}'\nparameters = {{ '{parameter}' = '{value}' }}\n"
        for name, (parameter, value) in given.items()
    )
    chosen = [f"--include-operation-id={name}" for name in given]
    limits = ("--max-examples=5", "--phases=coverage,fuzzing")
    statuses = schemathesis(fuzzed, tmp_path, *limits, *chosen, token=tokens["root"], config=config)
    assert {name for name, seen in statuses.items() if 200 in seen} == set(given)


def make_things(system, token: str) -> dict[str, str]:
    """One of everything that an operation may be about."""
    registered = system.curl("/api/v1/user/create", data='{"username":"guest","password":"test"}')
    assert registered.status == 200, registered.text
    created = system.curl("/api/v1/images", token=token, data='{"image":"nginx"}').json
    assert system.image(created["id"], token=token)["status"] == "ready"
    machine = system.curl("/api/v1/machines", token=token, data='{"image":"nginx"}')
    assert machine.status == 200, machine.text
    system.curl(f"/api/v1/machines/{machine.json['id']}:stop", token=token, data="{}")
    added = system.curl("/api/v1/storage", token=token, data='{"name":"home","directory":{"path":"disks"}}')
    assert added.status == 200, added.text
    published = system.curl(f"/api/v1/images/{created['id']}:publish", token=token, data='{"storage":"home"}')
    assert published.status == 200, published.text
    system.curl(f"/api/v1/publications/{published.json['id']}:watch", token=token)
    return {
        "image": created["id"],
        "machine": machine.json["id"],
        "publication": published.json["id"],
        "storage": "home",
        "user": "guest",
    }


def schemathesis(system, directory: Path, *arguments: str, token: str, config: str = "") -> dict[str, Counter[int]]:
    """Runs schemathesis, which must find nothing; answers how often each operation answered each status."""
    (directory / "schemathesis.toml").write_text(config)
    record = directory / "calls.har"
    argv = [
        *(SCHEMATHESIS, "--config-file=schemathesis.toml", "run", f"{system.url}/openapi.json", *arguments),
        *(f"--checks={','.join(CHECKS)}", f"--header=Authorization: Bearer {token}", f"--seed={SEED}"),
        *("--generation-database=none", "--continue-on-failure", "--no-shrink", "--request-timeout=30", "--no-color"),
        *("--report=har", f"--report-har-path={record}"),
    ]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    known = operations(system)
    for entry in json.loads(record.read_text())["log"]["entries"]:
        method, path = entry["request"]["method"], urlsplit(entry["request"]["url"]).path
        for name, (verb, pattern) in known.items():
            if verb == method and pattern.fullmatch(path):
                seen[name][entry["response"]["status"]] += 1
                break
    return seen


def operations(system) -> dict[str, tuple[str, re.Pattern[str]]]:
    """The method and the path of each operation, the most specific first."""
    document = system.curl("/openapi.json").json
    found = [
        (operation["operationId"], verb.upper(), path)
        for path, item in document["paths"].items()
        for verb, operation in item.items()
    ]
    found.sort(key=lambda each: (each[2].count("{"), -len(each[2])))
    return {name: (verb, re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path))) for name, verb, path in found}
