"""The Grafana dashboard: Classic JSON that Grafana takes, and readable panels."""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from tests.deploy.expressions import dashboard, panels

QUESTIONS = ["Is it running?", "Is it keeping up?", "Are the picks sane?", "Is the GPU well?", "The machine"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
MOST_SHORT_WORDS = 30


def test_it_can_be_provisioned_anywhere() -> None:
    board = dashboard()
    assert (board["uid"], board["id"], board["title"]) == ("drpwatch", None, "drpwatch")
    assert board["schemaVersion"] >= 36
    source = board["templating"]["list"][0]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    for user in (*panels(), *board["annotations"]["list"], *board["templating"]["list"][1:]):
        assert user["datasource"] == SOURCE


def test_it_answers_the_questions_in_order() -> None:
    assert [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"] == QUESTIONS


def test_panels_lie_side_by_side() -> None:
    placed = dashboard()["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    cells = {
        panel["id"]: {
            (x, y)
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        }
        for panel in placed
    }
    assert all(0 <= x < 24 for taken in cells.values() for x, _ in taken)
    for one, other in combinations(cells, 2):
        assert not cells[one] & cells[other], (one, other)


def test_every_panel_is_explained() -> None:
    for panel in panels():
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        assert len(panel["description"].split()) <= MOST_SHORT_WORDS, panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])
        assert all(target["datasource"] == SOURCE for target in panel["targets"])


def curves() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield all targets that are drawn over time, each with its panel."""
    for panel in panels():
        if panel["type"] in ("timeseries", "state-timeline", "heatmap"):
            yield from ((panel, target) for target in panel["targets"])


CURVES = [pytest.param(*one, id=f"{one[0]['title']} {one[1]['refId']}") for one in curves()]


def quantity(expression: str) -> str:
    """Return the unit of what an expression comes to, by the base units in the names of its metrics."""
    if re.match(r"time\(\) -", expression) or re.search(
        r"histogram_quantile\(.*_seconds_bucket|seconds:p\d", expression
    ):
        return "s"
    if " / " in expression:
        return "s" if "_seconds_sum" in expression else "percentunit"
    if "rate(" in expression and re.search(r"seconds_(sum|total)", expression):
        return "percentunit"  # seconds in each second
    return "bytes" if "_bytes" in expression else "short"


def unit(panel: dict[str, Any], legend: str) -> str:
    """Return the unit in which a curve is drawn."""
    found = panel["fieldConfig"]["defaults"]["unit"]
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["id"] == "byRegexp" and re.fullmatch(override["matcher"]["options"], legend):
            found = next((one["value"] for one in override["properties"] if one["id"] == "unit"), found)
    return str(found)


@pytest.mark.parametrize(("panel", "target"), CURVES)
def test_units_are_those_of_what_is_drawn(panel: dict[str, Any], target: dict[str, Any]) -> None:
    assert unit(panel, target["legendFormat"]) == quantity(target["expr"]), target["expr"]


@pytest.mark.parametrize(("panel", "target"), CURVES)
def test_curves_have_legends_of_labels_that_they_have(panel: dict[str, Any], target: dict[str, Any]) -> None:
    legend, expression = target["legendFormat"], target["expr"]
    assert legend not in ("", "__auto"), "Grafana would show the whole selector"
    kept = re.findall(r"\bby \(([\w, ]+)\)", expression)
    labels = {label for group in kept for label in group.split(", ")}
    aggregated = re.search(r"\b(sum|min|max|histogram_quantile)\b", expression) is not None
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        assert label in labels if aggregated else label == "instance", expression
    named = [one["legendFormat"] for one in panel["targets"]]
    assert len(set(named)) == len(named), panel["title"]


def test_what_is_asked_once_is_asked_for_now_and_what_is_drawn_for_all_of_the_time() -> None:
    for panel in panels():
        now = panel["type"] in ("stat", "table")
        assert all(target.get("instant", False) == now for target in panel["targets"]), panel["title"]
        if now:  # one number each: nothing of a range is asked for
            assert all("$__rate_interval" not in target["expr"] for target in panel["targets"])


def test_every_selector_is_of_the_chosen_hosts_and_sessions() -> None:
    for panel in panels():
        for target in panel["targets"]:
            for selector in re.findall(r"[\w:]+\{([^}]*)\}", target["expr"]):
                assert 'instance=~"$instance"' in selector, target["expr"]
            if "by (session" in target["expr"]:
                assert 'session=~"$session"' in target["expr"], target["expr"]


def test_rows_and_panels_fill_the_width_from_top_to_bottom() -> None:
    placed = dashboard()["panels"]
    tops = [panel["gridPos"]["y"] for panel in placed]
    assert tops == sorted(tops)
    for panel in placed:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        if panel["type"] == "row":
            assert place | {"y": 0} == {"x": 0, "y": 0, "w": 24, "h": 1}
    for y in {panel["gridPos"]["y"] for panel in placed}:
        assert sum(panel["gridPos"]["w"] for panel in placed if panel["gridPos"]["y"] == y) == 24, y
