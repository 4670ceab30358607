"""The data area of the configuration partition, read back by docs/guest.md, and what a machine would have run."""

from __future__ import annotations

import struct

import pytest

from uhm_builder.errors import UnsupportedImage
from uhm_builder.export.configuration import DATA_BYTES, configuration, data_area
from uhm_builder.images import ImageConfig
from uhm_machines.images import ImageConfig as MachineImageConfig
from uhm_machines.requests import MachineRequest
from uhm_machines.workload import workload_of

CONFIG = ImageConfig(
    entrypoint=("/entry", ""),
    cmd=("nginx", "-g", "daemon off;"),
    env=("A=1", "PATH=/bin", "A=2=3", "BARE"),
    working_dir="/srv",
    user="www:www",
    stop_signal="SIGQUIT",
    hostname="web",
)


def test_the_settings_are_those_of_a_machine() -> None:
    workload = workload_of(
        MachineRequest(image="i"),
        MachineImageConfig(
            entrypoint=CONFIG.entrypoint,
            cmd=CONFIG.cmd,
            env=CONFIG.env,
            working_dir=CONFIG.working_dir,
            user=CONFIG.user,
            stop_signal=CONFIG.stop_signal,
        ),
    )

    settings = configuration(CONFIG)

    assert tuple(value for key, value in settings if key == "arg") == workload.argv
    assert tuple(value for key, value in settings if key == "env") == workload.env
    assert dict(settings) | {"arg": "", "env": ""} == {
        "arg": "",
        "env": "",
        "cwd": workload.working_dir,
        "user": workload.user,
        "hostname": "web",
        "stop-signal": str(workload.stop_signal),
    }


def test_what_is_empty_is_left_to_the_guest() -> None:
    assert configuration(ImageConfig(cmd=("sh",))) == (("arg", "sh"), ("stop-signal", "15"))


@pytest.mark.parametrize("config", [ImageConfig(), ImageConfig(entrypoint=("",), cmd=("x",))])
def test_an_image_without_a_command_is_refused(config: ImageConfig) -> None:
    with pytest.raises(UnsupportedImage, match="nothing to run"):
        configuration(config)


def test_the_data_area() -> None:
    area = data_area((("arg", "/bin/öl"), ("arg", "")))

    magic, length, zero = struct.unpack_from("<8sII", area)
    assert (magic, zero, len(area)) == (b"UHMCONF1", 0, DATA_BYTES)
    assert area[16 : 16 + length] == "arg\0/bin/öl\0arg\0\0".encode()
    assert not any(area[16 + length :])


@pytest.mark.parametrize(("value", "sentence"), [("a\0b", "NUL"), ("x" * DATA_BYTES, "Shorten its environment")])
def test_what_the_area_cannot_hold_is_refused(value: str, sentence: str) -> None:
    with pytest.raises(UnsupportedImage, match=sentence):
        data_area((("env", value),))
