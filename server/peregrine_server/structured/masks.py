"""Grammar masks of the running sequences: the tokens that each may sample next, computed beside the running step."""

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from peregrine_server.protocol import Grammar, SequenceFailed, Step, unpack
from peregrine_server.structured.compiler import (
    MAX_GRAMMAR_MEMORY,
    GrammarError,
    GrammarThreads,
    allowed_tokens,
    compile_grammar,
    grammar_error,
    load_grammar_tokenizer,
)

NUM_THREADS = 2
"""Threads that compute masks. A mask takes 20 to 100 microseconds on average, so two serve dozens of sequences in a
step."""
MAX_COMPILED_BYTES = 2**30
"""Size of the LRU cache of compiled grammars. Each counts as what it may grow to: its lexer, which all sequences of the
grammar share, adds states as they go on. One of 50,000 states was measured at 20 to 60 MB."""
MAX_COMPILED = MAX_COMPILED_BYTES // MAX_GRAMMAR_MEMORY
"""Compiled grammars in the cache. One more to compile takes 10 ms, at most 250."""
FREE_WAIT_SECONDS = 0.02
"""Wait for a sequence's mask that each step allows for free."""
MAX_WAIT_SECONDS = 1.0
"""Total wait for a sequence's masks, beyond FREE_WAIT_SECONDS in each step, after which the sequence fails: every other
sequence of the batch waits as well."""


@dataclass(frozen=True, slots=True)
class _MatcherState:
    """Position of a sequence in its grammar."""

    allowed: NDArray[np.bool_]
    """bool[V]: the mask of the next token."""
    matcher: LLMatcher | None
    """None after an error."""
    tokens: list[int] = field(default_factory=list)
    """Tokens that the matcher has consumed: a list that the slot's next state goes on with."""
    is_alone: bool = False
    """Whether no other sequence shares the matcher's lexer."""
    error: str = ""
    """Reason why the grammar cannot be followed. The mask then allows every token, and the sampled one is invalid."""
    detail: str = ""
    """Detail for the log alone."""
    waited_for_token: float = 0.0
    """Seconds that the thread waited for the sampled token, which do not count against the grammar."""


@dataclass(slots=True)
class _ConstrainedSlot:
    grammar: Grammar
    state: "Future[_MatcherState]"
    """State after the last sampled token."""
    waited: float = 0.0
    """Seconds that steps waited for this slot's masks, beyond FREE_WAIT_SECONDS each."""


class GrammarMasks:
    """Masks computed one token ahead: on a thread, as soon as a sequence's token is sampled.

    The threads work while the router handles the tokens and while the model computes the next step. A mask depends on
    the grammar and the tokens alone, so every rank computes the same one. Only a failure by MAX_WAIT_SECONDS depends on
    time: rank 0 reports it to the router, which then cancels the sequence on every rank.
    """

    def __init__(self, model_path: Path, vocab_size: int, eos_token_ids: tuple[int, ...]) -> None:
        self._vocab_size = vocab_size
        self._threads = GrammarThreads(NUM_THREADS, thread_name_prefix="grammar")
        self._tokenizer: Future[LLTokenizer] = self._threads.submit(
            load_grammar_tokenizer, model_path, vocab_size, eos_token_ids
        )
        self._constrained: dict[int, _ConstrainedSlot] = {}
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def apply(self, step: Step) -> None:
        """Drops the grammars of freed slots and starts those of new sequences and forks."""
        for slot in unpack(step.freed).tolist():
            self._constrained.pop(slot, None)
        for new in step.new:
            if new.sampling.grammar is not None:
                self._start(new.slot, new.sampling.grammar, unpack(new.token_ids)[new.prompt_length :].tolist())
        for fork in step.forks:
            if fork.sampling.grammar is not None:
                self._fork(fork.slot, fork.parent, fork.sampling.grammar)

    def masks(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[SequenceFailed]]:
        """Masks bool[R, V] of R constrained slots, and the sequences among them that cannot go on."""
        states = [self._wait(slot) for slot in slots.tolist()]
        failed = [
            SequenceFailed(slot, state.error, state.detail)
            for slot, state in zip(slots.tolist(), states, strict=True)
            if state.error
        ]
        return np.stack([state.allowed for state in states]), failed

    def advance(self, slots: NDArray[np.int64], tokens: Callable[[], list[int]]) -> None:
        """Starts the next mask of each constrained slot, from the token that it sampled. At most one row a slot.

        `tokens` returns the sampled tokens of all rows once they are on the host. It is called on the threads, where
        waiting for the device delays no step.
        """
        for row, slot in enumerate(slots.tolist()):
            if (constrained := self._constrained.get(slot)) is not None:
                constrained.state = self._threads.submit(
                    self._advance_state, constrained.grammar, constrained.state.result(), tokens, row
                )

    def has_any(self) -> bool:
        """Whether any running sequence has a grammar."""
        return bool(self._constrained)

    def _wait(self, slot: int) -> _MatcherState:
        """The slot's state once its mask is computed; a failed one if steps waited too long for it."""
        constrained = self._constrained[slot]
        start = time.perf_counter()
        state = constrained.state.result()
        constrained.waited += max(time.perf_counter() - start - state.waited_for_token - FREE_WAIT_SECONDS, 0.0)
        if constrained.waited > MAX_WAIT_SECONDS:
            return self._failed(GrammarError("it is too complex: make it smaller or less ambiguous"))
        return state

    def _start(self, slot: int, grammar: Grammar, generated: list[int]) -> None:
        self._constrained[slot] = _ConstrainedSlot(grammar, self._threads.submit(self._replay, grammar, generated))

    def _fork(self, slot: int, parent: int, grammar: Grammar) -> None:
        origin = self._constrained.get(parent)
        if origin is None or origin.grammar != grammar:
            self._start(slot, grammar, [])
        else:
            self._constrained[slot] = _ConstrainedSlot(grammar, self._threads.submit(_copy, origin.state))

    def _replay(self, grammar: Grammar, generated: list[int]) -> _MatcherState:
        try:
            matcher = self._compile(grammar)
        # A panic in llguidance is a BaseException. Any error concerns this sequence alone.
        except BaseException as error:
            return self._failed(error)
        return self._consume(grammar, _MatcherState(np.empty(0, dtype=np.bool_), matcher), generated)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        with self._lock:
            if (known := self._compiled.get(grammar)) is not None:
                self._compiled.move_to_end(grammar)
                return known.deep_copy()
        matcher = compile_grammar(self._tokenizer.result(), grammar)
        with self._lock:
            self._compiled[grammar] = matcher.deep_copy()
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return matcher

    def _advance_state(
        self, grammar: Grammar, state: _MatcherState, tokens: Callable[[], list[int]], row: int
    ) -> _MatcherState:
        start = time.perf_counter()
        token_id = tokens()[row]
        waited_for_token = time.perf_counter() - start
        return replace(self._consume(grammar, state, [token_id]), waited_for_token=waited_for_token)

    def _consume(self, grammar: Grammar, state: _MatcherState, token_ids: list[int]) -> _MatcherState:
        matcher = state.matcher
        if matcher is None:
            return state
        state.tokens.extend(token_ids)
        try:
            matcher.consume_tokens(token_ids)
            allowed = allowed_tokens(matcher, self._vocab_size)
            if matcher.is_error() and not state.is_alone:
                return self._consume_alone(grammar, state.tokens)
        except BaseException as error:
            return self._failed(error)
        if not allowed.any():
            return self._failed(GrammarError(matcher.get_error() or "no token of this model continues it"))
        return replace(state, allowed=allowed)

    def _consume_alone(self, grammar: Grammar, token_ids: list[int]) -> _MatcherState:
        """The state after these tokens on a lexer of the sequence's own: the states of a shared one may be used up by
        others, for all sequences of the grammar and all to come."""
        with self._lock:
            self._compiled.pop(grammar, None)
        matcher = compile_grammar(self._tokenizer.result(), grammar)
        return self._consume(grammar, _MatcherState(np.empty(0, dtype=np.bool_), matcher, is_alone=True), token_ids)

    def _failed(self, error: BaseException) -> _MatcherState:
        reason = grammar_error(error)
        allowed = np.ones(self._vocab_size, dtype=np.bool_)
        detail = str(reason.__cause__ or "")
        return _MatcherState(allowed, None, error=f"the grammar cannot be followed: {reason}", detail=detail)


def _copy(parent: "Future[_MatcherState]") -> _MatcherState:
    state = parent.result()
    matcher = state.matcher
    # A copy shares the lexer.
    return state if matcher is None else _MatcherState(state.allowed, matcher.deep_copy(), [*state.tokens])
