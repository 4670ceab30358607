"""The parts of `uhm up` that need nothing to run: paths, ports, records, configurations, environments."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uhm.errors import SystemFailed
from uhm.system import nats
from uhm.system.acceleration import BOOT_ID, kvm_works
from uhm.system.diagnosis import Diagnosis
from uhm.system.engine import Engine, choose_engine, hub_mirror
from uhm.system.findings import Finding
from uhm.system.layout import Layout, default_state_dir
from uhm.system.ports import choose_ports, holder_of, is_free
from uhm.system.processes import RecordedProcess, end_recorded, read_process, recorded_argv
from uhm.system.programs import STOP_ORDER, Program, environment, programs
from uhm.system.record import InternalPorts, SystemRecord, load_internal_ports, nats_token
from uhm.system.start import Options, _new_record
from uhm.system.supervisor import Supervisor, configuration

PORTS = InternalPorts(nats=20001, auth=20002, builder=20003, worker=20004, machines=20005)
NO_ENGINE = Engine(host="", private=False, note="")


@pytest.fixture
def layout(tmp_path):
    made = Layout.of(tmp_path / "state")
    made.make()
    return made


def test_the_state_directory_is_private(layout):
    assert stat.S_IMODE(layout.state_dir.stat().st_mode) == 0o700


def test_default_state_directory(monkeypatch):
    monkeypatch.setenv("UHM_STATE_DIR", "/srv/x")
    assert default_state_dir() == Path("/srv/x")
    monkeypatch.delenv("UHM_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/uhmalguhm")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/me/data")
    assert default_state_dir() == Path("/home/me/data/uhmalguhm")


def test_a_long_state_directory_has_its_socket_elsewhere(tmp_path):
    short, long = Layout.of(Path("/s")), Layout.of(tmp_path / ("x" * 100))
    assert short.supervisor_socket == Path("/s/run/supervisor.sock")
    assert len(str(long.supervisor_socket)) < 95
    assert str(long.supervisor_socket) in configuration(long, [])


def test_ports_are_different_and_free():
    ports = choose_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) for port in ports)


def test_who_holds_a_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert f"(process {os.getpid()})" in holder_of(port)
    assert holder_of(port) == ""


def test_ports_are_kept_and_changed_where_they_are_taken(layout):
    first = load_internal_ports(layout)
    assert load_internal_ports(layout) == first
    with socket.create_server(("127.0.0.1", first.auth)):
        assert load_internal_ports(layout) != first
    assert load_internal_ports(layout, anew=True) != first


def test_the_record_comes_back_and_is_private(layout):
    record = SystemRecord(rest_port=1, grpc_port=2, ports=PORTS, environment={"UHM_NATS_URL": "secret"})
    assert SystemRecord.load(layout) is None
    record.save(layout)
    assert SystemRecord.load(layout) == record
    assert stat.S_IMODE(layout.record_file.stat().st_mode) == 0o600
    assert "secret" not in repr(record)


def test_the_nats_token_is_made_once_and_private(layout):
    token = nats_token(layout)
    assert nats_token(layout) == token
    assert len(token) > 30
    assert stat.S_IMODE((layout.run_dir / "nats.token").stat().st_mode) == 0o600


def test_nats_is_asked_for_a_token_and_flushes():
    text = nats.configuration(port=4222, token="abc")
    assert 'listen: "127.0.0.1:4222"' in text
    assert 'token: "abc"' in text
    assert "sync_interval: always" in text


def test_supervisors_configuration(layout):
    record = SystemRecord(rest_port=5000, grpc_port=50051, ports=PORTS, private_docker=True)
    parsed = configparser.RawConfigParser()
    parsed.read_string(configuration(layout, programs(record)))
    names = [section.partition(":")[2] for section in parsed.sections() if section.startswith("program:")]
    assert sorted(names) == sorted(STOP_ORDER)
    by_priority = sorted(names, key=lambda name: -parsed.getint(f"program:{name}", "priority"))
    assert tuple(by_priority) == STOP_ORDER
    gateway = shlex.split(parsed["program:gateway"]["command"])
    assert gateway[2:] == [
        "run/processes/gateway", sys.executable, "-m", "uhm_gateway", "--rest-port", "5000", "--grpc-port", "50051",
    ]  # fmt: skip
    assert parsed["program:worker"]["environment"] == 'UHM_LISTEN="127.0.0.1:20004"'
    assert parsed["program:machines"]["killasgroup"] == "false"


def test_what_supervisord_would_misread_is_refused(layout):
    with pytest.raises(SystemFailed, match="supervisord cannot be told"):
        configuration(layout, [Program(name="auth", argv=["/opt/a #b/python"])])
    assert "100%%" in configuration(layout, [Program(name="auth", argv=["100%"])])


def test_the_environment_of_the_services(layout):
    inherited = {"UHM_DATABASE_URL": "postgresql://db", "UHM_TOKEN": "mine", "UHM_STATE_DIR": "/other", "PATH": "/bin"}
    told = environment(layout, ports=PORTS, nats_token="t", engine=NO_ENGINE, inherited=inherited)
    assert told["UHM_DATABASE_URL"] == "postgresql://db"
    assert told["UHM_STATE_DIR"] == str(layout.state_dir)
    assert told["UHM_NATS_URL"] == "nats://t@127.0.0.1:20001"
    assert told["UHM_WORKER_ADDRESS"] == "127.0.0.1:20004"
    assert told["PATH"].endswith(":/bin")
    assert not {"UHM_TOKEN", "UHM_DOCKER_HOST"} & set(told)


def test_a_key_file_is_not_for_all_services(layout):
    told = environment(
        layout, ports=PORTS, nats_token="t", engine=NO_ENGINE, inherited={"UHM_KEY_FILE": "/etc/one.key"}
    )
    assert "UHM_KEY_FILE" not in told


class Notes(list):
    """What `uhm up` says."""

    note = list.append


@pytest.mark.parametrize("set_to", ["/etc/one.key", ""])
def test_a_key_file_that_is_left_out_is_told(layout, monkeypatch, set_to):
    monkeypatch.setenv("UHM_KEY_FILE", set_to)
    options, notes = Options(rest_port=1, grpc_port=2, use_docker=False), Notes()
    _new_record(layout, options=options, report=notes, new_ports=False)
    assert any("UHM_KEY_FILE is for one service" in note for note in notes) is bool(set_to)


def test_a_finding_that_is_right_lacks_nothing():
    findings = [Finding(name="a", ok=True, detail=""), Finding(name="b", ok=False, detail="", lack="weak")]
    told = Diagnosis(state_dir="/s", findings=findings, record=None, programs=[]).document()
    assert [check["lack"] for check in told["checks"]] == ["", "weak"]


def test_an_engine_of_our_own_builds_on_the_hosts_network(layout):
    engine = Engine(host="unix:///run/x.sock", private=True, note="")
    told = environment(layout, ports=PORTS, nats_token="t", engine=engine, inherited={})
    assert (told["UHM_DOCKER_HOST"], told["UHM_BUILD_NETWORK"]) == ("unix:///run/x.sock", "host")
    inherited = {"UHM_BUILD_NETWORK": "none"}
    told = environment(layout, ports=PORTS, nats_token="t", engine=engine, inherited=inherited)
    assert told["UHM_BUILD_NETWORK"] == "none"


@pytest.mark.parametrize(
    ("kvm", "boot", "works", "told"),
    [(True, "this", True, "true"), (False, "this", False, None), (True, "another", None, None)],
)
def test_kvm_is_used_where_a_guest_has_run_with_it(layout, kvm, boot, works, told):
    boot_id = BOOT_ID.read_text().strip() if boot == "this" else boot
    (layout.state_dir / "machines").mkdir()
    (layout.state_dir / "machines" / "host.json").write_text(json.dumps({"kvm": kvm, "boot_id": boot_id}))
    assert kvm_works(layout) is works
    given = environment(layout, ports=PORTS, nats_token="t", engine=NO_ENGINE, inherited={})
    assert given.get("UHM_KVM") == told


def test_the_engine_that_was_named_is_used_whether_or_not_it_answers(layout):
    engine = choose_engine(layout, environment={"UHM_DOCKER_HOST": "unix:///none.sock"})
    assert (engine.host, engine.private) == ("unix:///none.sock", False)
    assert "does not answer" in engine.note


@pytest.mark.parametrize(
    ("mirrors", "url"),
    [
        ("", ""),
        ("docker.io=http://a:1", "http://a:1"),
        ("ghcr.io=http://b, docker.io=http://a", "http://a"),
        ("x=y", ""),
    ],
)
def test_the_hubs_mirror(mirrors, url):
    assert hub_mirror(mirrors) == url


def test_nobody_answers_for_a_supervisord_that_is_not_there(layout):
    assert Supervisor(layout.supervisor_socket).states() is None


def executable(pid: int) -> str:
    return Path(f"/proc/{pid}/exe").readlink().name


@pytest.fixture
def recorded(layout):
    """Starts programs that note who they are, and leaves none."""
    started = []

    def start(*argv: str) -> tuple[subprocess.Popen[bytes], RecordedProcess]:
        file = layout.process_file("part")
        child = subprocess.Popen(recorded_argv(str(file), argv), start_new_session=True, stdout=subprocess.DEVNULL)
        started.append(child)
        deadline = time.monotonic() + 5
        while (process := read_process(file)) is None or executable(child.pid) != argv[0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return child, process

    yield start
    for child in started:
        child.kill()
        child.wait()


def test_a_process_is_known_by_what_it_noted(recorded):
    child, process = recorded("sleep", "60")
    assert process.pid == child.pid
    assert process.is_alive()
    assert not RecordedProcess(process.pid, process.start_ticks + 1).is_alive()
    end_recorded([process], grace=5)
    assert not process.is_alive()  # a zombie until its parent looks


def test_another_boot_is_another_process(recorded, layout):
    recorded("sleep", "60")
    file = layout.process_file("part")
    file.write_text("another-boot\n" + file.read_text().partition("\n")[2])
    assert read_process(file) is None
    file.write_text("garbage")
    assert read_process(file) is None


def test_what_a_killed_process_leaves_of_its_group_is_ended(layout):
    file = layout.process_file("part")
    argv = recorded_argv(str(file), ["/bin/sh", "-c", "sleep 60 & echo $!; wait"])
    parent = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    process = read_process(file)
    assert process is not None
    assert not process.is_alive()
    assert process.group() == [child]
    end_recorded([process], grace=1)
    assert process.group() == []
