"""The command line as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.harness import fetch
from tests.servers import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def token(system):
    return system.user("typist")


def test_log_in_and_out(system):
    system.uhm("register", "terminal", "secret")
    system.uhm("login", "terminal", "--password", "secret")
    assert json.loads(system.uhm("whoami", "--json").stdout)["username"] == "terminal"
    system.uhm("logout")
    assert system.uhm("whoami", check=False).returncode == 1


def test_run_passes_on_output_and_exit_code(system, token):
    done = system.uhm("run", "--rm", "hello", "you", "there", token=token)
    assert done.stdout == "hello, you\nhello, there\n"
    failed = system.uhm("run", "--rm", "debian", "sh", "-c", "echo oops >&2; exit 7", token=token, check=False)
    assert (failed.returncode, failed.stderr) == (7, "oops\n")
    missing = system.uhm("run", "--rm", "debian", "no-such-program", token=token, check=False)
    assert missing.returncode == 127
    assert json.loads(system.uhm("ps", "-a", "--json", token=token).stdout)["machines"] == []


def test_a_machines_life(system, token):
    (port,) = free_ports(1)
    system.uhm("run", "-d", "--name", "web", "-p", f"{port}:80", "nginx", token=token)
    assert "as a virtual machine" in fetch(f"http://127.0.0.1:{port}/")
    assert "web" in system.uhm("ps", token=token).stdout
    assert json.loads(system.uhm("inspect", "web", "--json", token=token).stdout)["status"] == "running"
    assert "GET / HTTP/1.1" in system.uhm("logs", "web", token=token).stdout
    system.uhm("stop", "web", token=token)
    assert "web" not in system.uhm("ps", token=token).stdout
    system.uhm("start", "web", token=token)
    fetch(f"http://127.0.0.1:{port}/")
    assert system.uhm("rm", "web", token=token, check=False).returncode == 1
    system.uhm("rm", "-f", "web", token=token)
    assert "web" not in system.uhm("ps", "-a", token=token).stdout


def test_build_a_dockerfile_and_serve_it(system, token):
    built = system.uhm("build", "-t", "shop", str(EXAMPLES / "nginx"), token=token, timeout=300)
    assert "apt-get install --yes --no-install-recommends nginx" in built.stdout + built.stderr
    (port,) = free_ports(1)
    system.uhm("run", "-d", "--name", "shop", "-p", f"{port}:80", "shop", token=token)
    assert "as a virtual machine" in fetch(f"http://127.0.0.1:{port}/")
    system.uhm("rm", "-f", "shop", token=token)


def test_a_dockerfile_that_fails(system, token, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN echo about to fail; exit 3\n")
    done = system.uhm("build", "-t", "broken", str(tmp_path), token=token, check=False)
    assert done.returncode == 1
    assert "about to fail" in done.stdout + done.stderr
    assert "3" in done.stderr


def test_wrong_usage_is_exit_code_2(system):
    assert system.uhm("run", check=False).returncode == 2
    assert system.uhm("fly", check=False).returncode == 2


def test_no_system_there(system):
    done = system.uhm("ps", check=False, token="abc", url="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "uhm up" in done.stderr


def test_doctor(system):
    report = json.loads(system.uhm("doctor", "--state-dir", str(system.state_dir), "--json", check=False).stdout)
    assert report
