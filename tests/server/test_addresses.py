"""Addresses and interfaces of a machine."""

import pytest

from peregrine_server.addresses import (
    AddressError,
    interface_of,
    join_endpoint,
    listen,
    own_address,
    route_to,
    split_endpoint,
)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp://10.0.0.1:5555", ("10.0.0.1", 5555)),
        ("tcp://[fd00::1]:5555", ("fd00::1", 5555)),
        ("tcp://eth0:1", ("eth0", 1)),
        ("tcp://falcon-0.falcon.llm.svc:65535", ("falcon-0.falcon.llm.svc", 65535)),
    ],
)
def test_an_endpoint_is_split_and_joined(endpoint: str, expected: tuple[str, int]) -> None:
    """IPv6 addresses stand in brackets."""
    assert split_endpoint(endpoint) == expected
    assert join_endpoint(*expected) == endpoint


@pytest.mark.parametrize("endpoint", ["", "10.0.0.1:5555", "tcp://10.0.0.1", "tcp://a:0", "tcp://a:65536", "ipc://x:1"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    """The error says how to write one."""
    with pytest.raises(AddressError, match="write tcp://HOST:PORT"):
        split_endpoint(endpoint)


def test_an_interface_and_its_address() -> None:
    """Loopback is known by both."""
    assert own_address("lo") == "127.0.0.1"
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.1") is None
    assert route_to("127.0.0.1", 1) == "127.0.0.1"


def test_another_machines_address_is_refused() -> None:
    """Nobody can listen there."""
    with pytest.raises(AddressError, match=r"203\.0\.113\.1 is no address of this machine"):
        own_address("203.0.113.1")


def test_a_free_port_is_listened_at() -> None:
    """Rank 0's store has its port before torch is imported."""
    with listen("127.0.0.1") as listener:
        host, port = listener.getsockname()
    assert host == "127.0.0.1"
    assert port > 0
