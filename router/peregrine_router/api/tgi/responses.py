"""Tokens as TGI's JSON."""

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


def format_answer(ranked: list[SequenceOutput], body: GenerateRequest, prefix: str) -> GenerateResponse:
    """Formats an answer that is not streamed: the best sequence, with the others in its details."""
    best, given = ranked[0], body.parameters or GenerateParameters()
    answer: GenerateResponse = {"generated_text": prefix + best.end.generated_text}
    if given.details or given.decoder_input_details:
        details = cast(Details, _format_sequence(best))
        if len(ranked) > 1:
            details["best_of_sequences"] = [_format_other(output, prefix) for output in ranked[1:]]
        answer["details"] = details
    return answer


class StreamAnswer:
    """Formats the events of one stream."""

    def __init__(self, request: Request, body: GenerateRequest, prefix: str) -> None:
        self._request = request
        self._prefix = prefix
        self._has_details = bool(body.parameters and body.parameters.details)

    def event(self, number: int, event: TokenEvent) -> StreamEvent:
        """Formats a token; the last event has the whole text."""
        answer = StreamEvent(event.index, event.token)
        if event.top_tokens:
            answer.top_tokens = event.top_tokens
        if event.finished is not None:
            answer.generated_text = self._prefix + event.finished.generated_text
            answer.details = _stream_details(self._request, event.finished) if self._has_details else None
        return answer

    def start(self) -> bytes:
        """Nothing precedes the first token of a TGI stream."""
        return b""

    def end(self) -> bytes:
        """Nothing follows the last token of a TGI stream."""
        return b""

    def error(self, spec: ErrorSpec, message: str) -> object:
        """The same JSON as in the body of an answer that is not streamed."""
        return tgi_error(spec, message)


def _format_sequence(output: SequenceOutput) -> Sequence:
    sequence: Sequence = {
        "finish_reason": output.end.reason,
        "generated_tokens": output.end.generated_tokens,
        "cached_tokens": output.end.cached_tokens,
        "seed": _seed(output.request),
        "prefill": [_prefill(token) for token in output.prefill],
        "tokens": output.tokens,
    }
    if any(output.top_tokens):
        sequence["top_tokens"] = output.top_tokens
    return sequence


def _format_other(output: SequenceOutput, prefix: str) -> BestOfSequence:
    return {"generated_text": prefix + output.end.generated_text, **_format_sequence(output)}


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
