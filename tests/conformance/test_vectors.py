"""The vectors through the real mapping, without servers: template, match, bind, render."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.conformance.api import mapping
from tests.conformance.checks import check_answer, expected, same
from tests.conformance.vectors import ANSWERED, MALFORMED, REQUESTS, VECTORS, WELL_FORMED, Accepted, Refused
from uhm_common.errors import UhmError
from uhm_gateway.errors import BadRequest, MalformedTemplate, MethodNotAllowed, UnknownPath
from uhm_gateway.mapping.template import parse_template

STATUSES = {BadRequest: 400, UnknownPath: 404, MethodNotAllowed: 405}
ACCEPTED = [vector for vector in REQUESTS if isinstance(vector, Accepted)]
REFUSED = [vector for vector in REQUESTS if isinstance(vector, Refused)]


def by_id(vectors):
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector.id)


def test_there_are_enough():
    assert len(VECTORS) >= 250
    assert len(MALFORMED) >= 40


def test_each_has_a_name_of_its_own_and_a_clause():
    assert [name for name, times in Counter(vector.id for vector in VECTORS).items() if times > 1] == []
    assert {vector.clause.partition(": ")[0] for vector in VECTORS} <= {
        "http",
        "json",
        "uri",
        "form",
        "gateway",
        "ours",
    }


@by_id(WELL_FORMED)
def test_well_formed_templates(vector):
    template = parse_template(vector.text)
    assert (template.segments, template.variables, template.verb) == (vector.segments, vector.variables, vector.verb)


@by_id(MALFORMED)
def test_malformed_templates(vector):
    with pytest.raises(MalformedTemplate) as caught:
        parse_template(vector.text)
    assert vector.problem in str(caught.value)
    assert caught.value.position == vector.position


@by_id(ACCEPTED)
def test_accepted_requests(vector):
    method, _, target = vector.request.partition(" ")
    endpoint, message = mapping().bind(method, target, vector.body, content_type=vector.content_type)
    assert endpoint.method.name == vector.method
    assert same(message, expected(vector.message, type(message)))


@by_id(REFUSED)
def test_refused_requests(vector):
    method, _, target = vector.request.partition(" ")
    with pytest.raises(UhmError) as caught:
        mapping().bind(method, target, vector.body)
    assert vector.names in str(caught.value)
    assert STATUSES[type(caught.value)] == vector.status
    json.dumps(str(caught.value), ensure_ascii=False).encode()


@by_id(ANSWERED)
def test_answers(vector):
    method, _, path = vector.request.partition(" ")
    endpoint = mapping().router.match(method, path).target
    rendered = endpoint.renderer.render(expected(vector.message, endpoint.method.output_type))
    check_answer(vector, rendered.content_type.decode(), rendered.body)
