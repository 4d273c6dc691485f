"""Turns a client's prompt and parameters into `Request`s: checks, tokenization and grammars, off the event loop."""

import asyncio
import secrets
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from peregrine_router.admission.api_limits import ApiLimits, api_limits
from peregrine_router.admission.fair_threads import FairThreads
from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.admission.grammar_schema import parse_grammar
from peregrine_router.admission.parameters import sampling_values
from peregrine_router.admission.prompts import Prompt, PromptSource, TextPrompt
from peregrine_router.admission.rules import (
    check,
    context_rules,
    count_rules,
    is_sampling,
    length_rules,
    parameter_rules,
    parse_timeout,
    prompt_rules,
    stream_rules,
    support_rules,
    token_rules,
    truncate_rules,
)
from peregrine_router.interfaces import ModelInfo
from peregrine_router.request import (
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    Request,
    SamplingParams,
    Tenant,
)
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import Grammar

T = TypeVar("T")
OMITTED = GenerateParameters(do_sample=True)
"""Parameters of a request without `parameters`: TGI samples then."""
NO_TENANT = Tenant()
GRAMMAR_SECONDS = 5.0
"""Wall-clock time that a request waits for its grammar to compile. The thread goes on, within limits of its own."""
LONG = 2**16
"""Characters or tokens above which work has threads of its own, so that it never keeps a short prompt waiting: a text
of 2 MB takes seconds."""
NUM_AHEAD = 8
"""Short works that wait in the threads' own queue, each of some milliseconds at most: see `FairThreads`."""
MAX_GRAMMARS_COMPILED = 8
"""Grammars that compile or wait for a thread; more are refused with 429."""


@dataclass(frozen=True, slots=True)
class PromptJob:
    """One prompt and how to continue it."""

    source: PromptSource
    parameters: GenerateParameters
    num_sequences: int = 1
    is_tgi: bool = True
    """Whether TGI's own rules apply and a matched stop sequence stays in the text; OpenAI's routes leave it out."""
    is_stream: bool = False
    has_logprobs: bool = False
    speaker_labels: tuple[str, ...] = ()
    """The chat template's, exempt from the limit on the client's stop sequences; see `Request`."""
    name: str = "inputs"
    """The client's name for the prompt, for messages."""
    count_name: str = "best_of"
    """The client's name for `num_sequences`."""
    default_max_new_tokens: int | None = None
    """Most tokens where the client names no number, cut to what fits; None: as many as fit."""


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """A prompt and its requests, one for each sequence."""

    prompt: Prompt
    requests: tuple[Request, ...]
    dropped: tuple[str, ...] = ()
    """Keywords of the client's schema that the grammar does not hold."""


def tgi_prompt_job(inputs: str, parameters: GenerateParameters | None, *, is_stream: bool = False) -> PromptJob:
    """Makes the job of a TGI request: `best_of` sequences of one prompt."""
    given = parameters or OMITTED
    best_of = 1 if given.best_of is None else given.best_of
    has_details = bool(given.details or given.decoder_input_details)
    return PromptJob(
        TextPrompt(inputs),
        given,
        num_sequences=best_of,
        is_stream=is_stream,
        has_logprobs=is_stream or has_details or best_of > 1,
    )


class Validator:
    """Makes `Request`s of `PromptJob`s. Owns the threads that tokenize and those that compile grammars."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: Settings,
        info: ModelInfo,
        check_grammar: Callable[[Grammar], None] = lambda grammar: None,
    ) -> None:
        """`check_grammar` blocks while it compiles a grammar. Raises InvalidRequest if it does not compile."""
        self.tokenizer = tokenizer
        self.info = info
        self._settings = settings
        self._check_grammar = check_grammar
        self._num_compiling = 0
        self._threads = FairThreads(settings.validation_workers, "validation", NUM_AHEAD)
        self._long_threads = FairThreads(max(1, settings.validation_workers - 1), "validation-long")
        self._compilers = ThreadPoolExecutor(2, thread_name_prefix="grammar")

    def close(self) -> None:
        """Ends the threads."""
        self._threads.close()
        self._long_threads.close()
        self._compilers.shutdown(wait=False, cancel_futures=True)

    async def validate(self, job: PromptJob, tenant: Tenant = NO_TENANT, deadline: float | None = None) -> PromptGroup:
        """Makes `num_sequences` requests of one prompt, each with its own seed. Raises InvalidRequest,
        ContextLengthExceeded or Overloaded.

        `deadline` becomes that of the requests.
        """
        given, info, limits = job.parameters, self.info, self._limits(job)
        if job.is_stream and job.is_tgi:
            check(stream_rules(given))
        check(count_rules(job.num_sequences, limits, job.count_name))
        check(parameter_rules(given, self._settings, limits))
        prompt = await self._prompt(job)
        max_new_tokens = self._max_new_tokens(job, len(prompt.ids))
        check(prompt_rules(prompt.ids, info, job.name))
        self._check_length(len(prompt.ids), max_new_tokens, job.name, is_tgi=job.is_tgi)
        check(token_rules(given, max_new_tokens, self._settings, info))
        check(support_rules(given, self._settings))
        grammar, dropped = parse_grammar(given.grammar, self._settings.max_grammar_length)
        if grammar is not None:
            await self._compile(grammar)
        return PromptGroup(prompt, self._requests(job, prompt.ids, max_new_tokens, grammar, tenant, deadline), dropped)

    def timeout(self, jobs: Iterable[PromptJob], header: str | None) -> float | None:
        """Timeout of one request in seconds: the smallest of the header's, its parameters' and the operator's; None if
        there is none. Raises InvalidRequest for a header that is not a number."""
        given = [job.parameters.timeout for job in jobs]
        given += [self._settings.max_request_timeout, None if header is None else parse_timeout(header)]
        return min((seconds for seconds in given if seconds is not None), default=None)

    def num_permits(self, job: PromptJob) -> int:
        """Number of permits that a job needs; one if its count of sequences is going to be refused."""
        return job.num_sequences if 0 < job.num_sequences <= self._limits(job).max_best_of else 1

    async def on_thread(self, work: Callable[[], T], size: int = 0) -> T:
        """Runs `work` on a tokenizer thread, the tenants in turn. `size`: characters or tokens that it works on.

        Raises InvalidRequest for what the tokenizer cannot do.
        """
        threads = self._threads if size <= LONG else self._long_threads
        try:
            return await threads.run(work)
        except Exception as error:
            if type(error) is not Exception:
                raise  # Not the tokenizer's, which raises bare Exception, but a fault of our own.
            raise InvalidRequest("the model's tokenizer cannot work on it") from error

    def min_tokens(self, text: str) -> int:
        """See Tokenizer."""
        return self.tokenizer.min_tokens(text)

    async def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a prompt; special tokens in its text are read as such only if the operator says so."""
        if self._settings.special_tokens_in_prompts:
            return tuple(await self.on_thread(lambda: self.tokenizer.encode(text, has_special_tokens=True), len(text)))
        return tuple(await self.on_thread(lambda: self.tokenizer.encode_prompt(text), len(text)))

    async def decode(self, ids: tuple[int, ...]) -> str:
        """The text of a prompt."""
        return await self.on_thread(lambda: self.tokenizer.decode(list(ids)), len(ids))

    def check_fits(self, least: int, name: str, *, is_tgi: bool) -> None:
        """Refuses a prompt of at least that many tokens if that is too long for any output. Raises InvalidRequest or
        ContextLengthExceeded."""
        self._check_length(least, 0, name, is_tgi=is_tgi, is_bound=True)

    def _limits(self, job: PromptJob) -> ApiLimits:
        return api_limits(self._settings, is_tgi=job.is_tgi)

    def _max_new_tokens(self, job: PromptJob, length: int) -> int:
        """The client's, else the model's default, but no more than fits; a client's that does not fit is refused."""
        if job.parameters.max_new_tokens is not None:
            return job.parameters.max_new_tokens
        room = max(self.info.max_total_tokens - length, 0)
        return room if job.default_max_new_tokens is None else min(room, job.default_max_new_tokens)

    def _check_length(
        self, length: int, max_new_tokens: int, name: str, *, is_tgi: bool, is_bound: bool = False
    ) -> None:
        if is_tgi:
            check(length_rules(length, max_new_tokens, self.info, name, is_bound=is_bound))
        else:
            check(context_rules(length, max_new_tokens, self.info, name, is_bound=is_bound), ContextLengthExceeded)

    async def _prompt(self, job: PromptJob) -> Prompt:
        truncate = job.parameters.truncate
        check(job.source.rules(job.name))
        check(truncate_rules(truncate, self.info))
        if truncate is None:
            self.check_fits(job.source.min_tokens(self), job.name, is_tgi=job.is_tgi)
        prompt = await job.source.tokenize(self)
        return prompt if truncate is None else Prompt(prompt.text, prompt.ids[-truncate:])

    async def _compile(self, grammar: Grammar) -> None:
        if self._num_compiling >= MAX_GRAMMARS_COMPILED:
            raise Overloaded("too many grammars are being compiled", retry_after=GRAMMAR_SECONDS)
        self._num_compiling += 1
        work = asyncio.get_running_loop().run_in_executor(self._compilers, self._check_grammar, grammar)
        work.add_done_callback(self._record_compiled)
        try:
            # Shielded, because a compilation cannot be stopped and must be counted until it ends.
            await asyncio.wait_for(asyncio.shield(work), GRAMMAR_SECONDS)
        except TimeoutError:
            raise InvalidRequest(f"grammar is not valid: compiling it takes over {GRAMMAR_SECONDS:.0f} s") from None

    def _record_compiled(self, work: "asyncio.Future[None]") -> None:
        self._num_compiling -= 1
        if not work.cancelled():
            work.exception()  # Retrieved, or asyncio would log the exception of an abandoned compilation.

    def _requests(
        self,
        job: PromptJob,
        prompt_ids: tuple[int, ...],
        max_new_tokens: int,
        grammar: Grammar | None,
        tenant: Tenant,
        deadline: float | None,
    ) -> tuple[Request, ...]:
        given, id = job.parameters, uuid.uuid4().hex
        stop_token_ids = frozenset(given.stop_token_ids or ())
        end_token_ids = stop_token_ids if given.ignore_eos else stop_token_ids | self.tokenizer.eos_token_ids
        masks_ends = grammar is not None or bool(given.min_tokens)
        return tuple(
            Request(
                id=id if number == 0 else f"{id}-{number}",
                prompt_ids=prompt_ids,
                sampling=_sampling(job, number, grammar, tuple(sorted(end_token_ids)) if masks_ends else ()),
                max_new_tokens=max_new_tokens,
                stop=tuple(given.stop or ()),
                speaker_labels=job.speaker_labels,
                ignore_eos=bool(given.ignore_eos),
                stop_token_ids=stop_token_ids,
                hides_stop=not job.is_tgi,
                tenant=tenant.name,
                cache_salt=tenant.cache_salt,
                priority=given.priority or 0,
                deadline=deadline,
            )
            for number in range(job.num_sequences)
        )


def _sampling(job: PromptJob, number: int, grammar: Grammar | None, end_token_ids: tuple[int, ...]) -> SamplingParams:
    given = job.parameters
    # TGI samples several sequences of one prompt: greedy ones would be equal.
    do_sample = is_sampling(given) or job.num_sequences > 1 if job.is_tgi else bool(given.do_sample)
    seed = secrets.randbits(64) if given.seed is None else (given.seed + number) % 2**64
    return SamplingParams(
        **sampling_values(given),
        do_sample=do_sample,
        logit_bias=tuple((int(id), bias) for id, bias in (given.logit_bias or {}).items()),
        seed=seed if do_sample else 0,
        logprobs=job.has_logprobs,
        top_n_tokens=given.top_n_tokens or 0,
        prompt_logprobs=bool(given.decoder_input_details),
        min_tokens=given.min_tokens or 0,
        end_token_ids=end_token_ids,
        grammar=grammar,
    )
