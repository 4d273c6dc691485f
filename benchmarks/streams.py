"""Many streams of server-sent events at once from one thread, at a read and a count for each piece."""

import selectors
import socket
import time
from dataclasses import dataclass, field

END_OF_EVENT = b"\n\n"
END_OF_ANSWER = b"0\r\n\r\n"
READ_BYTES = 2**18
IDLE_SECONDS = 60.0
"""Seconds of silence after which a server counts as broken."""


@dataclass(slots=True, eq=False)
class Stream:
    """One answer being received."""

    sock: socket.socket
    head: bytes = b""
    """Its first bytes: status and headers."""
    tail: bytes = b""
    """Its last bytes so far."""
    num_events: int = 0

    @property
    def is_ok(self) -> bool:
        """Whether the status is good and no error event ends it."""
        return self.head.startswith(b"HTTP/1.1 200 ") and b'"error' not in self.tail


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a load."""

    num_events: int
    num_failed: int
    """Streams that were refused, ended with an error, or had another number of events than asked for."""
    seconds: float
    """From the first request to the last byte."""
    steady_rate: float
    """Events per second while all streams ran: from the last one's first event to the first one's end."""
    client_busy: float
    """The client's CPU time in the steady part, as a share of its wall time."""


@dataclass(slots=True)
class _Meter:
    """Finds the steady part of a load: from the last stream's first event to the first stream's end."""

    num_waiting: int
    num_events: int = 0
    began: tuple[float, float, int] | None = None
    ended: tuple[float, float, int] | None = None
    open: set[Stream] = field(default_factory=set)

    def mark(self) -> tuple[float, float, int]:
        return time.perf_counter(), time.thread_time(), self.num_events


def run(port: int, request: bytes, num_streams: int, num_events: int) -> Load:
    """Sends the request `num_streams` times, each on its own connection, and reads all answers to their ends."""
    meter = _Meter(num_streams)
    with selectors.DefaultSelector() as selector:
        for _ in range(num_streams):
            stream = Stream(socket.create_connection(("127.0.0.1", port)))
            meter.open.add(stream)
            selector.register(stream.sock, selectors.EVENT_READ, stream)
        streams, start = list(meter.open), time.perf_counter()
        for stream in streams:
            stream.sock.sendall(request)
            stream.sock.setblocking(False)
        _read(selector, meter)
    return _result(streams, meter, num_events, time.perf_counter() - start)


def first_answer(port: int, request: bytes) -> bytes:
    """The body of one answer, its chunks joined."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(request)
        answer = b""
        while not answer.endswith(END_OF_ANSWER):
            answer += sock.recv(READ_BYTES)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise ValueError(f"no stream: {answer.decode()}")
    _, _, rest = answer.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


def _read(selector: selectors.BaseSelector, meter: _Meter) -> None:
    buffer = bytearray(READ_BYTES)
    view = memoryview(buffer)
    while meter.open:
        ready = selector.select(IDLE_SECONDS)
        if not ready:
            raise TimeoutError(f"{len(meter.open)} streams are silent for {IDLE_SECONDS:.0f} s")
        for key, _ in ready:
            size = key.fileobj.recv_into(view)  # type: ignore[union-attr]
            if _take(key.data, bytes(view[:size]), meter):
                selector.unregister(key.fileobj)
                key.data.sock.close()
                meter.open.discard(key.data)


def _take(stream: Stream, data: bytes, meter: _Meter) -> bool:
    """Takes one piece; whether the stream is over."""
    stream.head = stream.head or data[:64]
    found = data.count(END_OF_EVENT) + (stream.tail[-1:] == b"\n" and data[:1] == b"\n")
    stream.tail = (stream.tail + data)[-512:] if len(data) < 512 else data[-512:]
    if found and not stream.num_events:
        meter.num_waiting -= 1
        if not meter.num_waiting:
            meter.began = meter.mark()
    stream.num_events += found
    meter.num_events += found
    is_over = not data or stream.tail.endswith(END_OF_ANSWER)
    if is_over and meter.ended is None:
        meter.ended = meter.mark()
    return is_over


def _result(streams: list[Stream], meter: _Meter, num_events: int, seconds: float) -> Load:
    failed = sum(not stream.is_ok or stream.num_events != num_events for stream in streams)
    if meter.began is None or meter.ended is None or meter.ended[0] <= meter.began[0]:
        return Load(meter.num_events, failed, seconds, float("nan"), float("nan"))
    wall, cpu, count = (end - begin for begin, end in zip(meter.began, meter.ended, strict=True))
    return Load(meter.num_events, failed, seconds, count / wall, cpu / wall)
