import json
import os
import shutil
from dataclasses import replace

import pytest

from tests.unit.machines.stand_ins import DIGEST, SHAPE, a_service, a_store, committed
from uhm_machines.machine import StartKind
from uhm_machines.snapshots.store import MAKING, ready_key, template_key

WORKLOAD = a_service().workload


@pytest.fixture
def store(tmp_path):
    return a_store(tmp_path / "snapshots")


def reopened(store):
    return a_store(store._directory)


def keys(store):
    return [snapshot.key for snapshot in store.all()]


def a_ready_key(**changes):
    values = {"shape": SHAPE, "image_id": "i1", "disk_digest": DIGEST, "workload": WORKLOAD} | changes
    return ready_key(values.pop("shape"), **values)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": replace(SHAPE, memory_mib=512)},
        {"image_id": "i2"},
        {"disk_digest": "sha256:" + "e" * 64},
        *(
            {"workload": replace(WORKLOAD, **{field: value})}
            for field, value in {
                "argv": ("sh",), "env": (), "working_dir": "/srv", "user": "app", "stop_signal": 9, "watched_ports": (),
            }.items()
        ),
    ],
)  # fmt: skip
def test_a_key_is_bound_to_all_that_a_snapshot_is(change):
    assert a_ready_key(**change) != a_ready_key()


def test_clones_have_names_of_their_own_so_the_key_has_none():
    assert a_ready_key(workload=replace(WORKLOAD, hostname="web")) == a_ready_key()


def test_a_template_is_bound_to_its_shape_only():
    assert template_key(SHAPE) == template_key(replace(SHAPE))
    assert template_key(SHAPE) != template_key(replace(SHAPE, vcpus=2))
    assert template_key(SHAPE) != a_ready_key()


def test_a_snapshot_comes_back_as_it_was(store):
    assert store.find("k") is None
    made = committed(store, "k", StartKind.READY, image_id="i1")
    assert (made.kind, made.image_id, made.disk_digest) == (StartKind.READY, "i1", DIGEST)
    assert made.bytes >= 4096
    assert made.bytes == store.bytes
    assert all(path.is_file() for path in (made.memory, made.state, made.disk))
    assert store.find("k") == made
    assert reopened(store).all() == [made]
    assert not list(store._directory.glob(f"{MAKING}*"))


def test_one_that_is_sealed_is_not_found_before_it_is_committed(store):
    directory = store.new_directory()
    (directory / "memory").write_bytes(b"m" * 4096)
    sealed = store.seal(directory, key="k", kind=StartKind.TEMPLATE)
    assert (store.find("k"), store.bytes) == (None, 0)
    store.commit(directory, sealed)
    assert store.find("k") is sealed
    assert sealed.memory.read_bytes() == b"m" * 4096
    assert not directory.exists()


def test_one_that_is_sealed_and_not_committed_is_swept(store):
    directory = store.new_directory()
    (directory / "memory").write_bytes(b"m")
    store.seal(directory, key="k", kind=StartKind.TEMPLATE)
    assert reopened(store).all() == []
    assert list(store._directory.iterdir()) == []


def test_nobody_else_can_read_them(store):
    for path in (store._directory, store.new_directory()):
        assert path.stat().st_mode & 0o077 == 0


def test_holes_take_nothing(store):
    directory = store.new_directory()
    with (directory / "memory").open("wb") as memory:
        memory.truncate(1 << 30)
    made = store.seal(directory, key="k", kind=StartKind.TEMPLATE)
    assert made.bytes < 1 << 20


def test_a_new_one_takes_the_place_of_the_old(store):
    committed(store, "k")
    made = committed(store, "k", size=100_000)
    assert store.all() == [made]
    assert store.bytes == made.bytes
    assert made.memory.stat().st_size == 100_000


def test_what_a_crash_leaves_is_swept(store):
    good = committed(store, "good")
    leftover = store.new_directory()
    (leftover / "memory").write_bytes(b"x")
    shutil.copytree(good.directory, store.new_directory(), dirs_exist_ok=True)  # on its way here, or away
    (store._directory / "empty").mkdir()
    again = reopened(store)
    assert again.all() == [good]
    assert [path.name for path in store._directory.iterdir()] == ["good"]


@pytest.mark.parametrize(
    "record",
    [
        "", "{", "[]", "null", "{}",
        json.dumps({"kind": "warm", "image_id": "", "disk_digest": "", "made_ns": 1, "bytes": 1}),
        json.dumps({"kind": "ready", "image_id": "", "disk_digest": "", "made_ns": 1}),
    ],
)  # fmt: skip
def test_one_with_a_broken_record_is_swept(store, record):
    broken = committed(store, "broken")
    (broken.directory / "snapshot.json").write_text(record)
    assert reopened(store).all() == []
    assert not broken.directory.exists()


def test_the_order_of_use_outlives_the_service(store):
    made = [committed(store, key) for key in "abc"]
    for number, snapshot in enumerate(made):
        os.utime(snapshot.directory / "snapshot.json", (number, number))
    store.touch(made[0])
    assert keys(store) == ["b", "c", "a"]
    assert keys(reopened(store)) == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("bound", "left"), [(1 << 30, ["b", "c", "a"]), (150_000, ["a"]), (250_000, ["c", "a"]), (0, ["a"])]
)
def test_the_least_recently_used_are_given_up(tmp_path, bound, left):
    store = a_store(tmp_path, max_bytes=bound)
    first, *_ = [committed(store, key, size=100_000) for key in "abc"]
    store.touch(first)
    store.sweep()
    assert keys(store) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)


def test_a_bound_that_was_lowered_holds_from_the_start(store):
    for number, key in enumerate("abc"):
        snapshot = committed(store, key, size=100_000)
        os.utime(snapshot.directory / "snapshot.json", (number, number))
    assert keys(a_store(store._directory, max_bytes=250_000)) == ["b", "c"]
    assert sorted(path.name for path in store._directory.iterdir()) == ["b", "c"]


def test_dropping(store):
    snapshot = committed(store, "k")
    link = store._directory / "a-machines-own"
    os.link(snapshot.memory, link)
    store.drop("k")
    store.drop("k")
    assert store.find("k") is None
    assert not snapshot.directory.exists()
    assert link.stat().st_nlink == 1
    store.touch(snapshot)  # by one who had found it before
    assert store.all() == []


def test_dropping_those_of_an_image(store):
    committed(store, "t")
    for key, image_id in (("a", "i1"), ("b", "i2"), ("c", "i1")):
        committed(store, key, StartKind.READY, image_id=image_id)
    store.drop_where(lambda snapshot: snapshot.image_id == "i1")
    assert keys(store) == ["t", "b"]
