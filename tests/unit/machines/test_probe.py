import json

import pytest

from tests.unit.machines.stand_ins import BOOT
from uhm_machines import probe as probing
from uhm_machines.errors import HostUnsuitable
from uhm_machines.machine import Accelerator
from uhm_machines.probe import HostProbe, parse_version, qemu_version


@pytest.fixture
def counted(monkeypatch):
    """What was tried, in order; KVM works."""
    tried = []

    async def kvm_works(_self, _boot, tsc_khz):
        tried.append(("kvm", tsc_khz))
        return True

    monkeypatch.setattr(HostProbe, "_kvm_works", kvm_works)
    monkeypatch.setattr(probing, "measure_tsc_khz", lambda: 2_500_000)
    monkeypatch.setattr(probing, "qemu_version", lambda _qemu: "9.1.0")
    return tried


def a_probe(path, accelerator="auto"):
    return HostProbe(qemu="qemu", accelerator=accelerator, cache=path / "host.json")


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright", "7.2.22"),
        ("QEMU emulator version 10.0", "10.0"),
    ],
)
def test_versions(answer, version):
    assert parse_version(answer) == version


def test_an_answer_without_a_version():
    with pytest.raises(HostUnsuitable, match="nonsense"):
        parse_version("nonsense")


def test_no_emulator():
    with pytest.raises(HostUnsuitable, match="no-such-qemu is not installed"):
        qemu_version("no-such-qemu")


async def test_findings_are_kept_until_the_host_boots_or_changes(tmp_path, counted):
    assert await a_probe(tmp_path).accelerator(BOOT) is Accelerator.KVM
    host = await a_probe(tmp_path).host(BOOT)
    assert (host.tsc_khz, host.qemu_version, len(counted)) == (2_500_000, "9.1.0", 1)
    cache = tmp_path / "host.json"
    for field, value in (("boot_id", "another"), ("qemu_version", "8.0")):
        cache.write_text(json.dumps(json.loads(cache.read_text()) | {field: value}))
        await a_probe(tmp_path).host(BOOT)
    assert len(counted) == 3


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"unknown": 1}'])
async def test_a_cache_that_cannot_be_read_is_made_anew(tmp_path, counted, content):
    (tmp_path / "host.json").write_text(content)
    assert (await a_probe(tmp_path).host(BOOT)).kvm
    assert len(counted) == 1


async def test_settings_have_the_last_word(tmp_path, counted):
    assert await a_probe(tmp_path, "tcg").accelerator(BOOT) is Accelerator.TCG
    assert not (await a_probe(tmp_path, "tcg").host(BOOT)).kvm
    assert counted == []
    assert not (tmp_path / "host.json").exists()


async def test_without_the_device_there_is_no_kvm(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "KVM_DEVICE", tmp_path / "kvm")
    assert not await a_probe(tmp_path)._kvm_works(BOOT, 1)


async def test_a_host_whose_counter_cannot_be_measured(tmp_path, counted, monkeypatch):
    def refuse():
        raise OSError("no time stamp counter is known on s390x")

    monkeypatch.setattr(probing, "measure_tsc_khz", refuse)
    with pytest.raises(HostUnsuitable, match="s390x"):
        await a_probe(tmp_path).host(BOOT)
