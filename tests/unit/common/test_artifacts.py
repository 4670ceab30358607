"""The artifact store, also with other processes in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from uhm_common.artifacts import Artifact, ArtifactStore, Kind, locked, plain_digest
from uhm_common.errors import NotFound

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
PRELUDE = """
import sys, time
from pathlib import Path
from uhm_common.artifacts import ArtifactStore
store = ArtifactStore(Path(sys.argv[1]))
"""


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@contextmanager
def another_process(store, script):
    """Runs a script with `store` in another process, up to its first line of output; it ends when its input does."""
    argv = [sys.executable, "-c", PRELUDE + script, str(store.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        yield child
        child.stdin.close()
        assert child.wait(30) == 0


def put_layer(store, diff_id, content=b"blob"):
    with store.stage() as stage:
        (stage / "blob").write_bytes(content)
        store.commit(stage / "blob", store.layer(diff_id))


def put_disk(store, digest):
    with store.stage() as stage:
        (stage / "disk").mkdir()
        (stage / "disk" / "disk.vmdk").write_text("descriptor")
        store.commit(stage / "disk", store.disk(digest))


def test_names_are_digests(store):
    assert plain_digest(A) == "a" * 64
    assert store.layer(A) == store.root / "layers" / f"{'a' * 64}.erofs"
    assert store.disk(A) == store.root / "disks" / ("a" * 64)
    assert store.base("a" * 64) == store.root / "bases" / ("a" * 64)


def test_what_was_committed_is_there_and_the_stage_is_gone(store):
    put_layer(store, A)

    assert store.layer(A).read_bytes() == b"blob"
    assert list((store.root / "staging").iterdir()) == []


def test_a_failure_leaves_no_stage(store):
    def fail():
        with store.stage() as stage:
            (stage / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert list((store.root / "staging").iterdir()) == []


def test_the_first_commit_of_a_name_stays(store):
    put_layer(store, A, b"first")
    put_layer(store, A, b"second")
    assert store.layer(A).read_bytes() == b"first"

    put_disk(store, B)
    store.take_lease(B, holder="m1")
    put_disk(store, B)
    assert store.lease_holders(B) == ["m1"]


def test_a_commit_that_cannot_be_done_raises(store):
    with store.stage() as stage, pytest.raises(FileNotFoundError):
        store.commit(stage / "absent", store.layer(A))


def test_an_artifact_is_made_once_by_many_processes(store):
    script = """
with store.making(store.layer("sha256:" + "a" * 64)):
    made = not store.layer("sha256:" + "a" * 64).exists()
    if made:
        with store.stage() as stage:
            (stage / "blob").write_bytes(b"blob")
            time.sleep(0.2)
            store.commit(stage / "blob", store.layer("sha256:" + "a" * 64))
print("made" if made else "found")
"""
    argv = [sys.executable, "-c", PRELUDE + script, str(store.root)]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = sorted(child.communicate(timeout=60)[0].strip() for child in children)

    assert answers == ["found", "found", "found", "made"]


def test_making_also_serialises_threads(store):
    inside = []

    def make():
        with store.making(store.layer(A)):
            inside.append("in")
            inside.append("out")

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert inside == ["in", "out"] * 8


def test_leases_tell_who_uses_a_disk(store):
    put_disk(store, A)
    store.take_lease(A, holder="m2")
    store.take_lease(A, holder="m1")
    store.take_lease(A, holder="m1")
    assert store.lease_holders(A) == ["m1", "m2"]

    store.drop_lease(A, holder="m1")
    store.drop_lease(A, holder="m2")
    store.drop_lease(A, holder="m2")
    assert store.lease_holders(A) == []


def test_a_lease_on_a_disk_that_is_gone(store):
    with pytest.raises(NotFound, match="not there any more"):
        store.take_lease(A, holder="m1")
    assert store.lease_holders(A) == []


def test_a_lease_waits_for_a_deletion_and_then_finds_nothing(store):
    put_disk(store, A)
    refused = []

    def lease():
        try:
            store.take_lease(A, holder="m1")
        except NotFound as error:
            refused.append(error)

    with store.disks(exclusive=True):
        thread = threading.Thread(target=lease)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        with store.stage() as trash:
            store.take_out(Artifact(kind=Kind.DISK, digest=A), into=trash)
    thread.join()

    assert len(refused) == 1


def test_what_is_there_and_what_it_takes(store):
    put_layer(store, A, b"x" * 8192)
    store.layer(A).with_suffix(".verity").write_bytes(b"x" * 4096)
    put_disk(store, B)
    store.base(C).mkdir(parents=True)

    layer, disk = Artifact(kind=Kind.LAYER, digest=A), Artifact(kind=Kind.DISK, digest=B)
    assert store.stored() == {layer, disk, Artifact(kind=Kind.BASE, digest=C)}
    assert store.size(layer) >= 12288
    assert store.size(disk) > 0
    assert store.size(Artifact(kind=Kind.LAYER, digest=B)) == 0


def test_what_is_taken_out_goes_with_all_that_belongs_to_it(store):
    put_layer(store, A)
    put_layer(store, B)
    store.layer(A).with_suffix(".verity").touch()
    with store.making(store.layer(A)):
        pass

    with store.stage() as trash:
        store.take_out(Artifact(kind=Kind.LAYER, digest=A), into=trash)
        assert len(list(trash.glob("layers-*"))) == 2

    assert store.stored() == {Artifact(kind=Kind.LAYER, digest=B)}
    assert list((store.root / "locks").iterdir()) == []


def test_a_base_is_used_while_some_process_holds_it(store):
    store.base(A).mkdir(parents=True)
    script = f'with store.using_base("{A}"):\n    print("ready", flush=True)\n    sys.stdin.read()'

    with another_process(store, script):
        assert store.is_base_used(A)
        with store.using_base(A):
            pass
        assert store.is_base_used(A)

    assert not store.is_base_used(A)


def test_only_stages_that_nobody_holds_are_swept(store):
    script = 'with store.stage() as stage:\n    print("ready", flush=True)\n    sys.stdin.read()'
    crashed = store.root / "staging" / "crashed"
    (crashed / "half").mkdir(parents=True)

    with another_process(store, script):
        store.sweep_staging()
        (alive,) = (store.root / "staging").iterdir()
        assert alive.name != "crashed"


def test_what_a_killed_process_staged_is_swept(store):
    script = 'with store.stage() as stage:\n    print("ready", flush=True)\n    sys.stdin.read()'
    argv = [sys.executable, "-c", PRELUDE + script, str(store.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.kill()
    assert len(list((store.root / "staging").iterdir())) == 1

    store.sweep_staging()

    assert list((store.root / "staging").iterdir()) == []


def test_stages_come_into_being_while_others_sweep(store):
    """A sweep must never take a stage between its directory and its lock."""
    ended = threading.Event()

    def sweep():
        while not ended.is_set():
            store.sweep_staging()

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for _ in range(300):
            with store.stage() as stage:
                (stage / "blob").write_bytes(b"blob")
    finally:
        ended.set()
        thread.join()


def test_new_stages_do_not_wait_for_deletions(store, monkeypatch):
    (store.root / "staging" / "crashed" / "half").mkdir(parents=True)
    deleted = []

    def rmtree(path, **options):
        deleted.extend(found.name for found in path.iterdir())
        with locked(store.root / "staging.lock", exclusive=True, blocking=False):
            really(path, **options)

    really = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    store.sweep_staging()

    assert "crashed" in deleted
    assert list((store.root / "staging").iterdir()) == []


def test_a_lock_that_may_not_wait(tmp_path):
    with locked(tmp_path / "lock", exclusive=False):
        with locked(tmp_path / "lock", exclusive=False, blocking=False):
            pass
        with pytest.raises(BlockingIOError), locked(tmp_path / "lock", exclusive=True, blocking=False):
            pass
    with locked(tmp_path / "lock", exclusive=True, blocking=False):
        pass
