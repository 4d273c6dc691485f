"""Schemas of the custom resources that the chart makes, cut from their CRDs: python -m scripts.chart.crds FOLDER

FOLDER holds the files that tests/helm/crds/SOURCES.txt names. What the API server checks stays, but its rules in CEL.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).parents[2] / "tests" / "helm" / "crds"
PROSE = ("description", "x-kubernetes-validations", "default", "example", "format")
KINDS = {
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("inference.networking.k8s.io/v1", "InferencePool"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
}
"""(apiVersion, kind) of each."""


def main() -> None:
    """Writes a file a kind."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for file in sorted(Path(sys.argv[1]).glob("*.yaml")):
        for crd in yaml.load_all(file.read_text(), Loader=loader):
            for version in crd["spec"]["versions"]:
                _write(f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"], version)


def _write(api_version: str, kind: str, version: dict[str, Any]) -> None:
    if (api_version, kind) in KINDS:
        schema = _trimmed(version["schema"]["openAPIV3Schema"])
        text = json.dumps({"apiVersion": api_version, "kind": kind, "schema": schema}, separators=(",", ":"))
        (SCHEMAS / f"{kind}.json").write_text(text + "\n")


def _trimmed(schema: Any) -> Any:
    """Without prose. Under `properties` every name is a field's, `description` too."""
    if isinstance(schema, list):
        return [_trimmed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {field: _trimmed(each) for field, each in value.items()} if name == "properties" else _trimmed(value)
        for name, value in schema.items()
        if name not in PROSE and not name.startswith(("x-kubernetes-list", "x-kubernetes-map"))
    }


if __name__ == "__main__":
    main()
