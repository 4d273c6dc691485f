"""HTTP/1.1 whose every part is bounded, which uvicorn's own protocol is not: connections, heads, trailers, pipelines.

A request is parsed once the answer to the one before is complete: what a client sends ahead of that waits unparsed, up
to a limit. Nothing is written into an answer that has begun.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from peregrine_router.http.early_refusal import EarlyAnswer, EarlyRefusals, RawHeaders
from peregrine_router.launch.connections import ConnectionLimits
from peregrine_router.launch.refusals import HEAD_SECONDS, MAX_HEAD_BYTES, MAX_HEADERS, early_refusal, refusal

MAX_TRAILER_BYTES = 16 * 2**10
"""Maximum size of a chunk's extension, or of the trailers behind the last chunk. Both are dropped."""
MAX_AHEAD_BYTES = 64 * 2**10
"""Maximum size of what a client sends ahead of the answer to an earlier request."""
LINGER_SECONDS = 2.0
"""Time for which a connection that is refused is still read from. Closed with data unread, it would be reset, and the
client would see that instead of the answer."""
LINGER_BYTES = 16 * 2**20
"""Size after which it is closed all the same: eight bodies of the default --payload-limit."""
PIECE_BYTES = 4 * 2**10
"""Size of the pieces that are parsed one after the other: at most 200 requests of the shortest kind."""
_FRAMING = (b"content-length", b"transfer-encoding")


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Refuses what is too large, too slow, too much or malformed, and closes."""

    limits = ConnectionLimits(8192)
    """Shared by all connections of a server; a subclass of each server has its own (`bounded_protocol`)."""
    refuse_early: Callable[[bytes, bytes, RawHeaders], EarlyAnswer | None] = staticmethod(lambda *_: None)
    """Method, target and headers of a request -> the answer that refuses it; None if the app answers. Each server's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ahead = bytearray()
        self._running: RequestResponseCycle | None = None
        """The request whose answer is not complete. `cycle` is the last one parsed."""
        self._head_bytes = 0
        self._silent_bytes = 0
        """Bytes since the last part of a body: of a chunk's head, or of trailers."""
        self._num_dropped = 0
        """Bytes that came after a refusal."""
        self._keeps_alive = True
        self._is_in_head = True
        self._is_replaying = False
        self._is_refused = False
        self._early: EarlyAnswer | None = None
        """The refusal of the request that is being read."""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timeout: a client that connects and sends nothing is closed too."""
        super().connection_made(transport)
        self._closing = _Closing(self)
        self._start_timer("head", HEAD_SECONDS, self._refuse, 408)
        if status := self.limits.open(self._address):
            self._refuse(status)
            if self.limits.is_flooded:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the request that runs; uvicorn cancels the last one parsed."""
        self.limits.close(self._address)
        for name in list(self._timers):
            self._stop_timer(name)
        self._ahead.clear()
        self.pipeline.clear()
        if self._running is not None:
            _disconnect(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses the data, or keeps it until the answer under way is complete."""
        if self._is_refused:
            self._num_dropped += len(data)
            if self._num_dropped > LINGER_BYTES:
                self.transport.abort()
        else:
            self._ahead += data
            self._parse()
            if len(self._ahead) > MAX_AHEAD_BYTES:
                self._refuse(431)

    def on_headers_complete(self) -> None:
        """Called by the parser at the end of the headers: refuses them or starts the request."""
        self._is_in_head = False
        self._head_bytes = self._silent_bytes = 0
        self._stop_timer("head")
        names = [name for name, _ in self.headers]
        if self._is_replaying or self._is_refused:
            pass
        elif len(names) > MAX_HEADERS:
            self._refuse(431)
        elif names.count(b"host") > 1 or self.parser.get_method() == b"CONNECT":
            self._refuse(400)
        elif not self._refuse_early():
            self._start_request()
        self.headers = []  # For trailers, which are no headers of the request, and which nobody reads.

    def on_chunk_header(self) -> None:
        """Called by the parser behind the size and extension of a chunk."""
        self._silent_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Passes a part of the body on, unless the request was refused."""
        self._silent_bytes = 0
        if not self._is_refused and self._early is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of a request; the next head may follow."""
        self._silent_bytes = 0
        if self.parser.should_upgrade():
            return  # The body follows: see `_ignore_upgrade`.
        self._is_in_head = True
        if self._early is not None:
            self._answer_early(is_whole=True)
        elif not self._is_refused:
            super().on_message_complete()
            if not self.cycle.response_started:
                self.cycle.keep_alive = self._keeps_alive

    def on_response_complete(self) -> None:
        """Called by uvicorn at the end of an answer: what came ahead of it is parsed."""
        self._running = None
        if not self._is_refused:
            super().on_response_complete()
            if self._ahead:
                self.loop.call_soon(self._parse)

    def shutdown(self) -> None:
        """Called by uvicorn: no further request of this connection is taken."""
        self._keeps_alive = False
        super().shutdown()

    def pause_writing(self) -> None:
        """Called by the transport when the client reads more slowly than it is sent to."""
        super().pause_writing()
        self._start_timer("write", self.limits.slow_client_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Called by the transport when the client has read on."""
        self._stop_timer("write")
        super().resume_writing()

    def close(self) -> None:
        """Closes the connection behind an answer; called by uvicorn through `_Closing`."""
        if self._ahead or (self.cycle is not None and self.cycle.more_body):
            self._linger()
        else:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        return False

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def _may_parse(self) -> bool:
        """Whether the next byte belongs to the request that runs, or none runs."""
        return self._running is None or (self._running is self.cycle and self.cycle.more_body)

    def _start_request(self) -> None:
        super().on_headers_complete()
        # Until its body is complete, an answer is the connection's last: the rest is not waited for.
        self._keeps_alive &= self.cycle.keep_alive
        self.cycle.keep_alive = False
        self.cycle.transport = self._closing  # type: ignore[assignment]
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn has paused it; paused, a client that leaves is not noticed.

    def _refuse_early(self) -> bool:
        """Whether the request is refused by its head. The answer waits for what has come of the body, because a
        connection can be kept if nothing of a request is left on it."""
        if self._running is None and not self.parser.should_upgrade():
            self._early = self.refuse_early(self.parser.get_method(), self.url, self.headers)
        return self._early is not None

    def _answer_early(self, *, is_whole: bool) -> None:
        """Sends the refusal. `is_whole`: nothing of the request is left to be read."""
        assert self._early is not None
        (headers, body), self._early = self._early, None
        is_last = not (is_whole and self._keeps_alive and self.parser.should_keep_alive())
        self.transport.write(early_refusal([*self.server_state.default_headers, *headers], body, is_last=is_last))
        if not is_last:
            self.on_response_complete()
        elif is_whole:
            self._is_refused = True
            self.transport.close()
        else:
            self._linger()

    def _parse(self) -> None:
        self._unset_keepalive_if_required()
        while self._ahead and self._may_parse and not self._is_refused:
            piece = bytes(self._ahead[:PIECE_BYTES])
            del self._ahead[:PIECE_BYTES]
            try:
                self._parse_piece(piece)
            except httptools.HttpParserError:
                self._refuse(400)
        if self._early is not None:
            self._answer_early(is_whole=False)

    def _parse_piece(self, piece: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(piece)
        else:
            self._silent_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(piece[upgrade.args[0] :])
        if self._head_bytes:  # The head has not ended in this piece.
            self._start_timer("head", HEAD_SECONDS, self._refuse, 408)
        if self._head_bytes > MAX_HEAD_BYTES or self._silent_bytes > MAX_TRAILER_BYTES:
            self._refuse(431)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Goes on in HTTP/1.1: to the parser the request has ended at its head, so another one reads its body."""
        framing = [name + b": " + value for name, value in self.scope["headers"] if name in _FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        self._is_replaying = True
        self.parser.feed_data(b"\r\n".join((b"POST / HTTP/1.1", *framing, b"", b"")))
        self._is_replaying = False
        self._ahead[:0] = rest

    def _refuse(self, status: int) -> None:
        """Answers `status` and closes; if another answer is under way, closes behind it."""
        self._stop_timer("head")
        self._is_refused, self._early = True, None
        self._ahead.clear()
        self.pipeline.clear()
        if self._running is not None and (self._running.response_started or not self._may_parse):
            self._running.keep_alive = False
            return
        if self._running is not None:
            _disconnect(self._running)
        self.transport.write(refusal(status))
        self._linger()

    def _linger(self) -> None:
        """Says that nothing more will come, and closes the connection once the client has read that."""
        self._is_refused = True
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._start_timer("linger", LINGER_SECONDS, self.transport.abort)

    def _start_timer(self, name: str, seconds: float, call: Callable[..., object], *args: object) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, call, *args)

    def _stop_timer(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()


class _Closing:
    """The connection's transport as uvicorn uses it for an answer, closed as the protocol does."""

    def __init__(self, protocol: BoundedHttpProtocol) -> None:
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self.close = protocol.close


def bounded_protocol(limits: ConnectionLimits, refusals: EarlyRefusals | None = None) -> type[BoundedHttpProtocol]:
    """The protocol of one server, whose connections share the limits and the refusals."""
    early = {} if refusals is None else {"refuse_early": staticmethod(refusals.answer)}
    return type("ServerProtocol", (BoundedHttpProtocol,), {"limits": limits, **early})


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Tells a request that its client has left."""
    if not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()
