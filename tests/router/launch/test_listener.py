"""The port: one server owns it from the first second, and it refuses connections until it is served."""

import asyncio
import gc
import os
import socket
import warnings

import pytest
import uvloop

from peregrine_router.launch.listener import ACCEPTS, SEND_BUFFER_BYTES, accepting, bind, listen
from serving import free_port, occupied_port


def test_send_buffers_are_small() -> None:
    """Every connection inherits the listener's buffer: a client that does not read is noticed early."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES


def test_a_port_has_one_owner_before_it_is_served() -> None:
    """A second server on the port is refused while the first one still loads, and again while that serves."""
    port = free_port()
    with bind("127.0.0.1", port) as listener:
        with pytest.raises(OSError, match=f"^port {port} is in use: "):
            bind("127.0.0.1", port)
        listen(listener, 16)
        with pytest.raises(OSError, match=f"^port {port} is in use: "):
            bind("127.0.0.1", port)


def test_connections_are_refused_until_the_server_listens() -> None:
    """A port that accepts would say that the model is loaded."""
    port = free_port()
    with bind("127.0.0.1", port) as listener:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        listen(listener, 16)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_restart_does_not_wait_for_old_connections() -> None:
    """A port with connections in TIME_WAIT can be bound at once, twice in a row."""
    port = free_port()
    for _ in range(3):
        with bind("127.0.0.1", port) as listener:
            listen(listener, 16)
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                accepted, _ = listener.accept()
                accepted.close()
                assert client.recv(1) == b""


@pytest.mark.parametrize("hostname", ["127.0.0.1", "192.0.2.1"])
def test_a_failed_bind_leaves_no_socket_open(hostname: str) -> None:
    """A used port, and an address of another machine."""
    with occupied_port() as port, warnings.catch_warnings():
        warnings.simplefilter("error")
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match=r"in use|cannot listen on"):
            bind(hostname, port)
        assert len(os.listdir("/proc/self/fd")) == before
        gc.collect()


def test_a_turn_of_the_loop_accepts_many_connections() -> None:
    """Under load a turn takes milliseconds: one connection a turn, which is libuv's pace, left clients waiting."""

    async def num_turns(listener: socket.socket) -> int:
        accepted: list[asyncio.BaseTransport] = []
        loop = asyncio.get_running_loop()

        class Accepted(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.append(transport)

        servers = [await loop.create_server(Accepted, sock=each) for each in accepting(listener)]
        turns = 0
        while len(accepted) < 4 * ACCEPTS:
            await asyncio.sleep(0)
            turns += 1
        for transport in accepted:
            transport.close()
        for server in servers:
            server.close()
        return turns

    with bind("127.0.0.1", 0) as listener:
        listen(listener, 128)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(4 * ACCEPTS)]
        assert uvloop.run(num_turns(listener)) < 2 * ACCEPTS
        for client in clients:
            client.close()
