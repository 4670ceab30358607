"""Creating once, through REST and by the command line."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

AT_ONCE = 20


def images(system, token):
    return json.loads(system.uhm("images", "--json", token=token).stdout)["images"]


def test_many_creates_with_one_key_make_one_image(system):
    token, key = system.user("twenty"), f"Idempotency-Key: {uuid.uuid4()}"

    def create(image):
        return system.curl("/api/v1/container/create", "-H", key, token=token, data=json.dumps({"image": image}))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda _: create("hello"), range(AT_ONCE)))

    assert {answer.status for answer in answers} == {200}
    (made,) = {answer.json["id"] for answer in answers}
    assert [image["id"] for image in images(system, token)] == [made]
    other = create("debian")
    assert (other.status, other.json["code"]) == (400, 3)


def test_a_key_that_is_none_is_refused(system):
    token = system.user("keyless")
    answer = system.curl(
        "/api/v1/container/create", "-H", f"Idempotency-Key: {'k' * 256}", token=token, data='{"image":"hello"}'
    )

    assert (answer.status, "256 characters" in answer.json["message"]) == (400, True)
    assert images(system, token) == []


def test_a_pull_whose_builder_dies_is_asked_for_again(system):
    """The builder has the request, or is about to, and never answers it; the next one gets it with the same key."""
    token = system.user("survivor")
    builder = system.service_pid("builder")
    os.kill(builder, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        pulling = threads.submit(lambda: system.uhm("pull", "hello", token=token))
        time.sleep(1)
        os.kill(builder, signal.SIGKILL)
        pulling.result()

    assert [image["status"] for image in images(system, token)] == ["ready"]
