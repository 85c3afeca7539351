"""Dashboard and rules name only metrics, labels and label values that the daemon has."""

import re

import pytest

from drpwatch.service import metrics as declared
from drpwatch.service.metrics import Metrics
from tests.deploy.expressions import dashboard_expressions, matchers, rules_text, selectors

OURS = sorted(
    {
        (place, selector, name)
        for place, expression in {**dashboard_expressions(), "rules": rules_text()}.items()
        for selector, name in selectors(expression).items()
        if name.startswith("drpwatch_")
    }
)
TARGET_LABELS = {"job", "instance"}
CLOSED = {
    "outcome": declared.OUTCOMES,
    "stage": declared.STAGES,
    "queue": declared.QUEUES,
    "loop": declared.LOOPS,
    "of": ("newest", "all"),
    "result": ("ok", "failed"),
}
STATES = {*declared.SESSION_STATES, *declared.MICROGRAPH_STATES}
KINDS = {*declared.ERROR_KINDS, *declared.MEMORY_KINDS, *declared.CRASH_KINDS}


def samples() -> dict[str, set[str]]:
    """Return the labels of each sample that a daemon can show."""
    metrics = Metrics()
    metrics.show_model("general", "ab" * 32, "auto")
    metrics.add_session("s1", "running")
    metrics.output_free_bytes.labels(session="s1").set(1)
    metrics.median_picks.labels(session="s1", of="all").set(1)
    return {
        sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples
    }


SAMPLES = samples()


def test_there_are_expressions_to_look_at() -> None:
    assert len({name for _, _, name in OURS}) > 20


@pytest.mark.parametrize(("place", "selector", "name"), OURS)
def test_selectors(place: str, selector: str, name: str) -> None:
    assert name in SAMPLES, place
    for label, operator, value in matchers(selector):
        assert label in SAMPLES[name] | TARGET_LABELS, place
        if label in TARGET_LABELS or value.startswith("$"):
            continue
        known = {"state": STATES, "kind": KINDS}.get(label) or CLOSED[label]
        assert operator in ("=", "=~")
        assert set(value.split("|")) <= set(known), place


def test_labels_that_are_summed_by_or_shown_exist() -> None:
    known = set().union(*SAMPLES.values()) | TARGET_LABELS
    for place, expression in {**dashboard_expressions(), "rules": rules_text()}.items():
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert set(labels.split(", ")) <= known, place


def test_what_is_recorded_is_used_and_what_is_used_is_recorded() -> None:
    recorded = set(re.findall(r"- record: (\S+)", rules_text()))
    everything = [*dashboard_expressions().values(), re.sub(r"- record: \S+", "", rules_text())]
    used = {name for text in everything for name in selectors(text).values() if ":" in name}
    assert used == recorded
