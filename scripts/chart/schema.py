"""values.schema.json: closed, so that a misspelt value is refused at install and not ignored.

Draft 7, which Helm 3 reads. Types of Kubernetes are those of its oldest release that the chart supports.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from scripts.chart.values import CHART, Value, read_values

from peregrine_router.options.declaration import extra
from peregrine_router.settings import Settings

SCHEMA = CHART / "values.schema.json"
OLDEST_KUBERNETES = "1.30"
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
BY_OTHER_VALUES = frozenset(
    {
        "API_KEY",
        "API_KEY_FILE",
        "GRACEFUL_TERMINATION_TIMEOUT",
        "HUGGINGFACE_HUB_CACHE",
        "MODEL_ID",
        "NUM_SHARD",
        "PEREGRINE_HOSTNAME",
        "PORT",
        "REVISION",
        "ROOT_PATH",
    }
)
"""Options that values of the chart set: its probes, mounts, grace period and Service hang on them."""
KUBERNETES_TYPES = (
    "Affinity",
    "EnvVar",
    "NetworkPolicyEgressRule",
    "NetworkPolicyPeer",
    "Toleration",
    "Volume",
    "VolumeMount",
)
VOLUMES = ("name", "configMap", "csi", "emptyDir", "nfs", "persistentVolumeClaim", "projected", "secret")
"""Fields of a Volume that are accepted: no hostPath beside that of the weights, no driver that Kubernetes retired."""
NAME = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9_~.-]*"
LABEL = {"type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$"}
LABEL_KEY = r"^([a-z0-9][a-z0-9.-]*[a-z0-9]/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
COUNT_OR_PERCENT = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": 100}, {"type": "string", "pattern": "^([0-9]{1,2}%)?$"}]
}
COMMON: dict[str, Any] = {
    "annotations": {
        "type": "object",
        "propertyNames": {"pattern": LABEL_KEY},
        "additionalProperties": {"type": "string"},
        "examples": [{}, {"example.com/team": "text generation"}],
    },
    "countOrPercent": COUNT_OR_PERCENT,
    "duration": {"type": "string", "pattern": "^[1-9][0-9]{0,3}(s|m|h)$"},
    "host": {"type": "string", "maxLength": 63, "pattern": rf"^(\*\.)?{NAME}$"},
    "labels": {
        "type": "object",
        "propertyNames": {"pattern": LABEL_KEY},
        "additionalProperties": LABEL,
        "examples": [{}, {"team": "text", "example.com/tier": "one"}],
    },
    "name": {"type": "string", "maxLength": 63, "pattern": f"^{NAME}$"},
    "nameOrEmpty": {"type": "string", "maxLength": 63, "pattern": f"^({NAME})?$"},
    "parentRef": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {"$ref": "#/definitions/name"},
            "namespace": {"$ref": "#/definitions/name"},
            "sectionName": {"$ref": "#/definitions/name"},
            "port": {"$ref": "#/definitions/port"},
        },
    },
    "path": {"type": "string", "maxLength": 200, "pattern": f"^/({SEGMENT}(/{SEGMENT})*)?$"},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "probeSeconds": {"type": "integer", "minimum": 1, "maximum": 600},
    "probeTimeout": {"type": "integer", "minimum": 5, "maximum": 600},
    "quantity": {"type": "string", "pattern": "^[1-9][0-9]{0,5}(Ki|Mi|Gi|Ti|k|M|G|T)$"},
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "cpu": {
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": 1024},
                    {"type": "string", "pattern": "^[1-9][0-9]{0,5}m?$"},
                ]
            },
            "memory": {"$ref": "#/definitions/quantity"},
            "ephemeral-storage": {"$ref": "#/definitions/quantity"},
        },
    },
}
"""Shapes that several values have."""


def make_schema() -> dict[str, Any]:
    """The whole document."""
    schema = _group(read_values())
    # Where the chart is a part of another, Helm hands it that one's `global`, of any shape.
    schema["properties"]["global"] = {"type": "object"}
    definitions = dict(sorted({**COMMON, **_kubernetes(), "options": _options()}.items()))
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "definitions": definitions}


def render() -> str:
    """The file's text."""
    return json.dumps(make_schema(), indent=1) + "\n"


def _group(values: tuple[Value, ...]) -> dict[str, Any]:
    properties = {value.path[-1]: _of(value) for value in values}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _of(value: Value) -> dict[str, Any]:
    schema = _group(value.members) if value.members is not None else value.schema
    schema = schema or {"type": JSON_TYPES[type(value.default)]}
    return {"description": value.description, **schema} if value.description else schema


def _options() -> dict[str, Any]:
    """Every option of `peregrine serve` by its environment variable, but those in BY_OTHER_VALUES."""
    properties = Settings.model_json_schema()["properties"]
    fields = {extra(field, "env"): (name, field) for name, field in Settings.model_fields.items()}
    known = {env: _option(properties[name]) for env, (name, _) in sorted(fields.items()) if env not in BY_OTHER_VALUES}
    return {"type": "object", "additionalProperties": False, "properties": known}


def _option(schema: dict[str, Any]) -> dict[str, Any]:
    """Schema of an option's value in YAML, without what stands for "not set"."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    kind = kinds[0]
    if kind["type"] == "array":  # names in one variable, with commas between them
        return {"type": "string", "minLength": 1}
    names = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "pattern")
    return {name: kind[name] for name in names if name in kind}


def _kubernetes() -> dict[str, Any]:
    """Definitions of KUBERNETES_TYPES and of what they refer to, without their prose."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{OLDEST_KUBERNETES}.0-local-strict"
    known = json.loads((folder / "_definitions.json").read_text())["$defs"]
    by_name = {name.rpartition(".")[2]: name for name in known if ".api.core.v1." in name or ".networking.v1." in name}
    found: dict[str, Any] = {}
    wanted = [by_name[name] for name in KUBERNETES_TYPES]
    while wanted:
        name = wanted.pop()
        if (short := name.rpartition(".")[2]) not in found:
            schema = known[name]
            if short == "Volume":
                schema = {**schema, "properties": {field: schema["properties"][field] for field in VOLUMES}}
            found[short] = _trimmed(schema)
            wanted += _references(schema)
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference.rpartition("/")[2]
        for each in schema.values():
            yield from _references(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _trimmed(schema: Any) -> Any:
    """Without descriptions and extensions, references by short name."""
    if isinstance(schema, list):
        return [_trimmed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        return {"$ref": "#/definitions/" + reference.rpartition("/")[2].rpartition(".")[2]}
    kept = {name: each for name, each in schema.items() if not name.startswith("x-kubernetes")}
    if isinstance(kept.get("description"), str):  # and not the field of that name
        del kept["description"]
    return {name: _trimmed(each) for name, each in kept.items()}
