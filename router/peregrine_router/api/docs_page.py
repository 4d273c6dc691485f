"""GET /docs: the OpenAPI document as a page without scripts, which loads nothing, from this server or another."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, Template
from starlette.responses import HTMLResponse

SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Forbids the browser every request that the page could cause."""
BOUNDS = {
    "exclusiveMinimum": "Above",
    "minimum": "At least",
    "exclusiveMaximum": "Below",
    "maximum": "At most",
    "minLength": "Characters at least",
    "maxLength": "Characters at most",
    "minItems": "Items at least",
    "maxItems": "Items at most",
    "default": "Default",
}
"""Keyword of JSON Schema -> words in front of its value."""


def docs_page(document: dict[str, Any]) -> HTMLResponse:
    """The page of an OpenAPI document."""
    return HTMLResponse(
        _template().render(document=document, operations=_by_tag(document), bounds=BOUNDS),
        headers={"content-security-policy": SECURITY_POLICY},
    )


@cache
def _template() -> Template:
    environment = Environment(loader=PackageLoader("peregrine_router.api", "."), autoescape=True, trim_blocks=True)
    environment.filters["basename"] = lambda reference: reference.rpartition("/")[2]
    return environment.get_template("docs_page.html")


def _by_tag(document: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """(method, path, operation) of every route, by its first tag."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = next(iter(operation.get("tags", ())), "Other")
            found.setdefault(tag, []).append((method.upper(), path, operation))
    return found
