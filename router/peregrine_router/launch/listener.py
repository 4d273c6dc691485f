"""The TCP port: claimed before a model loads, opened when it is served."""

import errno
import socket

SEND_BUFFER_BYTES = 128 * 2**10
"""SO_SNDBUF of each connection; Linux doubles it. By default it grows to megabytes, which hold thousands of tokens: a
client that does not read would be noticed only when everything is generated."""

ACCEPTS = 16
"""Connections accepted in a turn of the event loop. libuv accepts one for each descriptor: under load a turn takes
milliseconds, so connections waited in the kernel's queue, and beyond it for the client's next SYN, seconds later."""


def bind(hostname: str, port: int) -> socket.socket:
    """A TCP socket that owns its address and refuses connections until `listen`. Raises OSError with one line."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind(address)
        if port:
            _claim(listener)
    except OSError as error:
        if listener is not None:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is in use: stop what listens there, or choose another --port") from None
        raise OSError(f"cannot listen on {hostname}:{port} ({error.strerror}): check --hostname and --port") from None
    return listener


def listen(listener: socket.socket, backlog: int) -> None:
    """Accepts connections from here on, and lets the port be bound again while the last of them linger."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.listen(backlog)


def accepting(listener: socket.socket) -> list[socket.socket]:
    """The listening socket under ACCEPTS descriptors, each of which accepts one connection a turn of the loop."""
    return [listener, *(listener.dup() for _ in range(ACCEPTS - 1))]


def _claim(listener: socket.socket) -> None:
    """Keeps others from the port.

    Two sockets with SO_REUSEADDR may be bound to one port until one of them listens, so another server would load its
    model before it learns that it lost. This one listens for a moment, which excludes the others, and no longer allows
    reuse. It does not stay listening: who waits for the port would take the server for ready.
    """
    listener.listen()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    listener.shutdown(socket.SHUT_RDWR)
