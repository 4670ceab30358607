from pathlib import Path

from uhm.system.findings import snapshots
from uhm.system.layout import Layout


def test_without_snapshots_it_is_said_when_they_come(tmp_path: Path) -> None:
    found = snapshots(Layout.of(tmp_path))
    assert found.ok
    assert "none yet" in found.detail


def test_complete_snapshots_are_counted_with_what_they_take_of_the_disk(tmp_path: Path) -> None:
    for name in ("a" * 64, "b" * 64, "making-1"):
        directory = tmp_path / "snapshots" / name
        directory.mkdir(parents=True)
        (directory / "snapshot.json").write_text("{}")
        with (directory / "memory").open("wb") as memory:
            memory.write(b"x" * 1_000_000)
            memory.truncate(256 << 20)
    found = snapshots(Layout.of(tmp_path))
    assert found.detail.startswith("2, ")
    assert "2.02 MB in all" in found.detail
