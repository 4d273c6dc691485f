"""Trial compilation of grammars, within limits of time, before a request is queued."""

import json
import time
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from llguidance import LLTokenizer

from peregrine_router.admission.json_pointer import escape
from peregrine_router.request import InvalidRequest
from peregrine_server.protocol import Grammar
from peregrine_server.structured.compiler import (
    GrammarError,
    GrammarThreads,
    allowed_tokens,
    compile_grammar,
    grammar_error,
    load_grammar_tokenizer,
)

MAX_COMPILE_SECONDS = 0.25
"""CPU time for compiling a grammar and its first mask. The shards compile it again, and a step waits for that if it
takes longer than the step. A schema of 300 optional properties takes 12 ms, constructed worst cases of 64 KiB 0.5 s."""
NUM_THREADS = 2
MAX_CACHED_VERDICTS = 256
"""Capacity of the LRU cache of verdicts, whose keys are grammars of up to 64 KiB each."""


class _Verdict(NamedTuple):
    message: str
    """One line for the client."""
    cause: BaseException | None = None
    """Detail for the log alone."""


class GrammarChecker:
    """Compiles grammars as the shards do. `check` blocks until a grammar is compiled; any thread may call it."""

    def __init__(self, tokenizer: LLTokenizer | ValueError, vocab_size: int) -> None:
        """A ValueError in place of the tokenizer is the reason why this model supports no grammars."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._threads = GrammarThreads(NUM_THREADS, thread_name_prefix="grammar-check")
        self._verdicts: OrderedDict[Grammar, _Verdict | None] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def load(cls, path: Path, vocab_size: int, eos_token_ids: frozenset[int]) -> "GrammarChecker":
        """Loads the tokenizer of a model's folder. If llguidance cannot read it, `check` refuses all grammars."""
        try:
            return cls(load_grammar_tokenizer(path, vocab_size, tuple(sorted(eos_token_ids))), vocab_size)
        except ValueError as error:
            return cls(error, vocab_size)

    def check(self, grammar: Grammar) -> None:
        """Raises InvalidRequest with the error and its place if the shards could not compile the grammar."""
        if isinstance(self._tokenizer, ValueError):
            raise InvalidRequest(f"grammar is not supported: {self._tokenizer}") from self._tokenizer.__cause__
        with self._lock:
            is_known = grammar in self._verdicts
            verdict = self._verdicts.pop(grammar, None)
        if not is_known:
            verdict = self._threads.submit(self._compile, self._tokenizer, grammar).result()
        with self._lock:
            self._verdicts[grammar] = verdict
            while len(self._verdicts) > MAX_CACHED_VERDICTS:
                self._verdicts.popitem(last=False)
        if verdict is not None:
            raise InvalidRequest(f"grammar is not valid: {verdict.message}") from verdict.cause

    def _compile(self, tokenizer: LLTokenizer, grammar: Grammar) -> _Verdict | None:
        """Compiles a grammar. Returns what is wrong with it, or None."""
        start = time.thread_time()
        try:
            matcher = compile_grammar(tokenizer, grammar)
            has_start = bool(allowed_tokens(matcher, self._vocab_size).any())
        # A panic in llguidance is a BaseException.
        except BaseException as error:
            readable = grammar_error(error)
            where = self._where(tokenizer, grammar) if readable.__cause__ is None else ""
            return _Verdict(f"{readable}{where}", readable.__cause__)
        if not has_start:
            return _Verdict("no token of this model may begin it")
        if time.thread_time() - start > MAX_COMPILE_SECONDS:
            return _Verdict(f"it takes over {MAX_COMPILE_SECONDS} s to compile: make it smaller, or less deeply nested")
        return None

    def _where(self, tokenizer: LLTokenizer, grammar: Grammar) -> str:
        """The JSON pointer to the smallest part of a schema that is wrong in the same way; empty if there is none."""
        if grammar.kind != "json_schema":
            return ""
        try:
            schema = json.loads(grammar.source)
            return _Finder(tokenizer).find(schema) if isinstance(schema, dict) else ""
        except (ValueError, RecursionError):
            return ""


class _Finder:
    """Finds the part of a schema that does not compile, by compiling parts of it."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._deadline = time.thread_time() + MAX_COMPILE_SECONDS

    def find(self, schema: dict[str, Any]) -> str:
        """Returns " (at #/properties/...)", or "" if no part fails by itself."""
        definitions: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        error, pointer, part = self._error(schema, {}), "", schema
        while (found := self._first_child(part, definitions, error)) is not None:
            name, part = found
            pointer += name
        return f" (at #{pointer})" if pointer else ""

    def _first_child(
        self, part: dict[str, Any], definitions: dict[str, Any], error: str
    ) -> tuple[str, dict[str, Any]] | None:
        for name, child in _children(part):
            if time.thread_time() > self._deadline:
                return None
            # A part may refer to the definitions; faulty ones are found as parts of the whole schema.
            if self._error(child, {} if name.startswith(("/$defs", "/definitions")) else definitions) == error:
                return name, child
        return None

    def _error(self, schema: dict[str, Any], definitions: dict[str, Any]) -> str:
        try:
            compile_grammar(self._tokenizer, Grammar("json_schema", json.dumps({**definitions, **schema})))
        except GrammarError as error:
            return str(error)
        return ""


def _children(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Lists (pointer from the schema, subschema) for every member that may be a schema."""
    children = []
    for key, value in schema.items():
        members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if isinstance(value, dict) and key not in ("properties", "patternProperties", "$defs", "definitions"):
            children.append((f"/{escape(key)}", value))
        else:
            children += [(f"/{escape(key)}/{escape(str(name))}", m) for name, m in members if isinstance(m, dict)]
    return children
