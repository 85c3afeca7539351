"""The page that Prometheus scrapes."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from drpwatch.service.metrics import CRASH_KINDS, MICROGRAPH_STATES, OUTCOMES, SESSION_STATES, Metrics
from drpwatch.service.publish import Publisher
from drpwatch.session.lifecycle import SessionState
from drpwatch.session.records import CrashKind, MicrographState

OURS = {
    "build_info", "model_info", "micrographs", "picks", "stage_seconds", "finished_to_recorded_seconds",
    "picks_per_micrograph", "queue_depth", "queue_capacity", "last_pick_timestamp_seconds", "scans",
    "scan_seconds",
    "found", "session_active", "session_info", "oldest_unpicked_timestamp_seconds",
    "last_new_micrograph_timestamp_seconds", "session_micrographs", "session_picks", "median_picks",
    "session_idle", "expected_end_timestamp_seconds",
    "watch_root_readable", "watch_events", "output_free_bytes", "output_writable", "state_free_bytes", "errors",
    "config_reload_failed", "config_needs_restart", "heartbeat_timestamp_seconds",
    "device_ready", "device_busy_seconds", "device_memory_bytes", "device_released", "device_half_precision", "tile_px",
    "canary_checks",
    "crashes", "quarantined", "journal_commit_seconds",
}  # fmt: skip


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def samples(metrics: Metrics) -> dict[tuple, float]:
    """Return the value by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def use(metrics: Metrics) -> None:
    """Do to the metrics what a daemon with two sessions does."""
    metrics.show_model("general", "ab" * 32, "auto")
    for name in ("s1", "s2"):
        metrics.add_session(name, "waiting")
        metrics.show_state(name, "running")
        metrics.picks.labels(session=name).inc(412)
        metrics.micrographs.labels(session=name, outcome="picked").inc()
        metrics.output_free_bytes.labels(session=name).set(1e12)
        metrics.median_picks.labels(session=name, of="all").set(412)
    metrics.stage_seconds.labels(stage="read").observe(0.03)
    metrics.picks_per_micrograph.observe(412)


def test_exact_set_of_names(metrics: Metrics) -> None:
    use(metrics)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    assert {name.removeprefix("drpwatch_") for name in families if name.startswith("drpwatch_")} == OURS
    others = {name for name in families if not name.startswith("drpwatch_")}
    assert all(name.startswith(("process_", "python_")) for name in others)
    assert {"process_resident_memory_bytes", "python_info"} <= others
    assert all(
        family.documentation.endswith(".")
        for name, family in families.items()
        if name.startswith("drpwatch_")
    )


def test_no_created_series(metrics: Metrics) -> None:
    use(metrics)
    assert b"_created" not in metrics.render()


def test_every_closed_label_value_is_there_from_the_start(metrics: Metrics) -> None:
    values = samples(metrics)
    for key in [
        ("drpwatch_scans_total", ("result", "failed")),
        ("drpwatch_found_total", ("by", "hint")),
        ("drpwatch_errors_total", ("kind", "device")),
        ("drpwatch_stage_seconds_count", ("stage", "detect")),
        ("drpwatch_queue_depth", ("queue", "ready")),
        ("drpwatch_device_memory_bytes", ("device", "auto"), ("kind", "peak")),
        ("drpwatch_device_ready", ("device", "auto")),
    ]:
        assert values[key] == 0
    assert values["drpwatch_heartbeat_timestamp_seconds", ("loop", "scanner")] > 1.7e9


def test_session_begins_at_zero(metrics: Metrics) -> None:
    metrics.add_session("s1", "created")
    values = samples(metrics)
    session = ("session", "s1")
    for outcome in OUTCOMES:
        assert values["drpwatch_micrographs_total", ("outcome", outcome), session] == 0
    assert values["drpwatch_picks_total", session] == 0
    assert values["drpwatch_session_info", session, ("state", "created")] == 1


def test_session_is_in_one_state_at_a_time(metrics: Metrics) -> None:
    metrics.add_session("s1", "created")
    for state in SESSION_STATES:
        metrics.show_state("s1", state)
        shown = [key for key in samples(metrics) if key[0] == "drpwatch_session_info"]
        assert shown == [("drpwatch_session_info", ("session", "s1"), ("state", state))]


def test_states_are_those_of_the_journal() -> None:
    assert set(SESSION_STATES) == set(SessionState)
    assert set(CRASH_KINDS) == set(CrashKind)
    assert set(MICROGRAPH_STATES) == set(MicrographState)


def test_a_session_without_series_gets_none_by_the_way(metrics: Metrics) -> None:
    metrics.show_state("ended-long-ago", "completed")
    Publisher(metrics).free("ended-long-ago", 10**12)
    assert not any("ended-long-ago" in str(key) for key in samples(metrics))


def test_forgotten_session_leaves_nothing_and_the_other_stays(metrics: Metrics) -> None:
    before = samples(metrics).keys()
    use(metrics)
    both = samples(metrics).keys()
    metrics.forget_session("s1")
    metrics.forget_session("s1")
    metrics.forget_session("never-there")
    after = samples(metrics).keys()
    assert not any(("session", "s1") in key for key in after)
    assert {key for key in both if ("session", "s2") in key} <= after
    metrics.forget_session("s2")
    assert {key[0] for key in samples(metrics).keys() - before} == {"drpwatch_model_info"}


def test_two_daemons_in_one_process_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.scans.labels(result="ok").inc()
    assert samples(second)["drpwatch_scans_total", ("result", "ok")] == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_promtool_finds_nothing_to_say(metrics: Metrics) -> None:
    use(metrics)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.render(), capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
