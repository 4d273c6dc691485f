"""`make chart`: brings the generated files up to date and packages the chart into dist/."""

import re
import shutil
import subprocess
import tomllib

from scripts.chart import readme, schema
from scripts.chart.helm import HELM_4, ROOT, fetch
from scripts.chart.values import CHART

COPIES = {
    "deploy/prometheus/rules.yaml": "files/rules.yaml",
    "deploy/grafana/peregrine.json": "files/dashboard.json",
}
"""File -> its copy in the chart, which cannot read outside its folder."""


def project_version() -> str:
    """Version of the package, which is the chart's and the image's too."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def with_version(chart: str, version: str) -> str:
    """Chart.yaml's text with both its versions set."""
    return re.sub(r"^(version|appVersion): .*$", rf"\1: {version}", chart, flags=re.MULTILINE)


def main() -> None:
    """Copies, generates, packages."""
    for source, copy in COPIES.items():
        shutil.copyfile(ROOT / source, CHART / copy)
    schema.SCHEMA.write_text(schema.render())
    readme.README.write_text(readme.render())
    chart = CHART / "Chart.yaml"
    chart.write_text(with_version(chart.read_text(), project_version()))
    subprocess.run([fetch(HELM_4), "package", CHART, "--destination", ROOT / "dist"], check=True)


if __name__ == "__main__":
    main()
