"""The table of text-generation-launcher's options in docs/launcher.md: `python -m scripts.launcher_table` renews it."""

from pathlib import Path

from peregrine_router.options.declaration import extra
from peregrine_router.options.launcher import LAUNCHER_OPTIONS, SAME_NAMES
from peregrine_router.settings import Settings

PAGE = Path(__file__).parents[1] / "docs/launcher.md"
BEGIN, END = "<!-- table: python -m scripts.launcher_table -->\n", "<!-- end of table -->\n"


def table() -> str:
    """The Markdown table, options in the order of their names."""
    rows = [(name, _variable(name), "the same", text) for name, text in SAME_NAMES.items()]
    rows += [(each.name if each.has_flag else "", each.env, each.effect, each.reason) for each in LAUNCHER_OPTIONS]
    lines = [
        f"| {_flag(name)} | `{variable}` | {effect} | {text} |"
        for name, variable, effect, text in sorted(rows, key=lambda row: row[1])
    ]
    return "\n".join(["| flag | variable | here | |", "|---|---|---|---|", *lines, ""])


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


def _variable(name: str) -> str:
    return str(extra(Settings.model_fields[name], "env"))


def _flag(name: str) -> str:
    return f"`--{name.replace('_', '-')}`" if name else ""


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
