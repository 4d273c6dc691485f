"""The documentation names files, tests and folders that exist, and stays short."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "helm").rglob("*.md")])
ARCHITECTURE = DOCS / "architecture.md"
EXTENDING = DOCS / "extending.md"
FOLDERS = ("router", "server", "kernels", "benchmarks", "scripts", "tests")
PACKAGES = ("router/peregrine_router", "server/peregrine_server", "kernels/peregrine_kernels")
PAGES_ON_CODE = sorted(
    [
        *(DOCS / "design").glob("*.md"),
        *(DOCS / f"{name}.md" for name in ("architecture", "extending", "gpu", "security")),
    ]
)
"""Decisions and the glossary also quote other projects."""
MAX_ARCHITECTURE_WORDS = 1_200
MAX_DESIGN_WORDS = 600
_LINK = re.compile(r"\[((?:[^\[\]]|\n)+)\]\(([^)\s]+)\)")
_SOURCE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|c|h|toml|sh))(?:::(\w+))?`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

page_by_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def links(page: Path) -> list[tuple[str, str]]:
    """(text, target) of every link and image to something in this repository."""
    found = _LINK.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    return [(text, target) for text, target in found if not re.match(r"\w+://|mailto:", target)]


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(page.read_text()))
    return {heading.strip().replace(" ", "-") for heading in headings}


def names_in(file: Path) -> set[str]:
    """Functions and classes that a Python file defines, at any depth."""
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, definitions)}


@cache
def source_files() -> tuple[str, ...]:
    """Every file of the repository, as `/path`, but those of the documentation and of tools."""
    nested = (file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.is_file())
    return tuple(f"/{file.relative_to(ROOT)}" for file in (*nested, *ROOT.glob("*.*")))


def files_named(name: str) -> list[Path]:
    """The files whose path ends in `name`."""
    return [ROOT / file[1:] for file in source_files() if file.endswith(f"/{name}")]


@cache
def words_of_the_code() -> frozenset[str]:
    """Words of all source files, their paths, the Makefile and pyproject.toml."""
    files = [ROOT / name[1:] for name in source_files() if name.endswith((".py", ".c", ".h", ".sh", ".toml"))]
    texts = (file.read_text() for file in (*files, ROOT / "Makefile"))
    return frozenset(re.findall(r"\w+", " ".join((*texts, *source_files()))))


def package_folders(package: str) -> set[str]:
    """Folders of a package that hold files, relative to it; `./` is the package itself."""
    root = ROOT / package
    files = (file for file in root.rglob("*") if file.is_file() and file.suffix not in (".pyc", ".so"))
    return {f"{file.parent.relative_to(root)}/" for file in files}


def folder_rows(package: str) -> set[str]:
    """Folders of a package that have a row in the architecture page."""
    section = ARCHITECTURE.read_text().partition(f"(`{package}/`)")[2].partition("\n#")[0]
    return set(re.findall(r"^\| `([^`]+/)` \| \S", section, re.MULTILINE))


@page_by_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists, and a heading in it if it has a fragment."""
    for text, target in links(page):
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"[{text}]({target})"
        assert not fragment or fragment in anchors(file), f"[{text}]({target})"


@page_by_page
def test_a_link_named_after_a_test_leads_to_it(page: Path) -> None:
    """The file that the link names defines a test of that name."""
    for text, target in links(page):
        if (test := text.strip("`")).startswith("test_"):
            assert test in names_in(page.parent / target), f"{target} has no {test}"


@page_by_page
def test_source_files_in_the_text_exist(page: Path) -> None:
    """A file in backquotes is the end of some file's path; a name behind `::` is defined in it."""
    for name, definition in _SOURCE.findall(page.read_text()):
        found = files_named(name)
        assert found, f"{page.name} names {name}"
        assert not definition or any(definition in names_in(file) for file in found), f"{name} has no {definition}"


@pytest.mark.parametrize("page", PAGES_ON_CODE, ids=lambda page: page.stem)
def test_names_in_the_text_exist(page: Path) -> None:
    """Each word in backquotes stands in the code."""
    spans = " ".join(re.findall(r"`([^`\n]+)`", page.read_text()))
    missing = set(re.findall(r"[A-Za-z_]\w+", spans)) - words_of_the_code()
    assert not missing


def test_the_first_table_of_extending_names_what_is_there() -> None:
    """Each "where do I change" has files that exist, and symbols that stand in one of them."""
    table = EXTENDING.read_text().partition("\n## ")[2].partition("\n## ")[0]
    rows = [row.split("|")[1:-1] for row in table.splitlines() if row.startswith("| ") and "`" in row]
    assert len(rows) >= 6
    for question, file_cell, symbol_cell in rows:
        files = [file for name, _ in _SOURCE.findall(file_cell) for file in files_named(name)]
        words = {word for file in files for word in re.findall(r"\w+", file.read_text())}
        symbols = re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", symbol_cell)))
        assert symbols, question
        assert set(symbols) <= words, question


def test_the_architecture_page_is_short() -> None:
    """It is read whole, so it has 1,200 words at most."""
    assert len(ARCHITECTURE.read_text().split()) <= MAX_ARCHITECTURE_WORDS


@pytest.mark.parametrize("page", sorted((DOCS / "design").glob("*.md")), ids=lambda page: page.stem)
def test_a_design_page_is_short(page: Path) -> None:
    """One topic in 600 words at most."""
    assert len(page.read_text().split()) <= MAX_DESIGN_WORDS


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_has_a_row(package: str) -> None:
    """The architecture page has a row for each folder of each package, and for no other."""
    assert folder_rows(package) == package_folders(package)


def test_every_decision_is_in_the_index() -> None:
    """The index links every page of docs/decisions by its title."""
    index = {target: text for text, target in links(DOCS / "decisions" / "README.md")}
    for page in (DOCS / "decisions").glob("[0-9]*.md"):
        number, _, title = page.read_text().splitlines()[0].removeprefix("# ").partition(". ")
        assert page.name.startswith(f"{int(number):04}-")
        assert index.get(page.name) == title, page.name


def test_the_glossary_is_in_order() -> None:
    """Words are found without searching."""
    rows = re.findall(r"^\| (?!word|-)([^|]+?) \|", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert rows == sorted(rows, key=str.lower)
    assert len(set(rows)) == len(rows)
