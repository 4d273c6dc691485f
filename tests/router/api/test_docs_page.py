"""GET /docs."""

import re

from fakes import Server


def test_the_page_loads_nothing(server: Server) -> None:
    """Without the internet it shows all it has: no script, style, font or picture of another file, and the browser is
    told to allow none."""
    answer = server.client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<(script|link|img|iframe)|\bsrc=|url\(|@import|https?:", answer.text)


def test_the_page_shows_every_route(server: Server) -> None:
    """Each method and path is a heading of its own."""
    text = server.client.get("/docs").text
    for path, methods in server.client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"<b>{method.upper()}</b> <code>{path}</code>" in text


def test_links_of_the_page_lead_somewhere(server: Server) -> None:
    """An object is a link to its fields; the document is linked relative to the page, under any prefix."""
    text = server.client.get("/docs").text
    links = set(re.findall(r'href="([^"]+)"', text))
    assert {"#GenerateParameters", "#ChatChunk", "openapi.json"} <= links
    assert links - {"openapi.json"} <= {f"#{id}" for id in re.findall(r'id="([^"]+)"', text)}


def test_the_page_shows_fields_with_words_and_bounds(server: Server) -> None:
    """A row has the name, the type, what it means, its bounds and an example."""
    rows = server.client.get("/docs").text.split("<tr>")
    row = next(row for row in rows if row.startswith("<td><code>min_tokens</code>"))
    for part in ("integer or null", "Mask end-of-text", "At least <code>0", "Example: <code>5</code>"):
        assert part in row
