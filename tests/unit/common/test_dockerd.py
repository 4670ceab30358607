"""What a private engine is told, and what it needs, without starting one."""

from __future__ import annotations

import socket
import threading

import pytest

from uhm_common.dockerd import PrivateDockerd, engine_answers
from uhm_common.errors import FailedPrecondition


def test_engines_of_two_directories_share_nothing(tmp_path):
    one, other = (PrivateDockerd(tmp_path / name, bridge=True) for name in ("one", "other"))
    own = set(one.argv()) & set(other.argv())
    assert not [argument for argument in own if any(word in argument for word in ("root=", "file=", "host=", "space="))]
    assert one.bridge_name != other.bridge_name


def test_paths_fit_where_the_directory_is_deep(tmp_path):
    engine = PrivateDockerd(tmp_path / "deep" / ("d" * 200))
    assert len(str(engine.socket)) < 60
    assert len(engine.bridge_name) <= 15


def test_mirror_is_passed_on(tmp_path):
    assert (
        "--registry-mirror=http://127.0.0.1:5001"
        in PrivateDockerd(tmp_path, registry_mirror="http://127.0.0.1:5001").argv()
    )


def test_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(FailedPrecondition, match="needs root"):
        PrivateDockerd(tmp_path / "engine").start()
    assert not (tmp_path / "engine").exists()


def test_needs_dockerd(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(FailedPrecondition, match="dockerd is not installed"):
        PrivateDockerd(tmp_path / "engine").start()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"HTTP/1.0 200 OK\r\n\r\nOK", True), (b"HTTP/1.0 500 Oh\r\n\r\n", False), (b"", False)],
    ids=["well", "ill", "silent"],
)
def test_an_engine_is_known_by_its_answer(tmp_path, answer, expected):
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        assert engine_answers(path) is expected
        server.join()


def test_nothing_answers_where_nobody_listens(tmp_path):
    assert not engine_answers(tmp_path / "docker.sock")
