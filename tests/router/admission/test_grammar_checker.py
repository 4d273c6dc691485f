"""Grammars are checked before anything is generated, within limits, with a message that names the fault."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peregrine_router.admission import grammar_checker as grammar_module
from peregrine_router.admission.grammar_checker import GrammarChecker
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import InvalidRequest
from peregrine_server.protocol import Grammar
from peregrine_server.structured.compiler import MAX_GRAMMAR_BYTES

DEMO_MODEL = demo_path()


@pytest.fixture(scope="module")
def checker() -> GrammarChecker:
    return GrammarChecker.load(DEMO_MODEL, 4096, frozenset({0}))


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'),
        Grammar("json_schema", "{}"),
        Grammar("regex", "[0-9]{3}-[a-z]+"),
        Grammar("lark", 'start: "yes" | "no" start'),
    ],
)
def test_a_good_grammar_passes(checker: GrammarChecker, grammar: Grammar) -> None:
    """Grammars of all three kinds pass, the second time from the cache."""
    checker.check(grammar)
    checker.check(grammar)


@pytest.mark.parametrize(
    ("kind", "source", "where"),
    [
        (
            "json_schema",
            '{"type": "object", "properties": {"a/b": {"items": {"type": "nope"}}}}',
            "#/properties/a~1b/items",
        ),
        ("json_schema", '{"anyOf": [{"type": "string"}, {"pattern": "([", "type": "string"}]}', "#/anyOf/1"),
        ("json_schema", '{"properties": {"a": {"$ref": "#/$defs/b"}}}', "#/properties/a"),
        ("json_schema", '{"type": ', "line 1 column"),
        ("json_schema", '{"$ref": "http://169.254.169.254/x"}', "does not fetch"),
        ("json_schema", '{"type": "string", "minLength": 5, "maxLength": 2}', "Unsatisfiable"),
        ("json_schema", "\ud800", "surrogates"),
        ("regex", "ab([", "unclosed character class"),
        ("lark", 'start: "a" nowhere', r"1\(8\): unknown name"),
        ("lark", "", "Empty"),
    ],
)
def test_a_bad_grammar_is_refused_with_the_place(checker: GrammarChecker, kind: str, source: str, where: str) -> None:
    """The message says what is wrong, and where: a JSON pointer, a line, a column. No reference is fetched."""
    grammar = Grammar(kind, source)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=f"grammar is not valid: (.|\n)*{where}"):
            checker.check(grammar)


def test_a_grammar_longer_than_the_limit_is_refused(checker: GrammarChecker) -> None:
    """A grammar over the size limit is refused without being parsed."""
    with pytest.raises(InvalidRequest, match="longer than 65,536 bytes"):
        checker.check(Grammar("regex", "a" * (MAX_GRAMMAR_BYTES + 1)))


def test_a_grammar_that_takes_long_to_compile_is_refused(
    checker: GrammarChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is CPU time, so that a busy machine refuses no more than an idle one."""
    monkeypatch.setattr(grammar_module, "MAX_COMPILE_SECONDS", 0.0)
    with pytest.raises(InvalidRequest, match="to compile"):
        checker.check(Grammar("regex", "(a|b){1,50}"))


DEEP = """
import sys
from peregrine_router.admission.grammar_checker import GrammarChecker
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import InvalidRequest
from peregrine_server.protocol import Grammar

checker = GrammarChecker.load(demo_path(), 4096, frozenset({0}))
nested = lambda inner: '{"items":' * 110 + inner + "}" * 110
definitions = ",".join(f'"a{i}":' + nested(f'{{"$ref":"#/$defs/a{i + 1}"}}') for i in range(55))
names = [a + b + c for a in "abcdefgh" for b in "abcdefghijklmnopqrstuvwxyz" for c in "abcdefghijklmnopqrstuvwxyz"]
chain = "".join(f"{name}:{following}\\n" for name, following in zip(names, names[1:]))
for grammar in (
    Grammar("json_schema", f'{{"$defs":{{{definitions},"a55":{{}}}},"$ref":"#/$defs/a0"}}'),
    Grammar("lark", f'start:{names[0]}\\n{chain}{names[-1]}:"x"\\n'),
    Grammar("regex", "(" * 30_000 + ")" * 30_000),
    Grammar("json_schema", '{"items":' * 6_000 + "}" * 6_000),
):
    try:
        checker.check(grammar)
        print("passed")
    except InvalidRequest as error:
        print("refused")
"""


@pytest.mark.slow
def test_the_deepest_grammars_overflow_no_stack() -> None:
    """Chains of references as long as the size limit allows end in a verdict, not in the end of the process."""
    done = subprocess.run([sys.executable, "-c", DEEP], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", "passed", "refused", "refused"]


def test_a_model_that_cannot_be_constrained_says_so(tmp_path: Path) -> None:
    """Without a tokenizer or an end of text the server runs all the same, and a grammar is refused with the reason."""
    for checker, reason in [
        (GrammarChecker.load(tmp_path, 4096, frozenset({0})), "tokenizer cannot constrain"),
        (GrammarChecker.load(DEMO_MODEL, 4096, frozenset()), "no end-of-text token"),
    ]:
        with pytest.raises(InvalidRequest, match=f"grammar is not supported: .*{reason}"):
            checker.check(Grammar("regex", "a"))


def test_verdicts_are_forgotten_in_time(checker: GrammarChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of verdicts is bounded; the least recently used one is dropped first."""
    monkeypatch.setattr(grammar_module, "MAX_CACHED_VERDICTS", 3)
    for number in range(5):
        checker.check(Grammar("json_schema", json.dumps({"const": number})))
    assert [json.loads(grammar.source)["const"] for grammar in checker._verdicts] == [2, 3, 4]
