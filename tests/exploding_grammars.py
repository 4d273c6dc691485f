"""A hundred grammars that are short and explode: ten constructions, ten sizes each."""

import json
from collections.abc import Callable
from typing import Any

SIZES = (2, 3, 5, 8, 20, 50, 120, 300, 900, 2000)
Json = dict[str, Any]


def nested_counts(size: int) -> Json:
    """Counted repetition of counted repetition: size * size * size letters."""
    return _regex(f"((a{{1,{size}}}b){{1,{size}}}c){{1,{size}}}")


def nth_from_the_end(size: int) -> Json:
    """A letter that many places before the end, of 2 ** size states, for sixteen letters at once."""
    branches = (f"(.|\\n)*[{letter}](.|\\n){{{size + at}}}" for at, letter in enumerate("abcdefghijklmnop"))
    return _regex("(" + "|".join(branches) + ")")


def nested_stars(size: int) -> Json:
    """Stars of stars, which backtracking takes exponential time for."""
    return _regex("(" * size + "a*" + ")*" * size + "b")


def classes_of_all_scripts(size: int) -> Json:
    """Classes of thousands of code points, counted."""
    return _regex(rf"(\p{{L}}[^\p{{Lu}}\x00-\x7f]){{1,{size}}}(?i:\p{{Greek}}{{{size}}})")


def huge_enum(size: int) -> Json:
    """Texts that share long beginnings."""
    return _schema({"enum": ["x" * (at % 40) + str(at * at) for at in range(size)]})


def cycle_of_references(size: int) -> Json:
    """Definitions that refer to one another all round, each in three places."""

    def definition(at: int) -> Json:
        next_one = {"$ref": f"#/$defs/d{(at + 1) % size}"}
        return {"anyOf": [next_one, {"type": "array", "items": next_one}, {"properties": {"a": next_one}}]}

    return _schema({"$defs": {f"d{at}": definition(at) for at in range(size)}, "$ref": "#/$defs/d0"})


def product_of_alternatives(size: int) -> Json:
    """All of many, each any of two: 2 ** size combinations."""
    choice = [
        {"anyOf": [{"properties": {f"p{at}": {"type": kind}}, "required": [f"p{at}"]} for kind in ("integer", "null")]}
        for at in range(size)
    ]
    return _schema({"type": "object", "allOf": choice})


def overlapping_patterns(size: int) -> Json:
    """Names of properties that many patterns match."""
    patterns = {f"^.*{chr(97 + at % 26)}.{{{at % 30}}}$": {"type": "integer"} for at in range(size)}
    return _schema({"type": "object", "patternProperties": patterns, "minProperties": size % 50})


def deep_nesting(size: int) -> Json:
    """Arrays of arrays, as deep as a body may be and deeper."""
    schema: Json = {"type": "integer"}
    for _ in range(min(size, 60)):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size * size}
    return _schema(schema)


def ambiguous_rules(size: int) -> Json:
    """Rules that read a text in as many ways as it has parts, and then some."""
    rules = "\n".join(f"r{at}: r{(at + 1) % size} r{(at + 2) % size} | r{(at * 7) % size}? /a*/" for at in range(size))
    return {"type": "lark", "value": f"start: r0+\n{rules}"}


CONSTRUCTIONS: tuple[Callable[[int], Json], ...] = (
    nested_counts,
    nth_from_the_end,
    nested_stars,
    classes_of_all_scripts,
    huge_enum,
    cycle_of_references,
    product_of_alternatives,
    overlapping_patterns,
    deep_nesting,
    ambiguous_rules,
)


def _regex(source: str) -> Json:
    return {"type": "regex", "value": source}


def _schema(schema: Json) -> Json:
    return {"type": "json", "value": json.dumps(schema)}
