"""The documentation page."""

import re

import pytest

from uhm_gateway.descriptors import load_api, packaged_descriptor_set
from uhm_gateway.docs import Documentation

OURS = ("uhmalguhm.auth.v1.AuthService", "uhmalguhm.builder.v1.ImageService", "uhmalguhm.machines.v1.MachineService")


PATHS = (
    "/api/v1/container/create",
    "/api/v1/images/{id}:watch",
    "/api/v1/machines",
    "/api/v1/token/issue",
)


@pytest.fixture(scope="module")
def ours():
    return Documentation(load_api(packaged_descriptor_set()), served=frozenset(OURS))


def test_every_binding_is_there_in_both_forms(ours):
    for shown in (ours.html("http://h"), ours.text("http://h")):
        for path in PATHS:
            assert path in shown


def test_the_walk_through_uses_the_address_it_was_asked_at(ours):
    for shown in (ours.html("http://h:1"), ours.text("http://h:1")):
        assert shown.count("http://h:1/api/v1/") >= 5
        assert "export TOKEN" in shown


def test_nothing_comes_from_another_host(ours):
    assert not re.findall(r"""(?:src|href|@import|url\()\s*=?\s*["']?(?:https?:)?//""", ours.html("http://h"))


def test_addresses_are_escaped(ours):
    assert "<script>alert" not in ours.html("http://<script>alert(1)</script>")


def test_other_apis_have_no_walk_through(api):
    page = Documentation(api, served=frozenset({"kinds.v1.Kinds"}))
    for shown in (page.html("http://h"), page.text("http://h")):
        assert "TOKEN" not in shown
        assert "kinds.v1.Kinds" in shown
        assert "The method" in shown
        assert "map of string to int32" in shown


def test_services_that_are_not_served_are_left_out(api):
    assert "kinds.v1.Kinds" not in Documentation(api, served=frozenset()).text("http://h")
