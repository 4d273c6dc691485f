"""The log of requests: one line at the end of each, without prompt or generated text."""

import asyncio
import logging

from peregrine_router.observability.observer import RequestObserver, RequestRecord
from peregrine_router.request import EngineDead, Overloaded, ServerStopping

REFUSAL_SECONDS, MAX_REFUSAL_LINES = 1.0, 10
log = logging.getLogger(__name__)


class RequestLog(RequestObserver):
    """Logs `done` or `failed` with id, token counts and milliseconds of each phase.

    Requests that end with the server are counted in the line that says why it ended, and have none of their own. Of
    those refused for overload, MAX_REFUSAL_LINES in REFUSAL_SECONDS have lines; one more line counts the others.
    """

    def __init__(self) -> None:
        self._refusals = _RefusalLines()

    def answered(self, request: RequestRecord) -> None:
        reason = request.finished[0].reason.value
        _log("done", request, generated_tokens=request.num_generated_tokens, finish_reason=reason)

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        if isinstance(error, Overloaded) and not self._refusals.may_log():
            return
        if not isinstance(error, EngineDead | ServerStopping):
            _log("failed", request, err=label)


class _RefusalLines:
    """Bounds the lines of refused requests: there may be thousands a second, each as costly as the refusal."""

    def __init__(self) -> None:
        self._num_lines = 0
        self._num_left_out = 0

    def may_log(self) -> bool:
        """Whether a refusal has its own line; else it is counted in the line at the end of the interval."""
        if not self._num_lines:
            asyncio.get_running_loop().call_later(REFUSAL_SECONDS, self._end_interval)
        self._num_lines += 1
        if self._num_lines <= MAX_REFUSAL_LINES:
            return True
        self._num_left_out += 1
        return False

    def _end_interval(self) -> None:
        if self._num_left_out:
            fields = {"requests": self._num_left_out, "err": "overloaded", "seconds": REFUSAL_SECONDS}
            log.info("more requests failed", extra={"fields": fields})
        self._num_lines = self._num_left_out = 0


def _log(message: str, request: RequestRecord, **fields: int | str) -> None:
    assert request.ended_at is not None
    timings = request.timings(request.ended_at)._asdict()
    durations = {f"{name}_ms": round(seconds * 1000) for name, seconds in timings.items()}
    about = {"id": request.id, "input_tokens": request.num_prompt_tokens}
    log.info(message, extra={"fields": {**about, **fields, **durations}})
