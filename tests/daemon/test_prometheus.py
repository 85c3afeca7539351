"""Debian's Prometheus scrapes the real daemon; every expression that we ship is asked of it."""

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.rig import Rig, free_port
from tests.deploy.expressions import RULES, dashboard_expressions, selectors
from tests.support import PATIENCE, eventually

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")

EVENTS = ("annotation Restarts",)
"""Asks for what does not happen in a test."""


class Prometheus:
    """A server that scrapes one daemon twice a second, with the job and the rules that we ship."""

    def __init__(self, root: Path, target: str) -> None:
        self.port = free_port()
        job = (files("drpwatch.deploy") / "drpwatch.scrape.yml").read_text().replace("@TARGET@", target)
        config = root / "prometheus.yml"
        (root / RULES.name).write_text(RULES.read_text())
        head = "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
        config.write_text(f"{head}rule_files: [{RULES.name}]\n{job}")
        self.log = (root / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={root / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self.log,
            stderr=self.log,
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE * 10)
        self.log.close()

    def ask(self, path: str, **query: str) -> Any:
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is starting
                return None
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        except OSError:  # it does not listen yet
            return None

    def values(self, expression: str) -> list[float]:
        data = self.ask("query", query=expression)
        return [] if data is None else [float(one["value"][1]) for one in data["result"]]

    def rules(self) -> list[dict[str, Any]]:
        data = self.ask("rules")
        return [] if data is None else [rule for group in data["groups"] for rule in group["rules"]]


@pytest.fixture
def prometheus(rig: Rig, tmp_path: Path) -> Iterator[Prometheus]:
    rig.start("--pick-s", "0.02")
    made = Prometheus(tmp_path, f"127.0.0.1:{rig.port}")
    yield made
    made.close()


def work(rig: Rig) -> None:
    """Have a session that picks, fails, rewrites and waits, and one that is behind."""
    rig.start_session("s1", expected_end_at=time.time() + 3600)
    rig.write("part.mrc", 1)
    part = rig.watch_dir("s1") / "part.mrc"
    part.write_bytes(part.read_bytes()[:-1])
    rig.start_session("s2")
    rig.control.change("s2", "pause")
    rig.write("a.mrc", 1, session="s2")


def keep_busy(rig: Rig, round_: int) -> None:
    rig.write(f"mic_{round_}.mrc", round_)
    rig.write("again.mrc", round_)
    (rig.watch_dir("s1") / f"bad_{round_}.mrc").write_bytes(b"no micrograph" * 100)


def filled_in(expression: str) -> str:
    """Return an expression as Grafana asks it, of a short while."""
    return expression.replace("$__rate_interval", "4s").replace("$instance", ".*").replace("$session", ".*")


def test_every_expression_of_dashboard_and_rules_says_something(rig: Rig, prometheus: Prometheus) -> None:
    work(rig)
    left = {place: filled_in(expression) for place, expression in dashboard_expressions().items()}
    rounds = iter(range(10_000))

    def all_said_something() -> bool:
        keep_busy(rig, next(rounds))
        time.sleep(0.2)
        for place, expression in list(left.items()):
            values = prometheus.values(expression)
            if place in EVENTS or any(map(math.isfinite, values)):
                del left[place]
        return not left

    eventually(all_said_something, 30, f"an answer to each of {left}")

    def judged() -> bool:
        rules = prometheus.rules()
        return bool(rules) and all(rule["health"] != "unknown" for rule in rules)

    eventually(judged, 10, "every rule is evaluated")
    for rule in prometheus.rules():
        assert rule["health"] == "ok", rule
        for selector in [rule["name"]] if rule["type"] == "recording" else selectors(rule["query"]):
            assert prometheus.values(selector), f"{rule['name']}: nothing has {selector}"


def test_an_alert_is_on_its_way_seconds_after_its_cause(rig: Rig, prometheus: Prometheus) -> None:
    rig.start_session()
    eventually(lambda: prometheus.values("drpwatch_watch_root_readable") == [1.0], 20, "all is well")
    assert not any(rule.get("alerts") for rule in prometheus.rules())
    rig.watch_dir().rename(rig.root / "unmounted")

    def pending() -> list[str]:
        return [
            alert["labels"]["alertname"] for rule in prometheus.rules() for alert in rule.get("alerts", [])
        ]

    eventually(lambda: "DrpwatchScanFailing" in pending(), 20, "the alert is pending")
    (rig.root / "unmounted").rename(rig.watch_dir())
    eventually(lambda: pending() == [], 20, "it is over")
