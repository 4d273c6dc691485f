"""Values for the chart, drawn by Hypothesis from its schema."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from scripts.chart.values import CHART

Schema = dict[str, Any]
SCHEMA: Schema = json.loads((CHART / "values.schema.json").read_text())
PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)
COMPANIONS: dict[str, Any] = {
    "multiHost": {"keysSecret": "shard-keys"},
    "httpRoute": {"parentRefs": [{"name": "gateway"}], "path": "/falcon"},
    "ingress": {"path": "/falcon"},
    "inferencePool": {"endpointPicker": "picker"},
    "weights": {"existingClaim": "claim", "accessModes": ["ReadWriteMany"]},
    "auth": {"metricsKey": "drawn-metrics-key"},
    "hub": {"existingSecret": ""},
    "strategy": {"maxUnavailable": 1},
    "autoscaling": {"minReplicas": 1},
    "probes": {"readiness": {"periodSeconds": 1, "failureThreshold": 1}, "liveness": {"periodSeconds": 2}},
    "model": {"shards": 0},
}
"""Values that agree with every other: what contradicts itself is refused, and has tests of its own."""


def drawn_values() -> st.SearchStrategy[dict[str, Any]]:
    """Values that the schema allows and that do not contradict each other."""
    return _strategy(SCHEMA, is_group=True).map(_agreeing)


def merged(values: Any, over: Any) -> Any:
    """Values with others over them, group by group."""
    if not isinstance(values, dict) or not isinstance(over, dict):
        return over
    return {**values, **{name: merged(values.get(name), value) for name, value in over.items()}}


def _agreeing(values: dict[str, Any]) -> dict[str, Any]:
    agreeing: dict[str, Any] = merged(values, COMPANIONS)
    if agreeing["auth"]["apiKeys"]:
        agreeing["auth"]["existingSecret"] = ""
    else:
        agreeing["auth"]["metricsKey"] = ""
    if agreeing["multiHost"]["enabled"]:
        agreeing["weights"]["type"] = "hostPath"
    return agreeing


def _strategy(schema: Schema, is_group: bool = False) -> st.SearchStrategy[Any]:
    """Values of a schema; of one with examples, those. A group of values has them all, a map some."""
    if "examples" in schema:
        return st.sampled_from(schema["examples"])
    if "$ref" in schema:
        return _strategy(SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]])
    if is_group and "properties" in schema:
        return st.fixed_dictionaries({name: _strategy(each, True) for name, each in schema["properties"].items()})
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([_strategy(each) for each in schema["anyOf"]])
    return _OF_TYPE[schema["type"]](schema)


def _object(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    properties = {name: _strategy(each) for name, each in schema.get("properties", {}).items()}
    required = {name: properties.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional=properties)


def _array(schema: Schema) -> st.SearchStrategy[list[Any]]:
    sizes = {"min_size": schema.get("minItems", 0), "max_size": min(schema["maxItems"], 3)}
    return st.lists(_strategy(schema["items"]), unique=schema.get("uniqueItems", False), **sizes)


def _string(schema: Schema) -> st.SearchStrategy[str]:
    longest = schema.get("maxLength", 200)
    if "pattern" not in schema:
        return st.text(PRINTABLE, min_size=schema.get("minLength", 0), max_size=min(longest, 20))
    texts = st.from_regex(schema["pattern"], fullmatch=True, alphabet=PRINTABLE)
    return texts.filter(lambda text: schema.get("minLength", 0) <= len(text) <= longest)


def _integer(schema: Schema) -> st.SearchStrategy[int]:
    return st.integers(schema.get("minimum", 0), schema.get("maximum", 10**9))


def _number(schema: Schema) -> st.SearchStrategy[float]:
    return st.floats(max(0.001, schema.get("minimum", 0.001)), schema.get("maximum", 1000))


_OF_TYPE: dict[str, Callable[[Schema], st.SearchStrategy[Any]]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda schema: st.booleans(),
}
