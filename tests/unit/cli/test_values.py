"""Sizes, ports and environments as docker's command line takes them."""

from __future__ import annotations

import click
import pytest

from uhm.values import exposed_port, memory_mib, parse_environment, parse_port, vcpus


@pytest.mark.parametrize(
    ("text", "mib"),
    [("512m", 512), ("1g", 1024), ("1.5g", 1536), ("256M", 256), ("268435456", 256), ("262144k", 256), ("64mb", 64),
     ("64MiB", 64), ("1", 1)],
)  # fmt: skip
def test_memory(text, mib):
    assert memory_mib(text) == mib


@pytest.mark.parametrize("text", ["", "m", "12q", "-5m", "1 2"])
def test_no_memory(text):
    with pytest.raises(click.BadParameter):
        memory_mib(text)


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("2", 2), ("1.5", 2), ("0.1", 1)])
def test_cpus(text, count):
    assert vcpus(text) == count


@pytest.mark.parametrize("text", ["0", "-1", "two", "nan", "inf"])
def test_no_cpus(text):
    with pytest.raises(click.BadParameter):
        vcpus(text)


@pytest.mark.parametrize(
    ("text", "address", "host", "guest", "protocol"),
    [
        ("8080:80", "", 8080, 80, "tcp"),
        ("80", "", 0, 80, "tcp"),
        ("53:53/udp", "", 53, 53, "udp"),
        ("53/udp", "", 0, 53, "udp"),
        ("0.0.0.0:8080:80", "0.0.0.0", 8080, 80, "tcp"),
        ("127.0.0.1::80", "127.0.0.1", 0, 80, "tcp"),
        ("[::1]:8080:80/TCP", "::1", 8080, 80, "tcp"),
        ("[::1]::80", "::1", 0, 80, "tcp"),
        (":80", "", 0, 80, "tcp"),
    ],
)
def test_port(text, address, host, guest, protocol):
    assert parse_port(text) == {
        "host_address": address,
        "host_port": host,
        "guest_port": guest,
        "protocol": protocol,
    }


@pytest.mark.parametrize("text", ["", "a:b", "8080:80/sctp", "70000:80", "80:0", "80:70000", "1:2:3:4", "8000-8001:80"])
def test_no_port(text):
    with pytest.raises(click.BadParameter):
        parse_port(text)


def test_exposed_ports():
    assert exposed_port("53/udp") == {"host_port": 0, "guest_port": 53, "protocol": "udp"}
    assert exposed_port("80") == {"host_port": 0, "guest_port": 80, "protocol": "tcp"}


def test_environment(tmp_path):
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nB=from file\nHOME\nEMPTY=\n")
    own = {"HOME": "/home/me", "SECRET": "s"}
    assert parse_environment(["B=2", "SECRET", "ABSENT", "C=x=y"], files=[file], own=own) == [
        "A=1", "B=2", "HOME=/home/me", "EMPTY=", "SECRET=s", "C=x=y",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["=x", "A B=1"])
def test_no_environment(text):
    with pytest.raises(click.BadParameter):
        parse_environment([text], own={})
