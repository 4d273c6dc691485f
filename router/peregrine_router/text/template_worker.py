"""The process that renders chat templates, so that a bad template harms a process that can be killed.

A template comes with a model: it may loop forever or exhaust memory, and a thread could not be stopped. Jinja's sandbox
protects the machine; the limits here and the timeouts of `TemplateProcess` protect the server.

Protocol: JSON lines on standard input and output. First the template, answered when it is compiled; then variables,
each answered by `text`, or by `error` and perhaps `detail`.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from peregrine_server.parent import signal_at_parents_death

MAX_MEMORY_BYTES = 2**30
"""Address space of this process."""
MAX_OUTPUT_CHARACTERS = 8 * 2**20
"""Length of one rendered prompt."""
CANNOT = "the chat template cannot render these messages"
MAX_ERROR_CHARACTERS = 1000
"""Length of an error, which a template may raise with any text."""
Answer = dict[str, str]


def main() -> None:
    """Answers requests until standard input closes."""
    # A template that loops does not see its input close.
    signal_at_parents_death(signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    first = sys.stdin.buffer.readline()
    if not first:
        return  # The router ended first.
    source = json.loads(first)["template"]
    template: Template | None = None

    def compile() -> Answer:
        nonlocal template
        template = environment().from_string(source)
        return {}

    compiled = guarded(compile)
    _write(compiled)
    for line in sys.stdin.buffer:
        variables = json.loads(line)
        _write(compiled if template is None else guarded(lambda: {"text": render(template, variables)}))  # noqa: B023


def guarded(work: Callable[[], Answer]) -> Answer:
    """The answer of `work`, or the error that it raised, of whatever type: templates raise anything. `detail` is for
    the log: what Jinja and Python say of a template is not written for clients."""
    try:
        return work()
    except MemoryError:
        return {"error": "the template takes too much memory"}
    except Refusal as error:
        return {"error": _text(str(error))}
    except Exception as error:
        return {"error": CANNOT, "detail": _text(f"{type(error).__name__}: {error}")}


def _text(error: str) -> str:
    """An error that can be written as JSON: a template may raise one of any length, and with half a character."""
    return error[:MAX_ERROR_CHARACTERS].encode(errors="replace").decode()


def render(template: Template, variables: dict[str, Any]) -> str:
    """The rendered text. Raises Refusal if it is too long, and whatever the template raises."""
    pieces: list[str] = []
    length = 0
    for piece in template.generate(**variables):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_OUTPUT_CHARACTERS:
            raise Refusal(f"the template writes more than {MAX_OUTPUT_CHARACTERS} characters")
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal("the template writes half of a surrogate pair, which is no text") from None
    return text


def environment() -> ImmutableSandboxedEnvironment:
    """The environment of transformers' chat templates: its options, its functions, `tojson` and blocks."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    # Operators that are intercepted are not computed while the template is compiled, where 9 ** 9 ** 9 takes for ever.
    environment.intercepted_binops = frozenset(environment.default_binop_table)
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


class Refusal(TemplateError):
    """The template, or a limit of this module, refuses the messages; the message is for the client."""


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
    raise Refusal(message)


def _write(answer: Answer) -> None:
    # Templates may write lone surrogates.
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode(errors="surrogatepass") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
