"""Requests that each have a connection of their own, from one thread: so many at once, or so many a second."""

import errno
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

READ_BYTES = 2**18
GIVE_UP_SECONDS = 30.0
"""Seconds without an answer after which a request counts as failed."""
FAILED = 0
"""Status of a request that has no whole answer."""


@dataclass(slots=True)
class Answers:
    """The answers to a load."""

    seconds: float
    """Time for which requests were started."""
    num_started: int = 0
    busy: float = 0.0
    """The client's CPU time as a share of the wall time: near 1, the client was the limit."""
    latencies: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Status -> seconds from the connection's start to the answer's last byte."""
    num_good: int = 0
    """Answers of status 200 that were complete while requests were started."""

    @property
    def goodput(self) -> float:
        """Answers of status 200 per second."""
        return self.num_good / self.seconds

    @property
    def num_failed(self) -> int:
        """Requests answered with neither 200 nor 429."""
        return sum(len(each) for status, each in self.latencies.items() if status not in (200, 429))

    def percentile(self, status: int, share: float) -> float:
        """Seconds within which that share of the answers of `status` were there; NaN if there are none."""
        times = sorted(self.latencies.get(status, ()))
        return times[min(int(share * len(times)), len(times) - 1)] if times else float("nan")


def closed_loop(port: int, request: bytes, at_once: int, seconds: float) -> Answers:
    """Keeps `at_once` requests under way for `seconds`, then waits for the last."""

    def due(elapsed: float, num_started: int, num_open: int) -> int:
        return at_once - num_open

    return _Client(port, request).run(due, seconds)


def open_loop(port: int, request: bytes, rate: float, seconds: float) -> Answers:
    """Starts `rate` requests a second for `seconds`, however slowly they are answered, then waits for the last."""

    def due(elapsed: float, num_started: int, num_open: int) -> int:
        return int(elapsed * rate) + 1 - num_started

    return _Client(port, request).run(due, seconds)


@dataclass(slots=True, eq=False)
class _Exchange:
    """One request."""

    sock: socket.socket
    start: float
    answer: bytearray = field(default_factory=bytearray)

    @property
    def status(self) -> int:
        """The answer's, if it is whole."""
        head, _, body = self.answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        is_whole = head.startswith(b"HTTP/1.1 ") and len(body) == int(length or -1)
        return int(head[9:12]) if is_whole else FAILED


class _Client:
    """Starts requests when they are due and reads their answers, which end with the connection."""

    def __init__(self, port: int, request: bytes) -> None:
        self._address = ("127.0.0.1", port)
        self._request = request
        self._open: dict[int, _Exchange] = {}
        """By file descriptor, the oldest first."""
        self._poll = select.epoll()

    def run(self, due: Callable[[float, int, int], int], seconds: float) -> Answers:
        """`due`: number of requests to start, by the seconds since the begin, those started and those open."""
        answers, begin, cpu = Answers(seconds), time.perf_counter(), time.thread_time()
        with self._poll:
            while (elapsed := time.perf_counter() - begin) < seconds or self._open:
                is_starting = elapsed < seconds
                for _ in range(due(elapsed, answers.num_started, len(self._open)) if is_starting else 0):
                    answers.num_started += 1
                    self._start(answers)
                for file, events in self._poll.poll(0.001 if is_starting else 0.1):
                    self._advance(self._open[file], events, answers, is_starting)
                self._give_up(answers)
        answers.busy = (time.thread_time() - cpu) / (time.perf_counter() - begin)
        return answers

    def _start(self, answers: Answers) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        exchange = _Exchange(sock, time.perf_counter())
        if sock.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            answers.latencies[FAILED].append(0.0)
            sock.close()
            return
        self._open[sock.fileno()] = exchange
        # Behind a full backlog the connection is not there yet.
        self._poll.register(sock, select.EPOLLIN if self._send(exchange) else select.EPOLLOUT)

    def _send(self, exchange: _Exchange) -> bool:
        try:
            return exchange.sock.send(self._request) > 0
        except OSError:
            return False

    def _advance(self, exchange: _Exchange, events: int, answers: Answers, is_starting: bool) -> None:
        if events == select.EPOLLOUT:
            if self._send(exchange):
                self._poll.modify(exchange.sock, select.EPOLLIN)
            return
        try:
            data = exchange.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        exchange.answer += data
        if not data:
            self._end(exchange, answers)
            answers.num_good += is_starting and exchange.status == 200

    def _end(self, exchange: _Exchange, answers: Answers) -> None:
        answers.latencies[exchange.status].append(time.perf_counter() - exchange.start)
        del self._open[exchange.sock.fileno()]
        exchange.sock.close()

    def _give_up(self, answers: Answers) -> None:
        limit = time.perf_counter() - GIVE_UP_SECONDS
        while self._open and (oldest := next(iter(self._open.values()))).start < limit:
            oldest.answer.clear()
            self._end(oldest, answers)
