"""Any message, made a request as a client does and bound again, is the same message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.conformance.api import mapping
from tests.conformance.checks import same
from tests.conformance.client import request_of
from tests.conformance.messages import TEXTS, messages

# A variable of one segment cannot be empty, and has all that it can be; `newest` is another binding's.
SEGMENTS = TEXTS.filter(lambda text: text not in {"", "newest"})
BINDINGS = [
    ("POST", "/v1/body", {}),
    ("GET", "/v1/query", {}),
    ("GET", "/v1/one/{text}", {"text": SEGMENTS}),
    ("GET", "/v1/one/{text}:watch", {"text": SEGMENTS}),
    ("GET", "/v1/files/{text=**}", {"text": TEXTS}),
    ("GET", "/v1/two/{text}/{renamed}", {"text": SEGMENTS, "renamed": SEGMENTS}),
    ("GET", "/v1/{text=shelves/*/books/*}", {"text": st.builds("shelves/{}/books/{}".format, *[st.integers()] * 2)}),
    ("POST", "/v1/body/{text}", {"text": SEGMENTS}),
    ("POST", "/v1/part/{text}", {"text": SEGMENTS}),
    ("PUT", "/v1/part/{nested.text}", {"nested.text": SEGMENTS}),
    ("GET", "/v1/typed/number/{number}", {"number": st.integers(-(1 << 31), (1 << 31) - 1)}),
    ("GET", "/v1/typed/flag/{flag}", {"flag": st.booleans()}),
    ("GET", "/v1/typed/exact/{exact}", {"exact": st.floats(allow_nan=False)}),
    ("GET", "/v1/typed/data/{data}", {"data": st.binary(min_size=1)}),
    ("GET", "/v1/typed/colour/{colour}", {"colour": st.integers(-3, 3)}),
    ("GET", "/v1/typed/maybe/{maybe}", {"maybe": st.integers(-3, 3)}),
    ("GET", "/v1/typed/one/{one}", {"one": SEGMENTS}),
]


def _set(message: Any, path: str, value: Any) -> None:
    *outer, name = path.split(".")
    for each in outer:
        message = getattr(message, each)
    setattr(message, name, value)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("method", "template", "variables"), BINDINGS, ids=[f"{m} {t}" for m, t, _ in BINDINGS])
def test_round_trip(method, template, variables):
    endpoint = mapping().endpoint(method, template)
    descriptor = endpoint.method.input_type.DESCRIPTOR
    in_query = endpoint.binding.body != "*"

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(
        messages(descriptor, in_query=in_query), messages(descriptor), st.fixed_dictionaries(variables), st.booleans()
    )
    def run(message: Any, body: Any, values: dict[str, Any], proto_names: bool) -> None:
        if endpoint.binding.body == "nested":
            message.nested.CopyFrom(body)
        for path, value in values.items():
            _set(message, path, value)
        http_method, target, content = request_of(endpoint, message, proto_names=proto_names)
        assume(target.count("&") < 900)
        found, bound = mapping().bind(http_method, target, content)
        assert found is endpoint
        assert same(bound, message), (target, content)

    run()
