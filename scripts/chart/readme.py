"""The table of values in the chart's README, made from values.yaml."""

import json

from scripts.chart.values import CHART, Value, leaves, read_values

README = CHART / "README.md"
BEGIN, END = "<!-- values: made by `make chart` -->\n", "<!-- end of values -->\n"
HEAD = "| value | default | meaning |\n|---|---|---|\n"


def render() -> str:
    """The README's text with the table of today's values. Raises ValueError if it has lost the table's marks."""
    text = README.read_text()
    before, rest = text[: text.index(BEGIN)], text[text.index(END) :]
    values = read_values()
    rows = [*_group_rows(values), *(_row(value) for value in leaves(values))]
    return f"{before}{BEGIN}{HEAD}{''.join(sorted(rows))}{rest}"


def _group_rows(values: tuple[Value, ...]) -> list[str]:
    """Rows of groups that have a description of their own."""
    rows = []
    for value in values:
        if value.members is not None:
            rows += _group_rows(value.members)
            if value.description:
                rows.append(f"| `{value.name}` | | {value.description} |\n")
    return rows


def _row(value: Value) -> str:
    return f"| `{value.name}` | `{_cell(json.dumps(value.default))}` | {_cell(value.description)} |\n"


def _cell(text: str) -> str:
    """Text that a table's cell may hold."""
    return text.replace("|", "\\|")
