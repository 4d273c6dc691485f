"""The chart rendered by real Helm, and the checks of Kubernetes' API server on what comes out."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from scripts.chart.helm import HELM_4, Release, fetch
from scripts.chart.values import CHART

Object = dict[str, Any]
"""A Kubernetes object as its YAML says it."""
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
KUBERNETES = ("1.30", "1.37")
"""The oldest release that the chart supports, and the newest that has schemas."""
CRDS = Path(__file__).parent / "helm" / "crds"
RELEASE, NAMESPACE = "demo", "llm"
# PyYAML has no type for a lone `=`, which Helm's YAML leaves without quotes, and Kubernetes reads as text.
yaml.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value, Loader=yaml.CSafeLoader)


class Refused(Exception):
    """Helm's message when it renders nothing."""


def run_helm(*arguments: str | Path, release: Release = HELM_4, stdin: str = "") -> str:
    """Standard output of Helm. Raises Refused if it fails."""
    done = subprocess.run([fetch(release), *arguments], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(
    values: Mapping[str, Any] | None = None, *files: Path, release: Release = HELM_4, chart: Path = CHART
) -> list[Object]:
    """The objects of an installation with value files and, over them, values. Raises Refused."""
    chosen = [argument for file in files for argument in ("--values", str(file))]
    text = _template(release, chart, tuple(chosen), json.dumps(values or {}))
    for node in yaml.compose_all(text, Loader=yaml.CSafeLoader):
        _assert_keys_differ(node)
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


@cache
def _template(release: Release, chart: Path, chosen: tuple[str, ...], values: str) -> str:
    """YAML that Helm prints. Tests ask for the same again and again."""
    arguments: tuple[str | Path, ...] = ("template", RELEASE, chart, "--namespace", NAMESPACE, *chosen, "--values", "-")
    return run_helm(*arguments, release=release, stdin=values)


def nested(name: str, value: Any) -> dict[str, Any]:
    """Values with one set, by its name with dots."""
    group, _, rest = name.partition(".")
    return {group: nested(rest, value) if rest else value}


def only(objects: Iterable[Object], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def pod_of(objects: Iterable[Object]) -> Object:
    """Spec of the Deployment's pods."""
    spec: Object = only(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def container_of(objects: Iterable[Object]) -> Object:
    """The Deployment's container."""
    container: Object = pod_of(objects)["containers"][0]
    return container


def errors(objects: Iterable[Object]) -> Iterator[str]:
    """Faults that the API servers of KUBERNETES, or the CRDs, would find."""
    for each in objects:
        kind = (each["apiVersion"], each["kind"])
        custom = _custom_schemas().get(kind)
        for validator in [custom] if custom else [_built_in(*kind, version) for version in KUBERNETES]:
            for error in validator.iter_errors(each):
                yield f"{each['kind']} {error.json_path}: {error.message[:200]}"


def _assert_keys_differ(node: yaml.Node | None) -> None:
    """Kubernetes refuses a key that stands twice in a mapping; Python's YAML takes the last."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"a key stands twice: {node.start_mark}"
        for _, value in node.value:
            _assert_keys_differ(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _assert_keys_differ(value)


@cache
def _built_in(api_version: str, kind: str, version: str) -> Draft202012Validator:
    """Check of `kubernetes-validate --strict`, with its schemas read once. Raises FileNotFoundError if unknown."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    group, _, number = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number)))
    schema = json.loads((folder / f"{name}.json").read_text())
    return Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    resource: Resource[Any] = Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
    return resource @ Registry()


@cache
def _custom_schemas() -> dict[tuple[str, str], Draft202012Validator]:
    """By apiVersion and kind, with closed objects."""
    documents = [json.loads(file.read_text()) for file in CRDS.glob("*.json")]
    return {(each["apiVersion"], each["kind"]): Draft202012Validator(_closed(each["schema"])) for each in documents}


def _closed(schema: dict[str, Any], at_root: bool = True) -> dict[str, Any]:
    """JSON Schema of a structural schema: what a CRD does not name is refused, as `--validate=strict` does."""
    closed = dict(schema)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("type", None)
        closed["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if closed.get("nullable"):
        closed["type"] = [closed["type"], "null"]
    if properties := closed.get("properties"):
        closed["properties"] = {name: _closed(each, at_root=False) for name, each in properties.items()}
        if not closed.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(closed.get(name), dict):
            closed[name] = _closed(closed[name], at_root=False)
    if at_root:
        closed["properties"]["metadata"] = {"type": "object"}
    return closed
