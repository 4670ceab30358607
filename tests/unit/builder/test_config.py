"""Healthchecks in an image's configuration document, and as messages."""

from __future__ import annotations

import json

import pytest

from uhm_builder.images import Healthcheck, Image, ImageConfig, Status
from uhm_builder.messages import image_message
from uhm_builder.sources.config import parse_config

SECOND = 1_000_000_000


def healthcheck_of(record, **settings):
    document = {"rootfs": {"diff_ids": []}, "config": {"Healthcheck": record, **settings}}
    config, _ = parse_config(json.dumps(document).encode(), architecture="amd64")
    return config.healthcheck


def message_of(healthcheck):
    image = Image(
        number=1,
        id="i",
        owner="alice",
        reference="a:1",
        status=Status.READY,
        created_at=1,
        config=ImageConfig(healthcheck=healthcheck),
    )
    return image_message(image).config


def test_what_is_not_said_is_dockers_default():
    assert healthcheck_of({"Test": ["CMD", "curl", "-f", "http://localhost/"]}) == Healthcheck(
        command=("curl", "-f", "http://localhost/"),
        interval_ns=30 * SECOND,
        timeout_ns=30 * SECOND,
        start_period_ns=0,
        retries=3,
    )


@pytest.mark.parametrize("nothing", [0, None])
def test_zero_is_not_said(nothing):
    said = {"Test": ["CMD", "true"]}

    assert healthcheck_of(
        said | {"Interval": nothing, "Timeout": nothing, "StartPeriod": nothing, "Retries": nothing}
    ) == healthcheck_of(said)


def test_what_is_said_counts():
    record = {
        "Test": ["CMD", "true"],
        "Interval": 5 * SECOND,
        "Timeout": 1_000_000,
        "StartPeriod": SECOND,
        "Retries": 9,
    }

    assert healthcheck_of(record) == Healthcheck(
        command=("true",), interval_ns=5 * SECOND, timeout_ns=1_000_000, start_period_ns=SECOND, retries=9
    )


@pytest.mark.parametrize(
    ("test", "settings", "command"),
    [
        (["CMD", "a", "", "b c"], {}, ("a", "", "b c")),
        (["CMD", "a"], {"Shell": ["/bin/bash", "-c"]}, ("a",)),
        (["CMD-SHELL", "a || exit 1"], {}, ("/bin/sh", "-c", "a || exit 1")),
        (["CMD-SHELL", "a"], {"Shell": None}, ("/bin/sh", "-c", "a")),
        (["CMD-SHELL", "a"], {"Shell": []}, ("/bin/sh", "-c", "a")),
        (
            ["CMD-SHELL", "a"],
            {"Shell": ["/bin/bash", "-o", "pipefail", "-c"]},
            ("/bin/bash", "-o", "pipefail", "-c", "a"),
        ),
    ],
)
def test_a_command_is_what_is_executed(test, settings, command):
    assert healthcheck_of({"Test": test}, **settings).command == command


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"Test": None},
        {"Test": []},
        {"Test": ["NONE"]},
        {"Test": ["NONE"], "Interval": SECOND},
        {"Interval": SECOND},
        "CMD true",
        ["CMD", "true"],
        {"Test": "CMD true"},
        {"Test": {"CMD": "true"}},
        {"Test": ["true"]},
        {"Test": ["CMD"]},
        {"Test": ["CMD-SHELL"]},
        {"Test": ["CMD", ""]},
        {"Test": ["CMD-SHELL", ""]},
        {"Test": ["CMD", 1]},
        {"Test": ["CMD", "a", None]},
        {"Test": [["CMD"], "a"]},
        {"Test": ["CMD", "true"], "Interval": -1},
        {"Test": ["CMD", "true"], "Interval": 999_999},
        {"Test": ["CMD", "true"], "Timeout": "30s"},
        {"Test": ["CMD", "true"], "Timeout": 1.5e9},
        {"Test": ["CMD", "true"], "StartPeriod": 2**63},
        {"Test": ["CMD", "true"], "Retries": True},
        {"Test": ["CMD", "true"], "Retries": -1},
        {"Test": ["CMD", "true"], "Retries": 2**31},
        {"Test": ["CMD", "true"], "Retries": [3]},
    ],
    ids=json.dumps,
)
def test_none_and_what_docker_would_not_execute_is_none(record):
    assert healthcheck_of(record) is None


def test_a_healthcheck_is_told():
    message = message_of(
        Healthcheck(command=("a", "b"), interval_ns=1_500_000_000, timeout_ns=1, start_period_ns=0, retries=4)
    ).healthcheck

    assert list(message.command) == ["a", "b"]
    assert (message.interval.ToNanoseconds(), message.timeout.ToNanoseconds()) == (1_500_000_000, 1)
    assert message.HasField("start_period")
    assert (message.start_period.ToNanoseconds(), message.retries) == (0, 4)


def test_the_largest_that_is_parsed_fits_a_message():
    bound = 2**63 - 1
    record = {"Test": ["CMD", "a"], "Interval": bound, "Timeout": bound, "StartPeriod": bound, "Retries": 2**31 - 1}

    message = message_of(healthcheck_of(record)).healthcheck

    assert message.interval.ToNanoseconds() == message.start_period.ToNanoseconds() == bound
    assert message.retries == 2**31 - 1


def test_no_healthcheck_is_not_told():
    assert not message_of(None).HasField("healthcheck")
