import contextlib
import re
import socket

import pytest

from uhm_machines.errors import InvalidRequest, PortInUse
from uhm_machines.machine import PortMapping, Transport
from uhm_machines.ports import PortBook, free_port


def port(number=0, *, address="127.0.0.1", transport=Transport.TCP):
    return PortMapping(host_address=address, host_port=number, guest_port=80, transport=transport)


def listening(number):
    """What QEMU does."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", number))
    sock.listen()
    return sock


@pytest.mark.parametrize("transport", Transport)
def test_any_free_port(transport):
    with PortBook().claim("a", name="a", ports=[port(transport=transport), port(transport=transport)]) as claimed:
        numbers = [mapping.host_port for mapping in claimed]
        assert all(numbers)
        assert len(set(numbers)) == 2


def test_the_emulator_can_listen_while_the_port_is_held():
    with PortBook().claim("a", name="a", ports=[port()]) as claimed, listening(claimed[0].host_port):
        pass


def test_a_free_port_is_held_for_the_emulator():
    with free_port() as number:
        with listening(number):
            pass
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", number))
    with socket.socket() as other:
        other.bind(("127.0.0.1", number))


def test_a_port_that_another_program_has():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        book = PortBook()
        said = f"Port 127.0.0.1:{number}/tcp is in use by another program"
        with pytest.raises(PortInUse, match=re.escape(said)), book.claim("a", name="a", ports=[port(number)]):
            pass
        with book.claim("a", name="a", ports=[port(number, transport=Transport.UDP)]):
            pass


def test_a_port_that_another_machine_has():
    book = PortBook()
    with book.claim("a", name="first", ports=[port()]) as claimed:
        number = claimed[0].host_port
    for address in ("127.0.0.1", "0.0.0.0"):
        with (
            pytest.raises(PortInUse, match="machine first"),
            book.claim("b", name="b", ports=[port(number, address=address)]),
        ):
            pass
    book.release("a")
    with book.claim("b", name="b", ports=[port(number)]):
        pass


def test_a_failure_gives_the_ports_back():
    book = PortBook()
    with contextlib.suppress(ZeroDivisionError), book.claim("a", name="a", ports=[port()]) as claimed:
        raise ZeroDivisionError
    with book.claim("b", name="b", ports=claimed):
        pass


def test_an_address_of_another_host():
    with (
        pytest.raises(InvalidRequest, match=re.escape("192.0.2.1")),
        PortBook().claim("a", name="a", ports=[port(9, address="192.0.2.1")]),
    ):
        pass
