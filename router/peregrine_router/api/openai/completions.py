"""From tokens to OpenAI's text completions."""

import time
from dataclasses import dataclass, field

from peregrine_router.admission.prompts import PromptSource, TextPrompt, TokenPrompt
from peregrine_router.admission.validator import PromptJob
from peregrine_router.api.openai.parameters import generate_parameters
from peregrine_router.api.openai.schemas import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    FinishReason,
    Usage,
)
from peregrine_router.http.errors import BatchTooLarge, ErrorSpec, SuffixUnsupported, openai_error
from peregrine_router.http.request_lifecycle import RequestLifecycle, SequenceOutput
from peregrine_router.http.sse import DONE, encode_events
from peregrine_router.request import Finished, InvalidRequest, Token, TokenEvent
from peregrine_router.request import FinishReason as Reason
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer import Tokenizer

SMALLEST_LOGPROB = -9999.0
"""OpenAI's for what is all but impossible; JSON has no infinity."""
EMPTY_PROMPT = "Empty array detected. Do not use an empty array for the prompt."


def completion_jobs(body: CompletionRequest, settings: Settings) -> list[PromptJob]:
    """One for each prompt. Raises what is wrong with the request as a whole."""
    if body.suffix:
        raise SuffixUnsupported
    given = _prompts(body)
    if len(given) > settings.max_client_batch_size:
        raise BatchTooLarge(settings.max_client_batch_size)
    n, best_of = _counts(body)
    parameters = generate_parameters(
        body, max_tokens=body.max_tokens, top_n=body.logprobs, has_prompt_logprobs=_has_prompt_logprobs(body)
    )
    has_logprobs = body.logprobs is not None or best_of > n
    return [
        PromptJob(
            source,
            parameters,
            num_sequences=best_of,
            is_tgi=False,
            is_stream=bool(body.stream),
            has_logprobs=has_logprobs,
            name="prompt",
        )
        for source in given
    ]


def chosen(body: CompletionRequest, groups: list[list[SequenceOutput]]) -> list[list[SequenceOutput]]:
    """Of each prompt's `best_of` sequences the likeliest `n`, or all in order."""
    n, best_of = _counts(body)
    if best_of == n:
        return groups
    return [sorted(group, key=lambda each: each.mean_logprob, reverse=True)[:n] for group in groups]


def usage(run: RequestLifecycle, num_completion_tokens: int) -> Usage:
    """OpenAI's sum."""
    return {
        "prompt_tokens": run.num_prompt_tokens,
        "completion_tokens": num_completion_tokens,
        "total_tokens": run.num_prompt_tokens + num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": run.num_cached_tokens},
    }


def finish_reason(finished: Finished) -> FinishReason:
    """OpenAI knows no difference between an end of text and a stop sequence."""
    return "length" if finished.reason is Reason.LENGTH else "stop"


def finite(logprob: float | None) -> float:
    """A log-probability that JSON can hold; NaN compares false with everything."""
    return logprob if logprob is not None and logprob >= SMALLEST_LOGPROB else SMALLEST_LOGPROB


class CompletionAnswer:
    """The answer to one request: whole, or as the chunks of a stream."""

    def __init__(
        self, body: CompletionRequest, run: RequestLifecycle, tokenizer: Tokenizer, fingerprint: str, model: str
    ) -> None:
        self._body = body
        self._run = run
        self._tokenizer = tokenizer
        self._n = _counts(body)[0]
        self._id = f"cmpl-{run.requests[0].id}"
        self._created = int(time.time())
        self._fingerprint = fingerprint
        self._model = body.model or model
        self._logprobs: dict[int, _Logprobs] = {}
        self._num_generated = 0

    def whole(self, groups: list[list[SequenceOutput]], num_generated: int) -> Completion:
        """Not streamed: the choices in the order of prompts. `num_generated` counts the losers of `best_of` too."""
        choices = [
            self._choice(prompt * self._n + number, generated)
            for prompt, group in enumerate(groups)
            for number, generated in enumerate(group)
        ]
        return self._frame(choices) | {"usage": usage(self._run, num_generated)}

    def event(self, number: int, event: TokenEvent) -> Completion:
        """The chunk of a token."""
        is_first = event.index == 1
        text = (self._echoed(number) if is_first else "") + event.text_delta
        logprobs = None
        if self._body.logprobs is not None:
            offset = self._logprobs.setdefault(number, _Logprobs(self._tokenizer, bool(self._body.logprobs)))
            logprobs = offset.take([*event.prefill, event.token], [*(() for _ in event.prefill), event.top_tokens])
        finished = event.finished
        self._num_generated += finished.generated_tokens if finished else 0
        return self._frame(
            [
                {
                    "index": number,
                    "text": text,
                    "logprobs": logprobs,
                    "finish_reason": finish_reason(finished) if finished else None,
                }
            ]
        )

    def end(self) -> bytes:
        """OpenAI's last events."""
        options = self._body.stream_options
        if options is None or not options.include_usage:
            return DONE
        return encode_events(self._frame([]) | {"usage": usage(self._run, self._num_generated)}) + DONE

    def error(self, kind: ErrorSpec, message: str) -> object:
        """As in a body."""
        return openai_error(kind, message)

    def _choice(self, number: int, generated: SequenceOutput) -> CompletionChoice:
        logprobs = None
        if self._body.logprobs is not None:
            tops = [*(() for _ in generated.prefill), *generated.top_tokens]
            tokens = [*generated.prefill, *generated.tokens]
            logprobs = _Logprobs(self._tokenizer, bool(self._body.logprobs)).take(tokens, tops)
        return {
            "index": number,
            "text": self._echoed(number) + generated.end.generated_text,
            "logprobs": logprobs,
            "finish_reason": finish_reason(generated.end),
        }

    def _echoed(self, number: int) -> str:
        return self._run.groups[number // self._n].prompt.text if self._body.echo else ""

    def _frame(self, choices: list[CompletionChoice]) -> Completion:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": self._fingerprint,
            "choices": choices,
        }


@dataclass
class _Logprobs:
    """Describes tokens; knows how many characters came before."""

    tokenizer: Tokenizer
    has_top: bool
    num_characters: int = field(default=0)

    def take(self, tokens: list[Token], tops: list[tuple[Token, ...]]) -> CompletionLogprobs:
        texts = [self.tokenizer.describe(token.id).text for token in tokens]
        offsets = []
        for text in texts:
            offsets.append(self.num_characters)
            self.num_characters += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [None if token.logprob is None else finite(token.logprob) for token in tokens],
            "top_logprobs": [_top(top) for top in tops] if self.has_top else None,
            "text_offset": offsets,
        }


def _top(top: tuple[Token, ...]) -> dict[str, float] | None:
    return {token.text: finite(token.logprob) for token in top} or None


def _prompts(body: CompletionRequest) -> list[PromptSource]:
    given = body.prompt
    if isinstance(given, str):
        return [TextPrompt(given)]
    if not given:
        raise InvalidRequest(EMPTY_PROMPT)
    ids = [each for each in given if isinstance(each, int)]
    if ids:
        return [TokenPrompt(tuple(ids))]
    texts_or_ids = [each for each in given if not isinstance(each, int)]
    return [TextPrompt(each) if isinstance(each, str) else TokenPrompt(tuple(each)) for each in texts_or_ids]


def _counts(body: CompletionRequest) -> tuple[int, int]:
    n = 1 if body.n is None else body.n
    best_of = n if body.best_of is None else body.best_of
    if best_of < n:
        raise InvalidRequest(f"`best_of` must be >= `n`. Given: {best_of} and {n}")
    if best_of > n and body.stream:
        raise InvalidRequest("`best_of` > `n` is not supported when streaming tokens")
    return n, best_of


def _has_prompt_logprobs(body: CompletionRequest) -> bool:
    return bool(body.echo) and body.logprobs is not None
