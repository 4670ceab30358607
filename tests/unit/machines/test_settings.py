from pathlib import Path

import pytest
from pydantic import ValidationError

from uhm_machines.settings import Settings


def test_settings_come_from_the_environment(monkeypatch):
    for name, value in {
        "UHM_STATE_DIR": "/srv/uhm",
        "UHM_LISTEN": "127.0.0.1:7",
        "UHM_QEMU": "/opt/qemu",
        "UHM_ACCELERATOR": "tcg",
        "UHM_MAX_MACHINES": "3",
        "UHM_MAX_MEMORY_MIB": "4096",
        "UHM_MAX_LOG_MIB": "2",
        "UHM_SNAPSHOTS": "off",
        "UHM_MAX_SNAPSHOTS_MIB": "100",
        "UHM_SPARE_MACHINES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.listen, settings.qemu, settings.accelerator) == ("127.0.0.1:7", "/opt/qemu", "tcg")
    assert (settings.max_machines, settings.max_memory_mib, settings.max_log_mib) == (3, 4096, 2)
    assert (settings.snapshots, settings.max_snapshots_mib, settings.spare_machines) == ("off", 100, 0)
    assert settings.machines_dir == Path("/srv/uhm/machines")
    assert settings.snapshots_dir == Path("/srv/uhm/snapshots")
    assert settings.exports_dir == Path("/srv/uhm/exports")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UHM_LISTEN", "nowhere"),
        ("UHM_ACCELERATOR", "xen"),
        ("UHM_MAX_MACHINES", "0"),
        ("UHM_MAX_LOG_MIB", "-1"),
        ("UHM_SNAPSHOTS", "on"),
        ("UHM_MAX_SNAPSHOTS_MIB", "-1"),
        ("UHM_SPARE_MACHINES", "-1"),
    ],
)
def test_bad_settings_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()
