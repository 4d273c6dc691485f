"""Grammars compiled for the demo model's tokenizer."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from llguidance import LLTokenizer

from peregrine_router.launch.model_files import demo_path
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import Grammar
from peregrine_server.structured.compiler import (
    MAX_ERROR_CHARACTERS,
    STACK_BYTES,
    GrammarError,
    GrammarThreads,
    allowed_tokens,
    compile_grammar,
    load_grammar_tokenizer,
)

VOCAB, EOS = 4096, 0
TOKENIZER = Tokenizer.load(demo_path())


@pytest.fixture(scope="module")
def tokenizer() -> LLTokenizer:
    return load_grammar_tokenizer(demo_path(), VOCAB, (EOS,))


def accepts(tokenizer: LLTokenizer, grammar: Grammar, text: str) -> bool:
    """Whether a whole text follows a grammar."""
    matcher = compile_grammar(tokenizer, grammar)
    for token_id in (*TOKENIZER.encode(text), EOS):
        if not allowed_tokens(matcher, VOCAB)[token_id]:
            return False
        matcher.consume_token(token_id)
    return True


def test_parts_of_a_json_text_are_at_most_a_space_apart(tokenizer: LLTokenizer) -> None:
    """None or one is allowed; two spaces and a line break are not."""
    schema = Grammar("json_schema", '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')
    texts = ['{"a":1}', '{"a": 1}', '{"a":  1}', '{"a":\n1}']
    assert [accepts(tokenizer, schema, text) for text in texts] == [True, True, False, False]


def test_after_an_error_no_token_is_allowed(tokenizer: LLTokenizer) -> None:
    """A matcher that was given a forbidden token has no way on."""
    matcher = compile_grammar(tokenizer, Grammar("regex", "fox"))
    matcher.consume_tokens(TOKENIZER.encode("dog"))
    assert not allowed_tokens(matcher, VOCAB).any()
    assert np.flatnonzero(allowed_tokens(compile_grammar(tokenizer, Grammar("regex", "fox")), VOCAB)).size


def test_a_grammar_that_does_not_compile_is_an_error(tokenizer: LLTokenizer) -> None:
    """The message carries llguidance's reason."""
    with pytest.raises(GrammarError, match="unclosed character class"):
        compile_grammar(tokenizer, Grammar("regex", "(["))


def test_truncation_and_padding_of_the_tokenizer_are_ignored(tmp_path: Path, tokenizer: LLTokenizer) -> None:
    """A tokenizer.json that training left with both allows the same tokens."""
    content = json.loads((demo_path() / "tokenizer.json").read_bytes())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    other, text = load_grammar_tokenizer(tmp_path, VOCAB, (EOS,)), "the fox saw the bird"
    assert other.tokenize_str(text) == tokenizer.tokenize_str(text)


def test_a_model_without_an_end_of_text_cannot_be_constrained() -> None:
    """A complete text could not end."""
    with pytest.raises(ValueError, match="no end-of-text token"):
        load_grammar_tokenizer(demo_path(), VOCAB, ())


def test_an_end_of_text_that_tokenizer_json_lacks() -> None:
    """An end of text that another file declares ends a complete text, and nothing before."""
    undeclared = load_grammar_tokenizer(demo_path(), VOCAB + 64, (EOS, VOCAB + 7))
    matcher = compile_grammar(undeclared, Grammar("regex", "fox"))
    assert not allowed_tokens(matcher, VOCAB + 64)[VOCAB + 7]
    matcher.consume_tokens(TOKENIZER.encode("fox"))
    assert allowed_tokens(matcher, VOCAB + 64).nonzero()[0].tolist() == [EOS, VOCAB + 7]


def test_grammar_threads_leave_the_stack_size_of_other_threads_alone() -> None:
    """Only the threads that run llguidance reserve the large stack."""
    before = threading.stack_size()
    with GrammarThreads(1) as threads:
        threads.submit(int).result()
    assert threading.stack_size() == before


def test_grammars_that_come_at_once_all_have_the_large_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread with the usual stack would end the process at a deep grammar."""
    before, sizes, start = threading.stack_size(), list[int](), threading.Thread.start
    together = threading.Barrier(8)

    def recorded_start(thread: threading.Thread) -> None:
        if thread.name.startswith("recorded"):
            time.sleep(0.005)
            sizes.append(threading.stack_size())
        start(thread)

    def submit() -> None:
        with GrammarThreads(1, thread_name_prefix="recorded") as threads:
            together.wait()
            threads.submit(int).result()

    monkeypatch.setattr(threading.Thread, "start", recorded_start)
    with ThreadPoolExecutor(8) as callers:
        for caller in [callers.submit(submit) for _ in range(8)]:
            caller.result()
    assert sizes == [STACK_BYTES] * 8
    assert threading.stack_size() == before


def test_a_dead_end_is_an_error(tokenizer: LLTokenizer) -> None:
    """After comma and space only a property follows whose name is taken: not even the end of text is allowed."""
    source = {
        "type": "object",
        "properties": {"ab": {"type": "integer"}},
        "patternProperties": {"^ab$": {"type": "integer"}},
        "additionalProperties": False,
    }
    matcher = compile_grammar(tokenizer, Grammar("json_schema", json.dumps(source)))
    matcher.consume_tokens(TOKENIZER.encode('{"ab": 1, '))
    assert not matcher.is_error()
    assert not allowed_tokens(matcher, VOCAB).any()


def test_an_error_is_one_line_without_the_grammar(tokenizer: LLTokenizer) -> None:
    """The place and the reason; llguidance quotes the whole grammar, and underlines it."""
    for kind, source, words in (
        ("regex", "ab([", "at 1(8): invalid regex: unclosed character class"),
        ("regex", "(" * 300 + ")" * 300, "at 1(8): invalid regex: exceed the maximum number of nested parentheses"),
        ("lark", 'start: "a" nowhere', 'at 1(8): unknown name: "nowhere"'),
        ("json_schema", '{"type": "string", "pattern": "(["}', "invalid regex: unclosed character class"),
        ("lark", "start: " + "x" * 60_000, "at 1(8): unknown name"),
    ):
        with pytest.raises(GrammarError) as raised:
            compile_grammar(tokenizer, Grammar(kind, source))  # type: ignore[arg-type]
        assert str(raised.value).startswith(words)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) <= MAX_ERROR_CHARACTERS
