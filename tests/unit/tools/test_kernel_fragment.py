"""What is asked of a kernel is compared with what came out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.kernel.fragment import main, read_options, unmet

GUEST = Path(__file__).parents[3] / "guest"
CONFIG = "# Linux/x86 Configuration\nCONFIG_EROFS_FS=y\nCONFIG_HZ=100\n# CONFIG_MODULES is not set\n"


def test_options_are_read():
    text = '# a comment\n\nCONFIG_A=y\nCONFIG_B="text=1"\n# CONFIG_A is not set\n'
    assert read_options(text) == {"CONFIG_A": "n", "CONFIG_B": '"text=1"'}


def test_a_line_that_is_no_option_is_refused():
    with pytest.raises(ValueError, match="line 2 is not CONFIG_NAME=value: 'EROFS_FS=y'"):
        read_options("CONFIG_A=y\nEROFS_FS=y\n")


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ("CONFIG_EROFS_FS=y", []),
        ("CONFIG_HZ=1000", ["CONFIG_HZ is 100, not 1000"]),
        ("# CONFIG_MODULES is not set", []),
        ("# CONFIG_UNKNOWN is not set", []),
        ("# CONFIG_EROFS_FS is not set", ["CONFIG_EROFS_FS is y, not n"]),
        ("CONFIG_UNKNOWN=y", ["CONFIG_UNKNOWN is n, not y"]),
        ("CONFIG_MODULES=y", ["CONFIG_MODULES is n, not y"]),
    ],
)
def test_what_did_not_survive(asked, wrong):
    assert unmet(read_options(asked), read_options(CONFIG)) == wrong


def test_everything_unmet_is_printed(tmp_path, capsys):
    fragment, config = tmp_path / "fragment", tmp_path / ".config"
    fragment.write_text("CONFIG_EROFS_FS=y\n")
    config.write_text(CONFIG)
    assert main(fragment, config) == 0
    fragment.write_text("CONFIG_MODULES=y\nCONFIG_NONE=y\n")
    assert main(fragment, config) == 1
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["CONFIG_MODULES", "CONFIG_NONE"]


@pytest.mark.parametrize("name", ["kernel.config", "kernel-full.config"])
def test_the_guests_fragments_name_each_option_once(name):
    text = (GUEST / name).read_text()
    named = [line for line in text.splitlines() if line.startswith("CONFIG_") or line.endswith(" is not set")]
    assert len(read_options(text)) == len(named)


@pytest.mark.parametrize("option", ["EROFS_FS", "OVERLAY_FS", "EXT4_FS", "VIRTIO_CONSOLE", "PVH", "POSIX_MQUEUE"])
def test_what_init_needs_is_built_in(option):
    assert read_options((GUEST / "kernel.config").read_text())[f"CONFIG_{option}"] == "y"
