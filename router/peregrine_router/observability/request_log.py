"""The log of requests: one line at the end of each, without prompt or generated text."""

import logging

from peregrine_router.observability.observer import RequestObserver, RequestRecord

log = logging.getLogger(__name__)


class RequestLog(RequestObserver):
    """Logs `done` or `failed` with id, token counts and milliseconds of each phase."""

    def answered(self, request: RequestRecord) -> None:
        reason = request.finished[0].reason.value
        _log("done", request, generated_tokens=request.num_generated_tokens, finish_reason=reason)

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        _log("failed", request, err=label)


def _log(message: str, request: RequestRecord, **fields: int | str) -> None:
    assert request.ended_at is not None
    timings = request.timings(request.ended_at)._asdict()
    durations = {f"{name}_ms": round(seconds * 1000) for name, seconds in timings.items()}
    about = {"id": request.id, "input_tokens": request.num_prompt_tokens}
    log.info(message, extra={"fields": {**about, **fields, **durations}})
