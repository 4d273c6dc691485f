"""The chart's generated files are those that `make chart` makes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from scripts.chart import readme, schema
from scripts.chart.__main__ import COPIES, project_version, with_version
from scripts.chart.helm import RELEASES, ROOT, Release
from scripts.chart.values import CHART, leaves, read_values

from charts import EXAMPLES, only, render, run_helm
from peregrine_router.options.declaration import extra
from peregrine_router.settings import Settings


def test_the_schema_is_current() -> None:
    """It follows values.yaml and the server's options: run make chart."""
    assert schema.SCHEMA.read_text() == schema.render()


def test_the_readme_is_current() -> None:
    """Its table follows values.yaml: run make chart."""
    assert readme.README.read_text() == readme.render()


def test_every_value_is_described() -> None:
    """A value without a comment would be a row without a meaning."""
    assert [value.name for value in leaves(read_values()) if not value.description] == []


@pytest.mark.parametrize(("source", "copy"), COPIES.items())
def test_rules_and_dashboard_are_those_of_deploy(source: str, copy: str) -> None:
    """A chart cannot read outside its folder, so it has copies: run make chart."""
    assert (CHART / copy).read_bytes() == (ROOT / source).read_bytes()


def test_rules_and_dashboard_arrive_whole() -> None:
    """Neither Helm's template nor YAML changes them."""
    monitoring = {part: {"enabled": True} for part in ("prometheusRule", "dashboard")}
    objects = render({"monitoring": monitoring})
    assert only(objects, "PrometheusRule")["spec"] == yaml.safe_load((CHART / "files/rules.yaml").read_text())
    (dashboard,) = [each for each in objects if each["metadata"]["name"].endswith("-dashboard")]
    assert json.loads(dashboard["data"]["peregrine.json"]) == json.loads((CHART / "files/dashboard.json").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_version_is_the_projects() -> None:
    """Chart, application and package have one version."""
    text = (CHART / "Chart.yaml").read_text()
    assert with_version(text, project_version()) == text
    assert len(re.findall(f"ersion: {re.escape(project_version())}$", text, re.MULTILINE)) == 2


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.version)
def test_the_package_has_all_files(release: Release, tmp_path: object) -> None:
    """The archive has README, copies and templates."""
    run_helm("package", CHART, "--destination", str(tmp_path), release=release)
    package = f"{tmp_path}/peregrine-{project_version()}.tgz"
    assert "checkov" in run_helm("show", "readme", package, release=release)
    rendered = run_helm("template", "demo", package, "--set", "monitoring.dashboard.enabled=true", release=release)
    assert "peregrine.json" in rendered


def test_the_schema_is_closed() -> None:
    """No object takes a name that it does not know, but `global`, which is of the chart around this one."""
    assert list(open_objects(json.loads(schema.SCHEMA.read_text()))) == ["/properties/global"]


def test_the_schema_knows_every_option() -> None:
    """Each option of the server is a value of `options`, or the chart sets it itself."""
    known = set(json.loads(schema.SCHEMA.read_text())["definitions"]["options"]["properties"])
    variables = {extra(field, "env") for field in Settings.model_fields.values()}
    assert known | schema.BY_OTHER_VALUES == variables
    assert not known & schema.BY_OTHER_VALUES


def test_every_example_is_in_the_readme() -> None:
    """Its table of examples names each file."""
    text = readme.README.read_text()
    assert all(f"(examples/{example.name})" in text for example in EXAMPLES)


def open_objects(part: Any, path: str = "") -> Iterator[str]:
    """Paths of the schemas of objects whose other names are not ruled."""
    if isinstance(part, dict):
        if "object" in part.get("type", ()) and "additionalProperties" not in part:
            yield path
        for name, each in part.items():
            yield from open_objects(each, f"{path}/{name}")
    elif isinstance(part, list):
        for number, each in enumerate(part):
            yield from open_objects(each, f"{path}/{number}")
