"""The Prometheus rules: valid, firing when they should, and asking for nothing that is not there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.expressions import RULES, rules_text

TESTS = Path(__file__).with_name("drpwatch.rules.test.yml")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")


@needs_promtool
def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    (tmp_path / RULES.name).write_text(RULES.read_text())
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    for verb in (["check", "rules", RULES.name], ["test", "rules", TESTS.name]):
        done = subprocess.run(
            ["promtool", *verb], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    names = re.findall(r"- alert: (\w+)", rules_text())
    assert len(names) > 10
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- ", TESTS.read_text()))
    assert fired == set(names)
    for key in ("severity: (?:critical|warning)", "summary: .+", "action: .+"):
        assert len(re.findall(key, rules_text())) == len(names), key
