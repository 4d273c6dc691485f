"""Compilation of grammars by llguidance. Imports no torch, because the router checks grammars with it as well."""

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from peregrine_server.protocol import Grammar

MAX_GRAMMAR_BYTES = 64 * 2**10
"""Upper bound on a grammar's source, in bytes of UTF-8. STACK_BYTES depends on it."""
STACK_BYTES = 512 * 2**20
"""Stack size in bytes of a thread that runs llguidance. It recurses along chains of rules and `$ref`s, and a stack
overflow ends the process: 1,200 schemas that each refer to the next overflow the usual 8 MiB. A level takes up to 19
KiB of stack and at least 7 bytes of grammar, so MAX_GRAMMAR_BYTES need 180 MiB. Unused pages are never committed."""
MAX_LEXER_STATES = 50_000
"""Upper bound on the states of a lexer, which all sequences of a grammar share."""
LIMITS = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
"""Bounds on a matcher, in work instead of seconds, so that every rank gives up at the same token."""
MAX_GRAMMAR_MEMORY = MAX_LEXER_STATES * 2_000
"""Upper bound on the bytes of a compiled grammar, most of which are lexer states of 1 to 2 kB each."""
MAX_ERROR_CHARACTERS = 400
"""Length of an error, which may quote a name of the grammar."""
_PANIC = re.compile(r"\bpanic(: |ked at )|\.rs:\d")
"""Marks of a panic in llguidance's words: its own prefix, Rust's, and the place in a source file."""
WHITESPACE = " "
"""Whitespace between the parts of a JSON text: one space at most, because small models write whitespace without end
where any amount is allowed."""

P = ParamSpec("P")
T = TypeVar("T")


class GrammarError(ValueError):
    """The grammar does not compile; the message says why and, where llguidance knows, at which line and column."""


def load_grammar_tokenizer(path: Path, vocab_size: int, eos_token_ids: tuple[int, ...]) -> LLTokenizer:
    """Loads a model's tokenizer.json for llguidance. Raises ValueError if it cannot be used to constrain text."""
    if not eos_token_ids:
        raise ValueError("the model has no end-of-text token, with which a complete text ends")
    try:
        content = json.loads((path / "tokenizer.json").read_bytes())
        # Training may have left these set, and then they would cut the texts that llguidance tokenizes.
        content |= {"truncation": None, "padding": None}
        content["added_tokens"] = [*content.get("added_tokens", ()), *_undeclared(content, eos_token_ids)]
        return LLTokenizer(json.dumps(content), n_vocab=vocab_size, eos_token=list(eos_token_ids))
    except Exception as error:  # llguidance raises whatever its parsers raise.
        raise ValueError("the model's tokenizer cannot constrain text") from error


def _undeclared(content: dict[str, Any], eos_token_ids: tuple[int, ...]) -> list[dict[str, Any]]:
    """Added tokens up to the last end of text, which another file than tokenizer.json may have declared."""
    added = (token["id"] for token in content.get("added_tokens", ()))
    known = max(len(content["model"]["vocab"]), 1 + max(added, default=-1))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    return [{"id": id, "content": f"<|{id}|>", **flags} for id in range(known, max(eos_token_ids) + 1)]


def compile_grammar(tokenizer: LLTokenizer, grammar: Grammar) -> LLMatcher:
    """Returns a matcher at the start of the grammar. Raises GrammarError; a panic is a BaseException. Must run on
    one of the GrammarThreads."""
    try:
        if len(grammar.source.encode()) > MAX_GRAMMAR_BYTES:
            raise GrammarError(f"it is longer than {MAX_GRAMMAR_BYTES:,} bytes")
        matcher = LLMatcher(tokenizer, _SOURCES[grammar.kind](grammar.source), limits=LIMITS, log_level=0)
    except UnicodeEncodeError:
        raise GrammarError("it has lone surrogates, which are no characters") from None
    except ValueError as error:
        raise grammar_error(error)  # noqa: B904 - it has its cause.
    if matcher.is_error():
        raise grammar_error(GrammarError(matcher.get_error().removesuffix("<non-verbose/>")))
    return matcher


def grammar_error(error: BaseException) -> GrammarError:
    """The part of an error of `compile_grammar` or a matcher that a client may read. A panic in llguidance is a
    BaseException, or an error that names a place in its source: its text is the cause alone."""
    if isinstance(error, ValueError) and not _PANIC.search(str(error)):
        return GrammarError(_one_line(str(error)))
    opaque = GrammarError("llguidance cannot read it")
    opaque.__cause__ = error.with_traceback(None)
    return opaque


def _one_line(error: str) -> str:
    """An error without the grammar's text, which llguidance quotes in full behind the place, and underlines."""
    lines = [line.strip() for line in error.strip().splitlines()] or ["no reason is known"]
    place, is_regex, _ = lines[0].partition("invalid regex")
    for line in lines:
        if line.startswith("error: "):
            return f"{place if is_regex else ''}invalid regex: {line.removeprefix('error: ')}"[:MAX_ERROR_CHARACTERS]
    return lines[0][:MAX_ERROR_CHARACTERS]


class GrammarThreads(ThreadPoolExecutor):
    """Threads with a stack of STACK_BYTES, for llguidance."""

    _STARTING = threading.Lock()
    """Held while the stack size of new threads, which is the process's, is STACK_BYTES."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As ThreadPoolExecutor.submit, which is where that class starts its threads. Any thread may call it."""
        with self._STARTING:
            previous = threading.stack_size(STACK_BYTES)
            try:
                return super().submit(fn, *args, **kwargs)
            finally:
                threading.stack_size(previous)


def _json_grammar(source: str) -> str:
    # The router warns of a `oneOf` whose branches overlap.
    return LLMatcher.grammar_from_json_schema(
        source, defaults={"whitespace_pattern": WHITESPACE, "coerce_one_of": True}
    )


def allowed_tokens(matcher: LLMatcher, vocab_size: int) -> NDArray[np.bool_]:
    """bool[V]: tokens that may come next, ends of text once the grammar is complete. All False after an error."""
    mask = matcher.compute_bitmask()
    # After an error the mask allows the end of text, also if it is this mask that finds the dead end.
    if matcher.is_error():
        return np.zeros(vocab_size, dtype=np.bool_)
    return np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=vocab_size, bitorder="little").view(np.bool_)


_SOURCES: dict[str, Callable[[str], str]] = {
    "json_schema": _json_grammar,
    "regex": LLMatcher.grammar_from_regex,
    "lark": LLMatcher.grammar_from_lark,
}
