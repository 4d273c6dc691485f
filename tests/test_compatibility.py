"""docs/compatibility.md has a row for every field of every route of the OpenAPI document, and none that is not there.

A section of the page is headed by its routes. Its tables are of a request, an answer or an event, which counts as an
answer. A paragraph that begins with "Request as", "Answer as", "Whole answer as" (without events) or "Each of `field`
as" takes over the rows of the routes that it names.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fakes import INFO, FakeEngine, make_tokenizer
from peregrine_router.app import build_app
from peregrine_router.settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "compatibility.md"
KINDS = {"request": ("request",), "answer": ("answer", "event"), "whole answer": ("answer",)}
"""Kind of fields -> first cells of the tables that have them."""
STATES = {"same", "wider", "differs", "refused", "ignored", "left out", "—"}
PRESENT = {"same", "wider", "differs"}
"""States of fields that the document has."""
EVENTS = "text/event-stream"
ERRORS = ("error", "error_type")
"""Fields of events that end a stream: a section of their own describes them."""
_ROUTE = re.compile(r"\b(GET|POST|DELETE) (/[^\s`,\]]*)")
_TAKES_OVER = re.compile(
    r"^(Request|Answer|Whole answer|Each of `(\w+)`) as (.+?)(?:\n\n|\\\n|\Z)", re.DOTALL | re.MULTILINE
)

Route = tuple[str, str]
Rows = dict[str, set[str]]
"""Field -> its states."""


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document of the server."""
    tokenizer = make_tokenizer()
    return build_app(FakeEngine(tokenizer), tokenizer, Settings(), INFO).openapi()


def routes() -> list[Route]:
    """(method, path) of every route."""
    return [(method.upper(), path) for path, methods in document()["paths"].items() for method in methods]


def fields(schema: Mapping[str, Any], path: str = "", seen: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths of a schema's properties at any depth; those of a list's items like those of the list."""
    reference = schema.get("$ref", "")
    if reference in seen:
        return
    if reference:
        schema, seen = document()["components"]["schemas"][reference.rpartition("/")[2]], (*seen, reference)
    items = [schema["items"]] if "items" in schema else []
    for inner in (*items, *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from fields(inner, path, seen)
    for name, value in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from fields(value, f"{path}{name}.", seen)


def served(route: Route, kind: str) -> set[str]:
    """The fields of a route in the document, queries among those of the request."""
    operation = document()["paths"][route[1]][route[0].lower()]
    if kind == "request":
        content = operation.get("requestBody", {}).get("content", {})
        queries = {given["name"] for given in operation.get("parameters", []) if given["in"] == "query"}
        return queries.union(*(fields(body["schema"]) for body in content.values()))
    content = operation["responses"]["200"].get("content", {})
    event = content.get(EVENTS, {}).get("schema", {}).get("properties", {}).get("data", {}).get("contentSchema", {})
    whole = (fields(body.get("schema", {})) for type, body in content.items() if type != EVENTS)
    return {field for field in fields(event) if field.partition(".")[0] not in ERRORS}.union(*whole)


@cache
def sections() -> dict[Route, str]:
    """The text of each route's section."""
    found: dict[Route, str] = {}
    for section in re.split(r"^#{2,3} ", PAGE.read_text(), flags=re.MULTILINE):
        heading, _, text = section.partition("\n")
        found |= dict.fromkeys(_ROUTE.findall(heading), text)
    return found


def rows(text: str, kind: str) -> Rows:
    """The rows of a section's own tables of a kind."""
    found: Rows = {}
    for table in re.findall(r"^\|.*?(?=\n[^|]|\Z)", text, re.DOTALL | re.MULTILINE):
        head, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()]
        if head[0] in KINDS[kind]:
            found |= {field: set(cells[1:-1]) for cells in lines[1:] for field in re.findall(r"`([^`]+)`", cells[0])}
    return found


def described(route: Route, kind: str) -> Rows:
    """The rows of a route of a kind, those that it takes over among them."""
    found = rows(sections()[route], kind)
    for whose, prefix, others in _TAKES_OVER.findall(sections()[route]):
        taken = whose.lower() if "nswer" in whose else "request"
        if taken.endswith(kind):
            for other in _ROUTE.findall(others):
                inner = described(other, taken).items()
                found |= {f"{prefix}.{field}" if prefix else field: states for field, states in inner}
    return found


def covers(row: str, field: str) -> bool:
    """Whether a row is of a field: by its name, or with `.*` of all that it holds."""
    return field == row or (row.endswith(".*") and field.startswith(row[:-1]))


by_route = pytest.mark.parametrize("route", routes(), ids=" ".join)
by_kind = pytest.mark.parametrize("kind", ["request", "answer"])


def test_every_route_has_a_section_and_none_is_of_another() -> None:
    """A route that is added, renamed or removed changes the page."""
    assert sections().keys() == set(routes())


@by_route
@by_kind
def test_every_field_has_a_row(route: Route, kind: str) -> None:
    """A field that is added changes the page."""
    known = described(route, kind)
    assert {field for field in served(route, kind) if not any(covers(row, field) for row in known)} == set()


@by_route
@by_kind
def test_every_row_is_of_a_field(route: Route, kind: str) -> None:
    """A field that is said to be as theirs, wider or different is in the document."""
    known = served(route, kind)
    claimed = {row for row, states in described(route, kind).items() if states & PRESENT}
    assert {row for row in claimed if not any(covers(row, field) for field in known)} == set()


@by_route
@by_kind
def test_every_state_is_in_the_legend(route: Route, kind: str) -> None:
    """No row has a word that the page does not explain."""
    assert set().union(*described(route, kind).values()) <= STATES


def test_the_legend_explains_every_state() -> None:
    """It has a row for each, and no other."""
    legend = PAGE.read_text().partition("\n## ")[0]
    assert set(re.findall(r"^\| ([^|]+?) \| (?!meaning)\w", legend, re.MULTILINE)) == STATES
