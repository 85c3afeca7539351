"""The Grafana dashboard: Classic JSON that Grafana takes, and readable panels."""

from itertools import combinations

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
