"""The values of the chart as values.yaml declares them: path, default, description, JSON schema."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "peregrine"
VALUES = CHART / "values.yaml"
SCHEMA_MARK = "@ "


@dataclass(frozen=True)
class Value:
    """A value that a user may set; or, where it has members, a group of them."""

    path: tuple[str, ...]
    default: Any
    description: str
    schema: dict[str, Any] | None
    """JSON schema behind `# @`; None: the type of the default says all."""
    members: tuple["Value", ...] | None
    """None of a value that is no group."""

    @property
    def name(self) -> str:
        """The path with dots, as `--set` takes it."""
        return ".".join(self.path)


def read_values(file: Path = VALUES) -> tuple[Value, ...]:
    """The values in their order. Raises ValueError if a comment's schema is no JSON."""
    text = file.read_text()
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return tuple(_values(node, text.splitlines(), ()))


def leaves(values: tuple[Value, ...]) -> Iterator[Value]:
    """The values that are no groups."""
    for value in values:
        yield from leaves(value.members) if value.members is not None else (value,)


def _values(mapping: yaml.MappingNode, lines: list[str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, node in mapping.value:
        description, schema = _comment(lines, key.start_mark.line, key.start_mark.column)
        path = (*above, key.value)
        is_group = isinstance(node, yaml.MappingNode) and node.value and schema is None
        members = tuple(_values(node, lines, path)) if is_group else None
        yield Value(path, _construct(node), description, schema, members)


def _construct(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _comment(lines: list[str], line: int, column: int) -> tuple[str, dict[str, Any] | None]:
    """(description, schema) of the comment lines right above a line, at its column."""
    start, mark = line, " " * column + "# "
    while start > 0 and lines[start - 1].startswith(mark):
        start -= 1
    texts = [text.removeprefix(mark) for text in lines[start:line]]
    schemas = [text.removeprefix(SCHEMA_MARK) for text in texts if text.startswith(SCHEMA_MARK)]
    schema = json.loads(" ".join(schemas)) if schemas else None
    return " ".join(text for text in texts if not text.startswith(SCHEMA_MARK)), schema
