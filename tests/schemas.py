"""Random JSON schemas in the style of tool parameters and response formats."""

import random
from typing import Any

WORDS = ("name", "city", "age", "tags", "is_open", "price", "code", "next")


def random_schema(seed: int) -> dict[str, Any]:
    """Makes the schema of an object or an array; one in three has definitions and references to them."""
    maker = _Maker(random.Random(seed))
    schema = maker.choose([maker.object, maker.array], depth=2)
    return {**schema, "$defs": maker.definitions} if maker.definitions else schema


class _Maker:
    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._has_definitions = source.random() < 0.33
        self.definitions: dict[str, Any] = {}

    def choose(self, makers: list[Any], depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = self._random.choice(makers)(depth)
        return schema

    def value(self, depth: int) -> dict[str, Any]:
        leaves = [self.string, self.integer, self.number, self.choice, self.constant]
        nested = [self.object, self.array, self.either, self.reference]
        return self.choose(leaves + nested if depth > 0 else leaves, depth)

    def object(self, depth: int) -> dict[str, Any]:
        names = self._random.sample(WORDS, self._random.randint(1, 3))
        return {
            "type": "object",
            "properties": {name: self.value(depth - 1) for name in names},
            "required": self._random.sample(names, self._random.randint(0, len(names))),
            "additionalProperties": False,
        }

    def array(self, depth: int) -> dict[str, Any]:
        low = self._random.randint(0, 2)
        return {"type": "array", "items": self.value(depth - 1), "minItems": low, "maxItems": low + 2}

    def either(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.value(depth - 1), self.value(depth - 1)]}

    def reference(self, depth: int) -> dict[str, Any]:
        if not self._has_definitions:
            return self.constant(depth)
        name = self._random.choice(WORDS)
        if name not in self.definitions:
            self.definitions[name] = self.value(0)
        return {"$ref": f"#/$defs/{name}"}

    def string(self, _depth: int) -> dict[str, Any]:
        low = self._random.randint(0, 3)
        return self._random.choice(
            [
                {"type": "string", "minLength": low, "maxLength": low + 6},
                {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
                {"type": "string", "enum": ["red", "green", "vert-de-gris"]},
                {"type": "string", "format": "date"},
            ]
        )

    def integer(self, _depth: int) -> dict[str, Any]:
        low = self._random.randint(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + self._random.randint(0, 1000)}

    def number(self, _depth: int) -> dict[str, Any]:
        low = self._random.randint(-5, 5)
        return {"type": "number", "minimum": low, "exclusiveMaximum": low + 0.5}

    def choice(self, _depth: int) -> dict[str, Any]:
        return {"type": self._random.sample(["boolean", "null", "integer"], 2)}

    def constant(self, _depth: int) -> dict[str, Any]:
        return {"const": self._random.choice(["x", 3, None, True, "café ☕"])}
