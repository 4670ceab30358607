from dataclasses import asdict
from unittest.mock import Mock

import pytest

from tests.unit.machines.stand_ins import DIGEST, IMAGE, StandInProbe, a_service, recorded_artifacts
from uhm_common.events import IMAGES_DELETED, IMAGES_READY
from uhm_machines.disks import read_image_disk
from uhm_machines.errors import HostUnsuitable
from uhm_machines.requests import DEFAULT_MEMORY_MIB
from uhm_machines.snapshots.announcements import SUBJECTS, Announcements

CHECK = {"command": ["true"], "interval_ns": 1, "timeout_ns": 1, "start_period_ns": 0, "retries": 1}


@pytest.fixture
def maker():
    return Mock()


@pytest.fixture
def artifacts(tmp_path):
    return recorded_artifacts(tmp_path)


@pytest.fixture
def announcements(maker, artifacts):
    return Announcements(maker=maker, probe=StandInProbe(), artifacts=artifacts)


def ready(**config):
    event = {"id": IMAGE.id, "owner": "anna", "reference": IMAGE.reference, "disk_digest": DIGEST}
    return event | {"config": asdict(IMAGE.config) | {"exposed_ports": ["80/tcp"]} | config}


def test_what_is_listened_to():
    assert set(SUBJECTS) == {IMAGES_READY, IMAGES_DELETED}


async def test_a_ready_image_has_its_snapshots_made_in_the_usual_shape(announcements, maker, artifacts):
    await announcements.handle(IMAGES_READY, ready())
    shape, disk = maker.want_template.call_args.args
    assert (shape.memory_mib, shape.vcpus, shape.disk_size) == (DEFAULT_MEMORY_MIB, 1, disk.machine_size)
    assert disk == read_image_disk(artifacts, DIGEST)
    maker.want_ready.assert_called_once_with(shape, disk, a_service())


@pytest.mark.parametrize(
    ("config", "of_service"),
    [
        ({"exposed_ports": [], "healthcheck": CHECK}, True),
        ({"exposed_ports": []}, False),
        ({"exposed_ports": ["53/udp"]}, False),
        ({"cmd": []}, False),
    ],
)
async def test_only_a_service_that_can_tell_is_run(announcements, maker, config, of_service):
    await announcements.handle(IMAGES_READY, ready(**config))
    maker.want_template.assert_called_once()
    assert maker.want_ready.called is of_service


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"id": "i1"},
        ready() | {"config": None},
        ready(healthcheck={"interval_ns": 1}),
        ready(healthcheck=CHECK | {"of_tomorrow": 1}),
        ready() | {"disk_digest": "sha256:" + "0" * 64},
    ],
)
async def test_an_event_of_no_use_is_passed_over(announcements, maker, event):
    await announcements.handle(IMAGES_READY, event)
    maker.want_template.assert_not_called()
    maker.want_ready.assert_not_called()


async def test_a_host_that_cannot_run_machines_makes_none(announcements, maker, monkeypatch):
    async def unsuitable(*_args):
        raise HostUnsuitable("No QEMU.")

    monkeypatch.setattr(StandInProbe, "host", unsuitable)
    await announcements.handle(IMAGES_READY, ready())
    maker.want_template.assert_not_called()


async def test_a_deleted_image_is_forgotten(announcements, maker):
    await announcements.handle(IMAGES_DELETED, {"id": IMAGE.id, "disk_digest": DIGEST})
    maker.forget_image.assert_called_once_with(IMAGE.id)
    await announcements.handle(IMAGES_DELETED, {})
    maker.forget_image.assert_called_once()
