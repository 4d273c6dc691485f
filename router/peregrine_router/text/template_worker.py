"""The process that renders chat templates, so that a bad template harms a process that can be killed.

A template comes with a model: it may loop forever or exhaust memory, and a thread could not be stopped. Jinja's sandbox
protects the machine; the limits here and the timeouts of `TemplateProcess` protect the server.

Protocol: JSON lines on standard input and output. First the template, answered when it is compiled; then variables,
each answered by `text` or `error`.
"""

import json
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_MEMORY_BYTES = 2**30
"""Address space of this process."""
MAX_OUTPUT_CHARACTERS = 8 * 2**20
"""Length of one rendered prompt."""
Answer = dict[str, str]


def main() -> None:
    """Answers requests until standard input closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    source = json.loads(sys.stdin.readline())["template"]
    template: Template | None = None

    def compile() -> Answer:
        nonlocal template
        template = environment().from_string(source)
        return {}

    compiled = guarded(compile)
    _write(compiled)
    for line in sys.stdin:
        variables = json.loads(line)
        _write(compiled if template is None else guarded(lambda: {"text": render(template, variables)}))  # noqa: B023


def guarded(work: Callable[[], Answer]) -> Answer:
    """The answer of `work`, or the error that it raised, of whatever type: templates raise anything."""
    try:
        return work()
    except MemoryError:
        return {"error": "the template takes too much memory"}
    except Exception as error:
        return {"error": str(error) or type(error).__name__}


def render(template: Template, variables: dict[str, Any]) -> str:
    """The rendered text. Raises TemplateError if it is too long, and whatever the template raises."""
    pieces: list[str] = []
    length = 0
    for piece in template.generate(**variables):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_OUTPUT_CHARACTERS:
            raise TemplateError(f"the template writes more than {MAX_OUTPUT_CHARACTERS} characters")
    return "".join(pieces)


def environment() -> ImmutableSandboxedEnvironment:
    """The environment of transformers' chat templates: its options, its functions, `tojson` and blocks."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


class _Generation(Extension):
    """The block `{% generation %}`, by which training finds what the assistant said; its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's body, in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes `<` and `&` for HTML, which a prompt is not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _write(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
