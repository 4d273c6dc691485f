"""This machine's address on the network to the router, and the interface that has it."""

import re
import socket
from typing import Any

import psutil

_ENDPOINT = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[\w.%-]+):(\d{1,5})")


class AddressError(ValueError):
    """An address that is none, or not of this machine; the message is one line that says what to do."""


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """(host, port) of tcp://HOST:PORT; an IPv6 address stands in brackets, and comes without. Raises AddressError."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 0 < int(match[2]) < 65536:
        raise AddressError(f"{endpoint} is no address: write tcp://HOST:PORT")
    return match[1].strip("[]"), int(match[2])


def join_endpoint(host: str, port: int) -> str:
    """tcp://HOST:PORT."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def own_address(host: str) -> str:
    """The IP address of this machine that `host` names: an interface such as eth0, an address, or a name.

    Raises AddressError.
    """
    addresses = psutil.net_if_addrs().get(host)
    if addresses:
        found = [each.address for each in addresses if each.family == socket.AF_INET]
        found += [each.address for each in addresses if each.family == socket.AF_INET6 and "%" not in each.address]
        if found:
            return found[0]
    address = _resolve(host)
    if interface_of(address) is None:
        raise AddressError(f"{host} is no address of this machine: name one, or an interface such as eth0")
    return address


def route_to(host: str, port: int) -> str:
    """The IP address by which this machine reaches `host`. Sends nothing. Raises AddressError."""
    family, kind, protocol, _, address = _lookup(host, port)
    with socket.socket(family, kind, protocol) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            raise AddressError(f"no route to {host} ({error.strerror})") from None
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str | None:
    """The name of the interface that has that IP address, such as eth0."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in addresses):
            return name
    return None


def listen(address: str) -> socket.socket:
    """A listening socket at any free port of that IP address of this machine."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.bind((address, 0))
    listener.listen()
    return listener


def _resolve(host: str) -> str:
    return str(_lookup(host, 1)[4][0])


def _lookup(host: str, port: int) -> tuple[Any, ...]:
    """The first (family, kind, protocol, name, address) of getaddrinfo."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        raise AddressError(f"{host} cannot be found ({error.strerror or error})") from None
    return found
