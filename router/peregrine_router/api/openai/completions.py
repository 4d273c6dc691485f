"""Text completions: the jobs of a request, and tokens as OpenAI's JSON."""

from collections.abc import Sequence
from dataclasses import replace

from peregrine_router.admission.api_limits import api_limits
from peregrine_router.admission.prompts import PromptSource, TextPrompt, TokenPrompt
from peregrine_router.admission.rules import check, top_n_rules
from peregrine_router.admission.validator import PromptJob
from peregrine_router.api.openai.answer import OpenAiAnswer, finish_reason
from peregrine_router.api.openai.answer_schemas import Completion, CompletionChoice
from peregrine_router.api.openai.completion_logprobs import CompletionLogprobsFormatter
from peregrine_router.api.openai.parameters import generate_parameters
from peregrine_router.api.openai.schemas import CompletionRequest
from peregrine_router.http.exceptions import BatchTooLarge, SuffixUnsupported
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.http.sequence_output import SequenceOutput
from peregrine_router.interfaces import ModelInfo
from peregrine_router.request import Finished, FinishReason, InvalidRequest, Token, TokenEvent
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""Most tokens of a completion where neither the request nor the model's generation_config.json says; OpenAI's."""
EMPTY_PROMPT = "Empty array detected. Do not use an empty array for the prompt."


def completion_jobs(body: CompletionRequest, settings: Settings, info: ModelInfo) -> list[PromptJob]:
    """One job for each prompt. Raises InvalidRequest, SuffixUnsupported or BatchTooLarge."""
    if body.suffix:
        raise SuffixUnsupported
    given = _prompts(body)
    limits = api_limits(settings, is_tgi=False)
    if len(given) > limits.max_client_batch_size:
        raise BatchTooLarge(limits.max_client_batch_size)
    check(top_n_rules(body.logprobs or 0, limits, "logprobs"))
    n, best_of = _counts(body)
    # A token must be sampled for the prompt to be computed; `without_sampled` drops it.
    max_tokens = 1 if _only_prompt(body) else body.max_tokens
    parameters = generate_parameters(
        body,
        max_tokens=max_tokens,
        top_n=body.logprobs,
        defaults=info.sampling_defaults,
        has_prompt_logprobs=_has_prompt_logprobs(body),
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
            count_name="best_of" if best_of > n else "n",
            default_max_new_tokens=info.default_max_new_tokens or DEFAULT_MAX_TOKENS,
        )
        for source in given
    ]


def best_sequences(body: CompletionRequest, groups: list[list[SequenceOutput]]) -> list[list[SequenceOutput]]:
    """Selects each prompt's `n` sequences of the highest mean log-probability; all, in order, if `best_of` is `n`."""
    n, best_of = _counts(body)
    if best_of == n:
        return groups
    return [sorted(group, key=lambda output: output.mean_logprob, reverse=True)[:n] for group in groups]


def without_sampled(body: CompletionRequest, groups: list[list[SequenceOutput]]) -> list[list[SequenceOutput]]:
    """The sequences as they are, but without the token that `max_tokens` of 0 did not ask for."""
    if not _only_prompt(body):
        return groups
    return [
        [replace(output, tokens=[], top_tokens=[], finished=_unsampled(output.end)) for output in group]
        for group in groups
    ]


class CompletionAnswer(OpenAiAnswer):
    """The answer to one request: whole, or as the chunks of a stream."""

    id_prefix = "cmpl"
    stream_object = "text_completion"

    def __init__(self, body: CompletionRequest, lifecycle: RequestLifecycle, tokenizer: Tokenizer, model: str) -> None:
        super().__init__(body, lifecycle, model)
        self._body = body
        self._tokenizer = tokenizer
        self._n = _counts(body)[0]
        self._logprobs: dict[int, CompletionLogprobsFormatter] = {}

    def whole(self, groups: list[list[SequenceOutput]], num_completion_tokens: int) -> Completion:
        """The answer that is not streamed; `num_completion_tokens` includes sequences that `best_of` dropped."""
        choices = [
            self._choice(prompt * self._n + number, output)
            for prompt, group in enumerate(groups)
            for number, output in enumerate(group)
        ]
        usage = self._usage(num_completion_tokens)
        return {**self._frame, "object": "text_completion", "choices": choices, "usage": usage}

    def event(self, number: int, event: TokenEvent) -> Completion:
        """The chunk of a token of sequence `number`."""
        logprobs, finished, delta = None, event.finished, event.text_delta
        tokens, tops = [event.token], [event.top_tokens]
        if finished is not None and _only_prompt(self._body):
            tokens, tops, delta, finished = [], [], "", _unsampled(finished)
        if self._body.logprobs is not None:
            formatter = self._logprobs.setdefault(number, self._logprobs_formatter())
            logprobs = formatter.add([*event.prefill, *tokens], [*_prefill_tops(event), *tops])
        if finished is not None:
            self._num_completion_tokens += finished.generated_tokens
        choice: CompletionChoice = {
            "index": number,
            "text": (self._echoed(number) if event.index == 1 else "") + delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason(finished) if finished else None,
        }
        return {**self._frame, "object": "text_completion", "choices": [choice]}

    def _choice(self, number: int, output: SequenceOutput) -> CompletionChoice:
        logprobs = None
        if self._body.logprobs is not None:
            tops = [*_prefill_tops(output), *output.top_tokens]
            logprobs = self._logprobs_formatter().add([*output.prefill, *output.tokens], tops)
        return {
            "index": number,
            "text": self._echoed(number) + output.end.generated_text,
            "logprobs": logprobs,
            "finish_reason": finish_reason(output.end),
        }

    def _echoed(self, number: int) -> str:
        return self._lifecycle.groups[number // self._n].prompt.text if self._body.echo else ""

    def _logprobs_formatter(self) -> CompletionLogprobsFormatter:
        return CompletionLogprobsFormatter(self._tokenizer, has_top=bool(self._body.logprobs))


def _prefill_tops(scored: TokenEvent | SequenceOutput) -> Sequence[tuple[Token, ...]]:
    return scored.prefill_top or ((),) * len(scored.prefill)


def _unsampled(finished: Finished) -> Finished:
    return replace(finished, reason=FinishReason.LENGTH, generated_text="", generated_tokens=0)


def _prompts(body: CompletionRequest) -> list[PromptSource]:
    given = body.prompt
    if isinstance(given, str):
        return [TextPrompt(given)]
    if not given:
        raise InvalidRequest(EMPTY_PROMPT)
    if isinstance(given[0], int):
        return [TokenPrompt(tuple(given))]
    return [TextPrompt(each) if isinstance(each, str) else TokenPrompt(tuple(each)) for each in given]


def _counts(body: CompletionRequest) -> tuple[int, int]:
    n = 1 if body.n is None else body.n
    best_of = n if body.best_of is None else body.best_of
    if best_of < n:
        raise InvalidRequest(f"`best_of` must be >= `n`. Given: {best_of} and {n}")
    if best_of > n and body.stream:
        raise InvalidRequest("`best_of` > `n` is not supported when streaming tokens")
    return n, best_of


def _only_prompt(body: CompletionRequest) -> bool:
    """Whether the prompt, with `echo`, or nothing is all that the answer is to hold."""
    return body.max_tokens == 0


def _has_prompt_logprobs(body: CompletionRequest) -> bool:
    return bool(body.echo) and body.logprobs is not None
