"""The commands: what they ask the server, what they print where, and how they end."""

from __future__ import annotations

import base64
import io
import json
import tarfile

import pytest

from tests.unit.cli.conftest import Refusal, Stream
from uhm.commands.build import _name_of

IMAGE = {
    "id": "i" * 32,
    "reference": "nginx:latest",
    "status": "ready",
    "size_bytes": "182000000",
    "layers": [{"diff_id": "sha256:1", "reused": True}, {"diff_id": "sha256:2"}],
    "stages": [
        {"name": "resolve", "start_ms": 0.0, "duration_ms": 10.0},
        {"name": "convert", "start_ms": 10.0, "duration_ms": 500.0},
    ],
    "config": {"exposed_ports": ["80/tcp", "443/tcp"]},
}
MACHINE = {"id": "m" * 32, "name": "web", "status": "running", "ports": [], "phases": [], "image_reference": "nginx"}
ENDED = MACHINE | {"status": "exited", "exit_code": 7}


def log(text: str, stream: str = "stdout") -> dict:
    return {"stream": stream, "data": base64.b64encode(text.encode()).decode(), "time": "2026-01-01T00:00:00Z"}


@pytest.fixture
def machine(server):
    """A server with a ready image and a machine of it that writes and ends with 7."""
    path = f"/api/v1/machines/{MACHINE['id']}"
    server.answers |= {
        "GET /api/v1/images/nginx": IMAGE,
        "POST /api/v1/machines": MACHINE,
        f"GET {path}/logs": Stream([log("out\n"), log("err\n", "stderr"), log("no newline")]),
        f"GET {path}:watch": Stream([{"machine": MACHINE}, {"machine": ENDED}]),
        f"GET {path}": ENDED,
        f"DELETE {path}": {},
    }
    return server


def test_register(server, uhm):
    server.answers["POST /api/v1/user/create"] = {"status": "registered", "username": "me"}
    done = uhm("register", "me", "secret")
    assert (done.code, server.requests[0].json) == (0, {"username": "me", "password": "secret"})
    assert "Registered me" in done.out


def test_login_whoami_logout(server, uhm):
    server.answers |= {
        "POST /api/v1/token/issue": {"access_token": "a", "refresh_token": "r"},
        "GET /api/v1/user": lambda request: {"username": "me"} if request.token == "a" else Refusal(401, 16, "No."),
        "POST /api/v1/token/revoke": {},
    }
    assert uhm("login", "me", "--password", "secret").code == 0
    assert server.requests[0].json == {"username": "me", "password": "secret", "rotate": True}
    assert uhm("whoami").out == "me\n"
    assert uhm("whoami", "--json").json == {"username": "me"}
    assert uhm("logout").code == 0
    assert server.asked("POST /api/v1/token/revoke")[0].token == "a"
    failed = uhm("whoami")
    assert (failed.code, failed.err) == (1, "uhm: No.\n")


def test_an_error_is_a_document_too(server, uhm):
    server.answers["GET /api/v1/user"] = Refusal(401, 16, "No.")
    done = uhm("whoami", "--json")
    assert (done.code, done.json) == (1, {"error": {"code": 16, "message": "No."}})


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("fly",), ("run", "-p", "x", "nginx"), ("run", "-m", "x", "nginx"), ("logs", "x", "--tail", "y"),
     ("ps", "--nonsense"), ("up", "--rest-port", "0")],
)  # fmt: skip
def test_wrong_usage_is_2(server, uhm, arguments):
    done = uhm(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert not server.requests


def test_nobody_there(uhm, monkeypatch):
    monkeypatch.setenv("UHM_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("UHM_TOKEN", "x")
    done = uhm("ps")
    assert done.code == 1
    assert "`uhm up`" in done.err


def test_pull(server, uhm):
    building = IMAGE | {"status": "building", "stages": []}
    server.answers |= {
        "POST /api/v1/images": {"id": IMAGE["id"], "status": "building"},
        f"GET /api/v1/images/{IMAGE['id']}:watch": Stream(
            [
                {"image": building},
                {"progress": {"stage": "convert", "layer": "sha256:2", "done_bytes": "10", "total_bytes": "20"}},
                {"output": "Step 1/2\n"},
                {"image": IMAGE},
            ]
        ),
    }
    done = uhm("pull", "nginx")
    assert done.code == 0
    assert server.requests[0].json == {"image": "nginx", "platform": "", "publish": []}
    assert "Step 1/2\n" in done.err
    assert "nginx:latest is ready: iiiiiiiiiiii, 2 layers (1 reused), 182 MB" in done.out
    assert "convert" in done.out
    assert uhm("pull", "nginx", "--json").json == IMAGE


def test_a_pull_that_fails(server, uhm):
    failed = {"id": "f", "reference": "no:latest", "status": "failed", "reason": "There is no such image."}
    server.answers |= {
        "POST /api/v1/images": {"id": "f"},
        "GET /api/v1/images/f:watch": Stream([{"image": failed}]),
    }
    done = uhm("pull", "no")
    assert (done.code, done.err) == (1, "uhm: no:latest was not made: There is no such image.\n")
    assert uhm("pull", "no", "--json").json["image"] == failed


def test_a_watch_that_breaks_is_made_again(server, uhm, monkeypatch):
    monkeypatch.setattr("uhm.builds.RECONNECT_SECONDS", 0)
    answers = [Stream([{"image": IMAGE | {"status": "building"}}]), Stream([{"image": IMAGE}])]
    server.answers |= {
        "POST /api/v1/images": {"id": "f"},
        "GET /api/v1/images/f:watch": lambda _: answers.pop(0),
    }
    assert uhm("pull", "nginx").code == 0


def test_build(server, uhm, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM nginx\n")
    server.answers |= {
        "POST /api/v1/contexts": {"id": "c", "size_bytes": "1024"},
        "POST /api/v1/images": {"id": IMAGE["id"]},
        f"GET /api/v1/images/{IMAGE['id']}:watch": Stream([{"image": IMAGE}]),
    }
    done = uhm("build", "-t", "shop", "--build-arg", "A=1", "--target", "web", "--no-cache", str(tmp_path))
    assert done.code == 0, done.err
    upload, create = server.requests[:2]
    assert upload.body[:10] == b"Dockerfile"
    assert create.json == {
        "image": "shop",
        "platform": "",
        "publish": [],
        "context": {
            "id": "c", "dockerfile": "Dockerfile", "build_args": {"A": "1"}, "target": "web", "no_cache": True,
            "secrets": {},
        },
    }  # fmt: skip


def test_images_and_rmi(server, uhm):
    server.answers |= {
        "GET /api/v1/images": {"images": [IMAGE], "next_page_token": ""},
        "DELETE /api/v1/images/nginx": {"freed_bytes": "1000"},
    }
    assert "nginx:latest" in uhm("images").out
    assert uhm("images", "-q").out == "iiiiiiiiiiii\n"
    assert uhm("images", "--json").json == {"images": [IMAGE]}
    assert uhm("rmi", "nginx").out == "Deleted nginx, 1 kB will be freed\n"
    done = uhm("rmi", "nginx", "absent")
    assert done.code == 1
    assert "Deleted nginx" in done.out
    assert "absent" in done.err


def test_run_in_the_foreground(machine, uhm):
    done = uhm("run", "nginx", "echo", "-n", "--rm")
    assert (done.code, done.out, done.err) == (7, "out\nno newline", "err\n")
    assert machine.asked("POST /api/v1/machines")[0].json == {"image": IMAGE["id"], "command": ["echo", "-n", "--rm"]}
    assert not machine.asked(f"DELETE /api/v1/machines/{MACHINE['id']}")


def test_run_and_remove(machine, uhm):
    assert uhm("run", "--rm", "nginx").code == 7
    assert machine.requests[-1].method == "DELETE"
    assert machine.requests[-1].query == {"force": "true"}


def test_output_that_breaks_off_goes_on_where_it_was(machine, uhm, monkeypatch):
    monkeypatch.setattr("uhm.workload.RECONNECT_SECONDS", 0)
    gone = Refusal(0, 14, "The machines service does not answer.")
    refused = Refusal(503, 14, gone.message)
    streams = [Stream([log("one, "), log("two, "), gone]), refused, Stream([log("one, two, thr"), log("ee\n")])]
    machine.answers[f"GET /api/v1/machines/{MACHINE['id']}/logs"] = lambda _: streams.pop(0)
    done = uhm("run", "--rm", "nginx")
    assert (done.code, done.out, done.err) == (7, "one, two, three\n", "")


def test_a_machine_that_was_lost_sight_of_is_not_deleted(machine, uhm, monkeypatch):
    monkeypatch.setattr("uhm.workload.RECONNECT_SECONDS", 0)
    gone = Refusal(503, 14, "The machines service does not answer.")
    machine.answers[f"GET /api/v1/machines/{MACHINE['id']}/logs"] = gone
    done = uhm("run", "--rm", "nginx")
    assert (done.code, done.err) == (1, "uhm: The machines service does not answer.\n")
    assert not machine.asked(f"DELETE /api/v1/machines/{MACHINE['id']}")


def test_a_directory_that_cannot_be_used_is_told(uhm, tmp_path):
    (tmp_path / "file").write_text("")
    done = uhm("up", "--state-dir", str(tmp_path / "file" / "below"))
    assert done.code == 1
    assert "Not a directory" in done.err


def test_run_with_json_is_one_document(machine, uhm):
    done = uhm("run", "--json", "nginx")
    assert done.code == 7
    assert done.json["exit_code"] == 7
    assert [entry["text"] for entry in done.json["logs"]] == ["out\n", "err\n", "no newline"]


def test_run_a_machine_that_fails(machine, uhm):
    failed = MACHINE | {"status": "failed", "reason": "The kernel panicked.", "console_tail": "panic"}
    path = f"/api/v1/machines/{MACHINE['id']}"
    machine.answers |= {f"GET {path}:watch": Stream([{"machine": failed}]), f"GET {path}": failed}
    done = uhm("run", "nginx")
    assert done.code == 1
    assert "The kernel panicked." in done.err
    assert "panic" in done.err


def test_run_detached(machine, uhm):
    machine.answers["POST /api/v1/machines"] = MACHINE | {
        "ports": [{"host_address": "127.0.0.1", "host_port": 8080, "guest_port": 80, "protocol": "tcp"}],
        "phases": [{"name": "kernel", "start_ms": 0.0, "duration_ms": 400.0}],
        "start_kind": "cold",
        "accelerator": "tcg",
        "kernel": "6.1.192 minimal",
    }
    done = uhm("run", "-d", "--rm", "-p", "8080:80", "-P", "nginx")
    assert (done.code, done.out) == (0, f"{MACHINE['id']}\n")
    assert "127.0.0.1:8080->80/tcp" in done.err
    assert "cold start, tcg, kernel 6.1.192 minimal" in done.err
    asked = machine.asked("POST /api/v1/machines")[0].json
    assert asked["auto_remove"] is True
    assert [port["guest_port"] for port in asked["ports"]] == [80, 443]


def test_every_option_of_run(machine, uhm, tmp_path, monkeypatch):
    monkeypatch.setenv("PASSED", "on")
    (tmp_path / "env").write_text("F=1\n")
    uhm(
        "run", "-d", "--name", "web", "-e", "A=1", "-e", "PASSED", "--env-file", str(tmp_path / "env"), "-w", "/srv",
        "-u", "app:app", "-m", "1g", "--cpus", "2", "--entrypoint", "", "-h", "host",
        "--wait", "listening", "nginx", "c",
    )  # fmt: skip
    assert machine.asked("POST /api/v1/machines")[0].json == {
        "image": IMAGE["id"], "name": "web", "command": ["c"], "entrypoint": [""], "env": ["F=1", "A=1", "PASSED=on"],
        "working_dir": "/srv", "user": "app:app", "hostname": "host", "memory_mib": 1024, "vcpus": 2,
        "wait": "listening",
    }  # fmt: skip


def test_run_pulls_what_is_absent(machine, uhm):
    machine.answers |= {
        "GET /api/v1/images/nginx": Refusal(404, 5, "There is no image nginx."),
        "POST /api/v1/images": {"id": "f"},
        "GET /api/v1/images/f:watch": Stream([{"image": IMAGE}]),
    }
    done = uhm("run", "nginx")
    assert (done.code, done.err) == (7, "err\n")
    never = uhm("run", "--pull", "never", "nginx")
    assert never.code == 1
    assert "uhm pull nginx" in never.err


def test_ps(server, uhm):
    server.answers["GET /api/v1/machines"] = lambda request: {
        "machines": [ENDED, MACHINE] if request.query.get("all") else [MACHINE]
    }
    assert "web" in uhm("ps").out
    assert uhm("ps", "-q").out == "mmmmmmmmmmmm\n"
    assert uhm("ps", "-a", "--json").json == {"machines": [ENDED, MACHINE]}


def test_logs(machine, uhm):
    machine.answers["GET /api/v1/machines/web/logs"] = Stream([log("out\n"), log("err\n", "stderr")])
    done = uhm("logs", "-f", "--tail", "2", "web")
    assert (done.out, done.err) == ("out\n", "err\n")
    assert machine.requests[-1].query == {"follow": "true", "tail": "2"}
    assert uhm("logs", "-t", "web").out == "2026-01-01T00:00:00Z out\n"
    assert uhm("logs", "--json", "web").json["logs"][0]["text"] == "out\n"


def test_stop_start_rm(server, uhm):
    server.answers |= {
        "POST /api/v1/machines/web:stop": MACHINE | {"status": "exited"},
        "POST /api/v1/machines/web:start": MACHINE,
        "DELETE /api/v1/machines/web": {},
    }
    assert uhm("stop", "-t", "0", "web").out == "web\n"
    assert server.requests[-1].json == {"grace_seconds": 0}
    assert uhm("start", "web").code == 0
    assert uhm("rm", "-f", "web").code == 0
    assert server.requests[-1].query == {"force": "true"}


def test_inspect(server, uhm):
    server.answers |= {"GET /api/v1/machines/web": MACHINE, "GET /api/v1/images/nginx": IMAGE}
    assert uhm("inspect", "web", "--json").json == MACHINE
    assert json.loads(uhm("inspect", "nginx").out) == IMAGE
    assert uhm("inspect", "absent").code == 1


def test_build_takes_an_archive_secrets_and_a_platform(server, uhm, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("hush")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("Dockerfile"), io.BytesIO())
    server.answers |= {
        "POST /api/v1/contexts": {"id": "c"},
        "POST /api/v1/images": {"id": IMAGE["id"]},
        f"GET /api/v1/images/{IMAGE['id']}:watch": Stream([{"output": "#1 DONE"}, {"image": IMAGE}]),
    }
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(archive.getvalue())))

    secret = f"id=token,src={tmp_path}/token"
    done = uhm("build", "-t", "x", "--secret", secret, "--platform", "linux/amd64", "--progress", "plain", "-")

    assert done.code == 0, done.err
    assert "#1 DONE" in done.err
    sent, create = server.requests[:2]
    assert sent.body == archive.getvalue()
    assert create.json["platform"] == "linux/amd64"
    assert create.json["context"]["secrets"] == {"token": "aHVzaA=="}


@pytest.mark.parametrize(
    ("directory", "name"), [("shop", "shop"), ("My Shop (2)", "my-shop-2"), ("a_b.c", "a-b-c"), ("shop/", "shop")]
)
def test_without_a_name_it_is_the_directorys(directory, name):
    assert _name_of(f"/srv/{directory}") == name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-",), "needs a name: uhm build -t NAME -"),
        (("/",), "needs a name: uhm build -t NAME /"),
        (("-t", "x", "absent"), "'absent' is not a directory"),
        (("-t", "x", "--secret", "id=absent", "."), "absent cannot be read"),
    ],
)
def test_wrong_usage_of_build(uhm, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = uhm("build", *arguments)
    assert done.code == 2
    assert said in done.err


def test_inspect_tells_the_output_of_a_build(server, uhm):
    server.answers["GET /api/v1/images/shop:watch"] = Stream([{"output": "one"}, {"output": "two"}, {"image": IMAGE}])
    assert uhm("inspect", "--build-output", "shop").out == "one\ntwo\n"
    assert uhm("inspect", "--build-output", "shop", "--json").json == {"output": ["one", "two"]}
