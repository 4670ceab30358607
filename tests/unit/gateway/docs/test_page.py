"""The documentation page."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from uhm_gateway.docs.page import Documentation
from uhm_gateway.docs.walkthrough import WALKTHROUGH_SERVICES, walkthrough
from uhm_gateway.mapping.descriptors import load_api, packaged_descriptor_set

PATHS = ("/api/v1/container/create", "/api/v1/images/{id}:watch", "/api/v1/machines", "/api/v1/token/issue")
BASE = "http://h:1"


class Outline(HTMLParser):
    """The elements of a page with their attributes, and its text; raises where tags do not match."""

    VOID = frozenset(("meta", "link", "input", "br", "wbr"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID and tag not in {"rect", "path", "circle"}:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def ours():
    return Documentation(load_api(packaged_descriptor_set()), served=sorted(WALKTHROUGH_SERVICES))


def test_every_binding_is_there_in_both_forms(ours):
    for shown in (Outline(ours.html(BASE)).words, ours.text(BASE)):
        for path in PATHS:
            assert path in shown


def test_the_page_is_well_formed_and_its_links_lead_somewhere(ours):
    outline = Outline(ours.html(BASE))
    ids = outline.ids()
    assert len(ids) == len(set(ids))
    targets = [attributes["href"] or "" for tag, attributes in outline.elements if tag == "a"]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    assert {target for target in targets if not target.startswith("#")} == {"/openapi.json"}


def test_every_field_to_fill_in_has_a_label(ours):
    page = ours.html(BASE)
    inputs = re.findall(r"<(?:input|textarea)[^>]*>", page)
    labelled = re.findall(r"<label>(?:(?!</label>).)*<(?:input|textarea)|<input[^>]*aria-label=", page, re.DOTALL)
    assert len(labelled) == len(inputs) > 50


def test_the_walk_through_uses_the_address_it_was_asked_at(ours):
    for step in walkthrough(BASE):
        assert step.command in Outline(ours.html(BASE)).words
        assert all(line in ours.text(BASE) for line in step.command.splitlines())
    assert sum(BASE in step.command for step in walkthrough(BASE)) >= 6


def test_nothing_comes_from_another_host_and_nothing_is_inline(ours):
    page = ours.html(BASE)
    assert not re.findall(r"""(?:src|href|@import|url\()\s*=?\s*["']?(?:https?:)?//""", page)
    assert not re.findall(r"<style|<script>|\son\w+=|\sstyle=|javascript:", page)
    for name in ("page.css", "page.js"):
        assert not re.findall(
            r"https?://|@import|\burl\(", files("uhm_gateway.docs").joinpath("static", name).read_text()
        )


def test_addresses_are_escaped(ours):
    assert "<script>alert" not in ours.html("http://<script>alert(1)</script>")


def test_who_may_call_is_told(ours):
    words = Outline(ours.html(BASE)).words
    for badge in ("no token", "refresh token", "images.write", "machines.read", "login only"):
        assert badge in words


def test_other_apis_have_no_walk_through(api):
    page = Documentation(api, served=["kinds.v1.Kinds"])
    for shown in (Outline(page.html("http://h")).words, page.text("http://h")):
        assert "export TOKEN" not in shown
        assert "kinds.v1.Kinds" in shown
        assert "The method" in shown
        assert "map of string to int32" in shown


def test_services_come_in_the_order_they_are_served_in():
    api = load_api(packaged_descriptor_set())
    names = sorted(WALKTHROUGH_SERVICES, reverse=True)
    text = Documentation(api, served=names).text(BASE)
    assert sorted(names, key=text.index) == names


def test_services_that_are_not_served_are_left_out(api):
    assert "kinds.v1.Kinds" not in Documentation(api, served=[]).text("http://h")


def test_methods_without_a_binding_are_shown_for_grpc(compiled):
    proto = 'syntax = "proto3"; package p.v1; service S { rpc M(E) returns (E); } message E { string word = 1; }'
    page = Documentation(load_api(compiled(proto)), served=["p.v1.S"]).html(BASE)
    assert "p.v1.S/M" in page
    assert "<code>word</code>" in page
    assert 'class="try"' not in page


def forms(page: str) -> dict[str, tuple[dict[str, str | None], str]]:
    """The attributes of each method's form, and the body that it begins with."""
    found = {}
    for text in re.findall(r"<form class=\"try\".*?</form>", page, re.DOTALL):
        ((_, attributes),) = [each for each in Outline(text).elements if each[0] == "form"]
        body = re.search(r"<textarea[^>]*>(.*)</textarea>", text, re.DOTALL)
        is_raw = 'data-in="raw"' in text
        found[attributes["aria-label"].removeprefix("Try ")] = (
            attributes,
            "raw" if is_raw else html.unescape(body[1]) if body else "",
        )
    return found


def test_what_is_tried_out(ours, api):
    of_ours, of_kinds = forms(ours.html(BASE)), forms(Documentation(api, served=["kinds.v1.Kinds"]).html(BASE))
    assert of_ours["CreateUser"][0]["data-bearer"] == ""
    assert of_ours["RefreshToken"][0]["data-bearer"] == "refresh"
    assert of_ours["StopMachine"][0]["data-path"] == "/api/v1/machines/{id}:stop"
    assert of_ours["StopMachine"][0]["data-bearer"] == "access"
    assert json.loads(of_ours["IssueToken"][1]) == {"username": "", "password": "", "rotate": False}
    assert of_ours["GetMachine"][1] == ""
    assert of_ours["UploadContext"][1] == "raw"
    assert of_kinds["Tags"][1] == "[]"
    assert json.loads(of_kinds["Body"][1])["colour"] == "COLOUR_UNSPECIFIED"
    assert of_kinds["Raw"][1] == "raw"
