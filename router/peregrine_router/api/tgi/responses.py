"""From tokens to TGI's JSON."""

from typing import cast

from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.api.tgi.schemas import (
    BestOfSequence,
    Details,
    GenerateRequest,
    GenerateResponse,
    PrefillToken,
    Sequence,
    StreamDetails,
    StreamEvent,
)
from peregrine_router.http.errors import ErrorSpec, tgi_error
from peregrine_router.http.sequence_output import SequenceOutput
from peregrine_router.request import Finished, Request, Token, TokenEvent


def describe_generated(ranked: list[SequenceOutput], body: GenerateRequest, prefix: str) -> GenerateResponse:
    """The answer of a request that is not streamed: the best sequence, the others in its details."""
    best, given = ranked[0], body.parameters or GenerateParameters()
    answer: GenerateResponse = {"generated_text": prefix + best.end.generated_text}
    if given.details or given.decoder_input_details:
        details = cast(Details, _describe(best))
        if len(ranked) > 1:
            details["best_of_sequences"] = [_format_other(each, prefix) for each in ranked[1:]]
        answer["details"] = details
    return answer


class StreamAnswer:
    """The events of one stream."""

    def __init__(self, request: Request, body: GenerateRequest, prefix: str) -> None:
        self._request = request
        self._prefix = prefix
        self._has_details = bool(body.parameters and body.parameters.details)

    def event(self, number: int, event: TokenEvent) -> StreamEvent:
        """One event; the last has the whole text."""
        answer = StreamEvent(event.index, event.token)
        if event.top_tokens:
            answer.top_tokens = event.top_tokens
        if event.finished is not None:
            answer.generated_text = self._prefix + event.finished.generated_text
            answer.details = _stream_details(self._request, event.finished) if self._has_details else None
        return answer

    def end(self) -> bytes:
        """TGI's streams just end."""
        return b""

    def error(self, kind: ErrorSpec, message: str) -> object:
        """As in a body."""
        return tgi_error(kind, message)


def _describe(generated: SequenceOutput) -> Sequence:
    sequence: Sequence = {
        "finish_reason": generated.end.reason,
        "generated_tokens": generated.end.generated_tokens,
        "cached_tokens": generated.end.cached_tokens,
        "seed": _seed(generated.request),
        "prefill": [_prefill(token) for token in generated.prefill],
        "tokens": generated.tokens,
    }
    if any(generated.top_tokens):
        sequence["top_tokens"] = generated.top_tokens
    return sequence


def _format_other(generated: SequenceOutput, prefix: str) -> BestOfSequence:
    return {"generated_text": prefix + generated.end.generated_text, **_describe(generated)}


def _stream_details(request: Request, finished: Finished) -> StreamDetails:
    return {
        "finish_reason": finished.reason,
        "generated_tokens": finished.generated_tokens,
        "seed": _seed(request),
        "input_length": len(request.prompt_ids),
        "cached_tokens": finished.cached_tokens,
    }


def _prefill(token: Token) -> PrefillToken:
    return {"id": token.id, "text": token.text, "logprob": token.logprob}


def _seed(request: Request) -> int | None:
    return request.sampling.seed if request.sampling.do_sample else None
