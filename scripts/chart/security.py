"""`make test-chart-security`: checkov on what the chart installs by default; its README argues what fails."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.chart.helm import CACHE, HELM_4, fetch
from scripts.chart.readme import README
from scripts.chart.values import CHART

CHECKOV = CACHE / "security" / "bin" / "checkov"


def failed_checks() -> tuple[int, set[str]]:
    """(number of passed checks, ids of those that fail)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rendered.yaml"
        helm: list[str | Path] = [fetch(HELM_4), "template", "demo", CHART, "--namespace", "llm"]
        file.write_text(subprocess.run(helm, capture_output=True, text=True, check=True).stdout)
        options = ["--framework", "kubernetes", "--skip-download", "--compact", "--quiet", "--output", "json"]
        done = subprocess.run([CHECKOV, "--file", file, *options], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    return report["summary"]["passed"], {each["check_id"] for each in report["results"]["failed_checks"]}


def argued_checks() -> set[str]:
    """Ids in the table of the README's section on checkov."""
    section = README.read_text().partition("## What checkov says")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| (CKV\w+)", section, re.MULTILINE))


def main() -> int:
    """0 if the checks that fail are those that the README argues."""
    passed, failed = failed_checks()
    argued = argued_checks()
    print(f"checkov: {passed} passed; failed: {', '.join(sorted(failed))}")
    for check in sorted(failed - argued):
        print(f"{check} fails and is not argued in {README}")
    for check in sorted(argued - failed):
        print(f"{check} passes: take it out of {README}")
    return int(failed != argued)


if __name__ == "__main__":
    sys.exit(main())
