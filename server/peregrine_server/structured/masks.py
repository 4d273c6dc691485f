"""The grammars of the running sequences: the tokens that each allows next, computed beside the running step."""

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from peregrine_server.protocol import Grammar, SequenceFailed, Step, unpack
from peregrine_server.structured.compiler import GrammarThreads, allowed_tokens, compile_grammar, load_grammar_tokenizer

NUM_THREADS = 2
"""A mask takes 20 to 100 microseconds in the mean, so that two threads serve dozens of sequences within a step."""
MAX_COMPILED = 32
"""Compiled grammars that are kept for the next request. Each may hold LIMITS.max_lexer_states: 100 MB."""
FREE_WAIT_SECONDS = 0.02
MAX_WAIT_SECONDS = 1.0
"""A sequence whose masks make steps wait longer than this in all, beyond FREE_WAIT_SECONDS in each, fails: its
neighbours waited as well."""


@dataclass(frozen=True, slots=True)
class _MatcherState:
    """Where a sequence is in its grammar."""

    allowed: NDArray[np.bool_]
    """bool[V]."""
    matcher: LLMatcher | None
    error: str = ""
    """Why there is no way on; then everything is allowed, and nothing that is sampled counts."""
    waited_for_token: float = 0.0
    """Seconds for which the token, not the mask, was waited for."""


@dataclass(slots=True)
class _Constraint:
    grammar: Grammar
    next: "Future[_MatcherState]"
    waited: float = 0.0


class GrammarMasks:
    """A mask ahead: as soon as a sequence has its token, its next mask is computed on a thread.

    So masks are computed while the router has the tokens and while the model computes the next step. What a mask holds
    depends on the grammar and the tokens alone: every rank computes the same. How long it took does not count, except
    in what rank 0 tells the router, who then cancels the sequence for all.
    """

    def __init__(self, model_path: Path, vocab_size: int, eos_token_ids: tuple[int, ...]) -> None:
        self._vocab_size = vocab_size
        self._threads = GrammarThreads(NUM_THREADS, thread_name_prefix="grammar")
        self._tokenizer: Future[LLTokenizer] = self._threads.submit(
            load_grammar_tokenizer, model_path, vocab_size, eos_token_ids
        )
        self._of: dict[int, _Constraint] = {}
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def apply(self, step: Step) -> None:
        """Forgets who left, starts on who came."""
        for slot in unpack(step.freed).tolist():
            self._of.pop(slot, None)
        for new in step.new:
            if new.sampling.grammar is not None:
                self._start(new.slot, new.sampling.grammar, unpack(new.token_ids)[new.prompt_length :].tolist())
        for fork in step.forks:
            if fork.sampling.grammar is not None:
                self._fork(fork.slot, fork.parent, fork.sampling.grammar)

    def masks(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[SequenceFailed]]:
        """bool[R, V]: the tokens that each of R constrained slots allows next; which of them cannot go on."""
        states = [self._wait(slot) for slot in slots.tolist()]
        failed = [
            SequenceFailed(slot, state.error) for slot, state in zip(slots.tolist(), states, strict=True) if state.error
        ]
        return np.stack([state.allowed for state in states]), failed

    def advance(self, slots: NDArray[np.int64], tokens: Callable[[], list[int]]) -> None:
        """The constrained ones among the slots go on from the tokens that they sampled, one a slot.

        `tokens` gives them once the device has; it is called on other threads, where waiting delays no step.
        """
        for row, slot in enumerate(slots.tolist()):
            if (constraint := self._of.get(slot)) is not None:
                constraint.next = self._threads.submit(self._go_on, constraint.next.result(), tokens, row)

    def has_any(self) -> bool:
        """Whether any running sequence has a grammar."""
        return bool(self._of)

    def _wait(self, slot: int) -> _MatcherState:
        constraint = self._of[slot]
        start = time.perf_counter()
        state = constraint.next.result()
        constraint.waited += max(time.perf_counter() - start - state.waited_for_token - FREE_WAIT_SECONDS, 0.0)
        if constraint.waited > MAX_WAIT_SECONDS:
            return self._failed("it is too complex: make it smaller or less ambiguous")
        return state

    def _start(self, slot: int, grammar: Grammar, generated: list[int]) -> None:
        self._of[slot] = _Constraint(grammar, self._threads.submit(self._replay, grammar, generated))

    def _fork(self, slot: int, parent: int, grammar: Grammar) -> None:
        leader = self._of.get(parent)
        if leader is None or leader.grammar != grammar:
            self._start(slot, grammar, [])
        else:
            self._of[slot] = _Constraint(grammar, self._threads.submit(_copy, leader.next))

    def _replay(self, grammar: Grammar, generated: list[int]) -> _MatcherState:
        try:
            matcher = self._compile(grammar)
        # A panic in llguidance is a BaseException; whatever it is, it concerns this sequence alone.
        except BaseException as error:
            return self._failed(str(error))
        return self._consume(_MatcherState(np.empty(0, dtype=np.bool_), matcher), generated)

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

    def _go_on(self, state: _MatcherState, tokens: Callable[[], list[int]], row: int) -> _MatcherState:
        start = time.perf_counter()
        token_id = tokens()[row]
        waited_for_token = time.perf_counter() - start
        return replace(self._consume(state, [token_id]), waited_for_token=waited_for_token)

    def _consume(self, state: _MatcherState, token_ids: list[int]) -> _MatcherState:
        matcher = state.matcher
        if matcher is None:
            return state
        try:
            matcher.consume_tokens(token_ids)
            allowed = allowed_tokens(matcher, self._vocab_size)
        except BaseException as error:
            return self._failed(str(error))
        if not allowed.any():
            return self._failed(matcher.get_error() or "no token of this model continues it")
        return _MatcherState(allowed, matcher)

    def _failed(self, reason: str) -> _MatcherState:
        line = reason.strip().partition("\n")[0]
        return _MatcherState(np.ones(self._vocab_size, dtype=np.bool_), None, f"the grammar cannot be followed: {line}")


def _copy(parent: "Future[_MatcherState]") -> _MatcherState:
    state = parent.result()
    matcher = state.matcher
    return state if matcher is None else _MatcherState(state.allowed, matcher.deep_copy(), state.error)
