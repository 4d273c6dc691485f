"""deploy/grafana/peregrine.json: made by its script, and what a Grafana dashboard should be."""

import json
import re
from typing import Any

import pytest
from scripts.dashboard.build import COLUMNS, FILE, ROWS, dashboard, text
from scripts.dashboard.panel import Panel

PANELS = [panel for panels in ROWS.values() for panel in panels]
UNITS = {"Bps", "bytes", "flops", "cps", "none", "percentunit", "reqps", "s", "short"}

by_panel = pytest.mark.parametrize("panel", PANELS, ids=[panel.title for panel in PANELS])


def drawn() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    return panels


def test_the_file_is_what_the_script_makes() -> None:
    """After a change of the tables: python -m scripts.dashboard.build."""
    assert FILE.read_text() == text()


@by_panel
def test_queries_select_job_and_instance_over_grafanas_interval(panel: Panel) -> None:
    """Every metric has both matchers; rates are over $__rate_interval, but for restarts, which are over an hour."""
    for query in panel.queries:
        metrics = re.findall(r"[a-z_]+\{([^}]*)\}", query.expr)
        assert metrics
        assert all('job=~"$job",instance=~"$instance"' in matchers for matchers in metrics)
        assert set(re.findall(r"\[(.*?)\]", query.expr)) <= {"$__rate_interval", "1h"}


@by_panel
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    """It has a unit, a sentence, and legends."""
    assert panel.unit in UNITS
    assert panel.description.endswith(".")
    assert all(query.legend for query in panel.queries)


def test_titles_are_unique() -> None:
    """A panel is found by its title."""
    titles = [panel["title"] for panel in drawn()]
    assert len(titles) == len(set(titles))


def test_panels_do_not_overlap() -> None:
    """Each cell of the grid belongs to one panel at most."""
    cells: set[tuple[int, int]] = set()
    for panel in drawn():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & cells, panel["title"]
        cells |= own


def test_every_data_source_is_the_variable() -> None:
    """So that the dashboard can be imported anywhere."""
    content = json.loads(FILE.read_text())
    for panel in content["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert [variable["name"] for variable in content["templating"]["list"]] == ["datasource", "job", "instance"]
