"""The chart renders with both Helms to objects that Kubernetes and the custom resources accept."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from scripts.chart.crds import KINDS
from scripts.chart.helm import HELM_3, HELM_4, RELEASES, Release
from scripts.chart.values import CHART, leaves, read_values

from charts import EXAMPLES, Refused, errors, nested, only, render, run_helm
from drawn_values import drawn_values, merged

NUM_DRAWN = 30
ALL_PARTS: dict[str, Any] = {
    "auth": {"apiKeys": ["key-of-a-client"], "metricsKey": "key-of-prometheus"},
    "autoscaling": {"type": "keda"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
    "inferencePool": {"enabled": True, "endpointPicker": "picker"},
    "ingress": {"enabled": True},
    "monitoring": {part: {"enabled": True} for part in ("podMonitor", "serviceMonitor", "prometheusRule", "dashboard")},
    "weights": {"type": "persistentVolumeClaim", "accessModes": ["ReadWriteMany"]},
}
"""Every optional part but those that exclude each other."""
GROUP: dict[str, Any] = {"multiHost": {"enabled": True, "keysSecret": "shard-keys"}}

each_helm = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.version)
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)


@each_helm
@pytest.mark.parametrize("values", [[], *([file] for file in EXAMPLES)], ids=str)
def test_lint_finds_nothing(release: Release, values: list[Path]) -> None:
    """Helm's own checks warn of nothing."""
    chosen = [argument for file in values for argument in ("--values", file)]
    assert "1 chart(s) linted, 0 chart(s) failed" in run_helm("lint", "--strict", CHART, *chosen, release=release)


@each_helm
@each_example
def test_examples_are_valid(release: Release, example: Path) -> None:
    """Every object of every example is what Kubernetes' schemas say."""
    assert list(errors(render({}, example, release=release))) == []


@each_helm
@pytest.mark.parametrize("more", [{}, GROUP, {"autoscaling": {"type": "hpa"}}], ids=["pods", "group", "hpa"])
def test_every_part_is_valid(release: Release, more: dict[str, Any]) -> None:
    """All optional parts at once, over one machine, over several, and with the other autoscaler."""
    assert list(errors(render({**ALL_PARTS, **more}, release=release))) == []


def test_every_custom_resource_is_rendered() -> None:
    """The schemas that are kept are those of the objects that the tests render, and of no other."""
    objects = [*render(ALL_PARTS), *render({**ALL_PARTS, **GROUP})]
    assert {(each["apiVersion"], each["kind"]) for each in objects} >= KINDS


# Not shrunk: a hundred values take minutes, and the faults name the one that is wrong.
@settings(
    max_examples=NUM_DRAWN,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.reuse, Phase.generate],
)
@given(values=drawn_values())
def test_drawn_values_are_valid(values: dict[str, Any]) -> None:
    """Whatever the schema allows renders to valid objects, the same with both Helms."""
    objects = render(values, release=HELM_4)
    assert list(errors(objects)) == []
    assert objects == render(values, release=HELM_3)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("weights", ["existingClaim", "persistentVolumeClaim"])
def test_a_name_of_digits_stays_a_name(weights: str, group: bool) -> None:
    """YAML would read it as a number, were it not in quotes: all names that may be such are."""
    values: dict[str, Any] = {name: part for name, part in ALL_PARTS.items() if name != "auth"}
    values |= {"multiHost": {"enabled": group}}
    values["weights"] = {"type": weights, "accessModes": ["ReadWriteMany"]}
    for value in leaves(read_values()):
        if (value.schema or {}).get("$ref") == "#/definitions/nameOrEmpty":
            values = merged(values, nested(value.name, "12"))
    assert list(errors(render(values))) == []


@pytest.mark.parametrize(
    ("kind", "path", "mistake"),
    [
        ("Deployment", ("spec", "replicas"), "two"),
        ("Deployment", ("spec", "template", "spec", "livenesProbe"), {}),
        ("ScaledObject", ("spec", "maxReplicas"), 3),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "intervall"), "5s"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "five"),
        ("InferencePool", ("spec", "endpointPickerRef", "failureMode"), "FailMaybe"),
        ("HTTPRoute", ("spec", "rules", 0, "matches", 0, "path", "type"), "Prefix"),
    ],
)
def test_the_checks_find_a_mistake(kind: str, path: tuple[Any, ...], mistake: Any) -> None:
    """One wrong field in one object of a good installation is reported."""
    objects = render(ALL_PARTS)
    target = only(objects, kind)
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = mistake
    assert list(errors(objects))


@each_helm
def test_the_chart_may_be_a_part_of_another(release: Release, tmp_path: Path) -> None:
    """Helm hands a part the values of the whole as `global`; the closed schema lets them pass."""
    chart = tmp_path / "whole"
    (chart / "charts").mkdir(parents=True)
    (chart / "charts" / "peregrine").symlink_to(CHART)
    parts = [{"name": "peregrine", "version": "*.*.*"}]
    (chart / "Chart.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v2", "name": "whole", "version": "1.0.0", "dependencies": parts})
    )
    objects = render({"global": {"region": "eu"}, "peregrine": {"replicas": 2}}, release=release, chart=chart)
    assert only(objects, "Deployment")["spec"]["replicas"] == 2


@each_helm
def test_an_old_cluster_is_refused(release: Release) -> None:
    """The pods' preStop needs Kubernetes 1.30."""
    with pytest.raises(Refused, match="kubeVersion"):
        run_helm("template", "demo", CHART, "--kube-version", "1.29.0", release=release)
