"""Normalization of JSON schemas before they become grammars: objects that end, and keywords that a grammar can hold."""

from typing import Any

from peregrine_router.admission.json_pointer import escape, look_up
from peregrine_router.admission.schema_keywords import can_count, is_held, is_kept, may_overlap
from peregrine_router.request import InvalidRequest

MAX_WORK = 10_000
"""Upper bound on the subschemas and properties visited to combine schemas, because this runs on the event loop: about
10 ms."""
CHILDREN = frozenset({"items", "prefixItems", "additionalItems", "additionalProperties"})
"""Keywords whose value is a schema or a list of schemas, for parts of a value."""
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose value maps names to schemas."""
VARIANTS = ("anyOf", "oneOf")
IN_PLACE = ("allOf", *VARIANTS, "$ref")
"""Keywords whose schemas are for the same value."""
CONDITIONS = ("if", "then", "else")
"""Keywords that are left out, but whose schemas may list properties."""
COUNTS = ("minProperties", "maxProperties")
OBJECT_KEYWORDS = frozenset(
    {"properties", "patternProperties", "required", "additionalProperties", "unevaluatedProperties"}
)

Name = tuple[str, str]
"""(`properties` or `patternProperties`, name or pattern)."""
Names = dict[Name, None]
"""Ordered set of what an object may have."""
ANYTHING: Name = ("additionalProperties", "")
"""In Names: further properties are allowed."""


def normalize(schema: dict[str, Any], *, is_strict: bool = False) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the schema for a grammar, and what it leaves out of the given one, such as "not (at #/properties/a)".

    Objects have their listed properties only, unless `additionalProperties` says otherwise; where schemas are combined,
    the properties of all of them. Raises InvalidRequest if `is_strict` and something is left out.
    """
    normalizer = _Normalizer(schema)
    try:
        normalized = normalizer.run()
    except RecursionError:
        raise InvalidRequest("grammar is not valid: the schema is too deeply nested") from None
    dropped = tuple(normalizer.dropped)
    if dropped and is_strict:
        raise InvalidRequest(
            f"grammar is not valid: a `strict` schema cannot have {dropped[0]}: leave out the keyword, or `strict`"
        )
    return normalized, dropped


class _Normalizer:
    def __init__(self, root: dict[str, Any]) -> None:
        self.dropped: dict[str, None] = {}
        """Ordered set of the keywords left out, each with its place."""
        self._root = root
        self._copy_names: dict[str, str] = {}
        """`$ref` -> name of a definition without the restriction to listed properties, to be combined with others."""
        self._copies: dict[str, Any] = {}
        """Definitions of those names."""
        self._work = 0

    def run(self) -> dict[str, Any]:
        schema: dict[str, Any] = self._schema(self._root, "#")
        return {**schema, "$defs": _mapping(schema.get("$defs")) | self._copies} if self._copies else schema

    def _schema(self, given: Any, at: str, outer: Names | None = None, *, closes: bool = True) -> Any:
        """Normalizes one schema.

        `outer`: what schemas for the same value list. `closes`: whether to restrict it to listed properties, or leave
        that to the schema that it is combined with.
        """
        if not isinstance(given, dict):
            return given
        schema = _explicit(given)
        self._record(schema, at)
        kept = {key: self._member(key, value, at) for key, value in schema.items() if is_kept(key, value)}
        if _is_combined(schema):
            self._combine(schema, kept, at, outer or {}, closes=closes)
        elif closes:
            self._close(schema, kept, outer or {})
        counts = [key for key in COUNTS if key in kept and (_is_combined(schema) or not can_count(kept))]
        self.dropped |= {f"{key} (at {at})": None for key in counts}
        return {key: value for key, value in kept.items() if key not in counts}

    def _combine(self, schema: dict[str, Any], kept: dict[str, Any], at: str, outer: Names, *, closes: bool) -> None:
        """Normalizes the schemas for the same value."""
        is_alone = closes and not outer and _is_alone(schema)
        for kind in VARIANTS:
            if kind in schema:
                names = {} if is_alone or not closes else {**outer, **self._names(schema, skip=kind)}
                kept[kind] = self._each(schema[kind], f"{at}/{kind}", names, closes=closes)
        if "allOf" in schema:
            kept["allOf"] = self._each(schema["allOf"], f"{at}/allOf", {}, closes=is_alone)
        if not is_alone and "$ref" in schema:
            kept["$ref"] = self._open_copy(schema["$ref"])
        if closes and not is_alone and not any(kind in schema for kind in VARIANTS):
            self._close(schema, kept, outer)

    def _each(self, schemas: Any, at: str, outer: Names, *, closes: bool) -> Any:
        """Normalizes a list of schemas; anything else is left for the compiler to refuse."""
        if not isinstance(schemas, list):
            return schemas
        return [self._schema(each, f"{at}/{number}", outer, closes=closes) for number, each in enumerate(schemas)]

    def _member(self, key: str, value: Any, at: str) -> Any:
        """Normalizes the value of a keyword, if it has schemas of parts of the value."""
        where = f"{at}/{key}"
        if key in MAPS and isinstance(value, dict):
            return {name: self._schema(each, f"{where}/{escape(name)}") for name, each in value.items()}
        if key in CHILDREN and isinstance(value, list):
            return self._each(value, where, {}, closes=True)
        return self._schema(value, where) if key in CHILDREN else value

    def _record(self, schema: dict[str, Any], at: str) -> None:
        """Records the keywords that are going to be left out."""
        self.dropped |= {f"{key} (at {at})": None for key, value in schema.items() if not is_held(key, value)}
        branches = _list(schema.get("oneOf")) if "discriminator" not in schema else []
        if may_overlap([self._resolved(each) for each in branches]):
            self.dropped[f"oneOf (at {at})"] = None

    def _close(self, schema: dict[str, Any], kept: dict[str, Any], outer: Names) -> None:
        """Restricts an object to what it, its combined schemas and `outer` list."""
        type = schema.get("type", "object")
        names = {**outer, **self._names(schema)}
        is_object = "object" in (type if isinstance(type, list) else [type])
        if not is_object or "additionalProperties" in schema or ANYTHING in names:
            return
        if not names and "properties" not in schema:
            return
        self._spend(len(names))
        target: dict[str, Any] = {} if _is_combined(schema) else kept
        for keyword, name in names:
            _mapping(target.setdefault(keyword, {})).setdefault(name, True)
        target["additionalProperties"] = False
        if _is_combined(schema):
            kept["allOf"] = [*_list(kept.get("allOf")), target]

    def _names(self, schema: dict[str, Any], skip: str = "") -> Names:
        found: Names = {}
        self._collect(schema, found, set(), skip)
        return found

    def _collect(self, schema: Any, found: Names, seen: set[str], skip: str = "") -> None:
        """Adds what a schema lists, itself or by schemas for the same value. `skip`: a keyword to leave out."""
        if not isinstance(schema, dict):
            return
        listed = [(key, name) for key in ("properties", "patternProperties") for name in _mapping(schema.get(key))]
        listed += [("properties", name) for name in _list(schema.get("required")) if isinstance(name, str)]
        self._spend(1 + len(listed))
        found |= dict.fromkeys(listed)
        if schema.get("additionalProperties", schema.get("unevaluatedProperties", False)) is not False:
            found[ANYTHING] = None
        combined = [each for key in ("allOf", *VARIANTS) if key != skip for each in _list(schema.get(key))]
        for each in combined + [schema.get(key) for key in CONDITIONS]:
            self._collect(each, found, seen)
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            self._collect(look_up(self._root, reference), found, seen)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise InvalidRequest("grammar is not valid: the schema combines too many others: make it smaller")

    def _open_copy(self, reference: Any) -> Any:
        """Returns a reference to a schema that may be combined with others."""
        if not isinstance(reference, str):
            return reference
        if reference not in self._copy_names:
            target = look_up(self._root, reference)
            if not isinstance(target, dict) or not self._names(target):
                return reference
            name = self._copy_names[reference] = f"peregrine-open-{len(self._copy_names)}"
            self._copies[name] = self._schema(target, reference, closes=False)
        return f"#/$defs/{self._copy_names[reference]}"

    def _resolved(self, schema: Any) -> dict[str, Any]:
        seen: set[str] = set()
        while isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str) and reference not in seen:
            self._spend(1)
            seen.add(reference)
            schema = look_up(self._root, reference)
        return schema if isinstance(schema, dict) else {}


def _explicit(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with what it implies: `properties` are those of an object, and nothing is evaluated elsewhere."""
    explicit = dict(schema)
    if isinstance(schema.get("properties"), dict):
        explicit.setdefault("type", "object")
    if "unevaluatedProperties" in schema and not any(key in schema for key in IN_PLACE):
        explicit.setdefault("additionalProperties", explicit.pop("unevaluatedProperties"))
    return explicit


def _is_combined(schema: dict[str, Any]) -> bool:
    return any(key in schema for key in IN_PLACE)


def _is_alone(schema: dict[str, Any]) -> bool:
    """Whether a schema only says that the value must fit another one, or one of several."""
    found = [key for key in IN_PLACE if key in schema]
    is_one = len(found) == 1 and (found[0] != "allOf" or len(_list(schema["allOf"])) == 1)
    return is_one and not OBJECT_KEYWORDS & schema.keys()


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
