"""Docstrings can be read alone, and words that were replaced by the field's stay out of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("router", "server", "kernels", "benchmarks", "scripts", "tests")
PACKAGES = ("router", "server", "kernels")
_NO_NOUN = re.compile(r"\s*(Of|What|Who|Whose|Those)\b")
_RETIRED = {
    r"guess\w*|GUESS\w*|Guess\w*": "draft token, draft",
    r"worth_\w+": "choose_draft_lengths",
    r"num_right|right_rows": "accepted",
    r"_chances?|_common_chance|[A-Z]+_CHANCE": "acceptance rate",
    r"_?copy_?out|CopyOut": "host copy",
    r"Launched|StepWork": "PendingStep, ForwardInput",
    r"SlotRows|by_slot": "GraphDecodeRows, for_graph",
    r"headroom|Headroom": "MemoryProfile, memory left",
    r"rungs?|ladder": "captured size",
    r"eagerly": "without capture",
    r"KeyRing": "ApiKeyStore",
    r"LIVENESS": "public_paths",
    r"LoopPressure|num_together": "EventLoopLoad, tokens_per_flush",
    r"MeasuredShards": "TimedShards",
    r"LimitedHttp": "BoundedHttpProtocol",
    r"num_remembered": "num_cached_blocks",
    r"heirs?|followers?": "sibling",
    r"leaders?": "prompt owner",
    r"Committed": "NewToken",
    r"max_brief|is_short": "max_throttled_decodes, is_throttled_only",
    r"\w*hopeless": "unmeetable",
    r"note_\w+(?=\()": "record_*, observe_*",
    r"Marked|free_mark": "EscapedPrompt, unused_sentinel",
    r"likeliest(?=\()": "argmax",
    r"quantizes|is_int8": "WeightFormat",
    r"min_rows": "gemm_min_rows",
    r"plain_linear": "dense_linear",
}
"""Pattern -> the field's word. Patterns match whole words: `peregrine_guessed_tokens`, a metric's old name, and
`gemm_min_rows` pass."""

by_folder = pytest.mark.parametrize("folder", FOLDERS)


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the docstrings of modules, classes and functions, and of the strings behind assignments."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                match statement:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        yield statement.lineno, text


@by_folder
def test_docstrings_begin_with_a_noun_or_a_verb(folder: str) -> None:
    """A docstring that begins with Of, What, Who, Whose or Those leaves its noun to the reader."""
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text.strip().splitlines()[0]}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for line, text in docstrings(file)
        if _NO_NOUN.match(text)
    ]
    assert not found, "\n".join(found)


@by_folder
def test_retired_words_stay_out(folder: str) -> None:
    """Code, comments and docstrings use the field's words."""
    patterns = {re.compile(rf"\b(?:{pattern})\b"): word for pattern, word in _RETIRED.items()}
    files = (file for suffix in ("py", "c", "h") for file in sorted((ROOT / folder).rglob(f"*.{suffix}")))
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match[0]!r}: say {word}"
        for file in files
        if file != Path(__file__)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for pattern, word in patterns.items()
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_says_what_lives_in_it(package: str) -> None:
    """Each folder with modules has an `__init__.py` with a docstring of two lines or more."""
    for folder in {file.parent for file in (ROOT / package).rglob("*.py")}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, folder
        assert len([line for line in docstring.splitlines() if line]) >= 2, folder
