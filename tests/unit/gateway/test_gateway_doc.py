"""docs/gateway.md names every setting of the gateway, with the default that it has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from uhm_common.settings import CommonSettings
from uhm_gateway.mapping.descriptors import packaged_descriptor_set
from uhm_gateway.settings import GatewaySettings
from uhmalguhm.access.v1 import access_pb2

DOCUMENT = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text()
ROWS = dict(re.findall(r"^\| `UHM_([A-Z_]+)` \| ([^|]+) \|", DOCUMENT, re.MULTILINE))
UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "s": 1, "%": 0.01}
OWN = sorted(set(GatewaySettings.model_fields) - set(CommonSettings.model_fields))


def test_every_setting_is_in_a_table():
    assert sorted({name.lower() for name in ROWS} - set(CommonSettings.model_fields)) == OWN


def test_what_is_named_is_a_setting():
    named = {name.lower() for name in re.findall(r"`UHM_([A-Z_]+[A-Z])\b", DOCUMENT)}
    assert named <= set(GatewaySettings.model_fields)


@pytest.mark.parametrize("name", OWN)
def test_its_default_is_the_one_that_is_told(name):
    default = GatewaySettings.model_fields[name].get_default(call_default_factory=True)
    told = ROWS[name.upper()]
    if default is None or isinstance(default, str):
        assert told == (default or "none")
    elif isinstance(default, bool | tuple | dict):
        assert json.loads(told) == (list(default) if isinstance(default, tuple) else default)
    else:
        number, _, unit = told.partition(" ")
        assert float(number) * UNITS.get(unit, 1) == pytest.approx(default)


def test_the_calls_that_take_an_idempotency_key_are_named():
    files = FileDescriptorSet.FromString(packaged_descriptor_set()).file
    methods = [method for file in files for service in file.service for method in service.method]
    taking = {method.name for method in methods if method.options.Extensions[access_pb2.access].idempotency_key}
    sentence = re.search(r"cannot be made up\. (.*) take an `Idempotency-Key`", DOCUMENT, re.DOTALL)[1]
    assert set(re.findall(r"[A-Z]\w+", sentence)) == taking
