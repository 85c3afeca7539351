"""What the dashboard and the rules ask Prometheus for, and the selectors inside."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

DATA = files("drpwatch.deploy")
RULES = DATA / "drpwatch.rules.yml"
DASHBOARD = DATA / "drpwatch.json"

_NAME = r"(?:drpwatch_|process_|session:|instance:)[\w:]+|\bup(?=\{)"
_SELECTOR = re.compile(rf"(?P<name>{_NAME})(?:\{{(?P<matchers>[^}}]*)\}})?")


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def panels() -> list[dict[str, Any]]:
    """Return all panels but the titles of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> dict[str, str]:
    """Return each expression of the dashboard by its place."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }
    board = dashboard()
    found |= {f"annotation {one['name']}": one["expr"] for one in board["annotations"]["list"]}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert match is not None, variable["definition"]
            found[f"variable {variable['name']}"] = f"group by ({match[2]}) ({match[1]})"
    return found


def rules_text() -> str:
    """Return the rules without their comments."""
    return "\n".join(line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#"))


def selectors(expression: str) -> dict[str, str]:
    """Return the selectors of an expression, and the metric that each names."""
    return {match[0]: match["name"] for match in _SELECTOR.finditer(expression)}


def matchers(selector: str) -> list[tuple[str, str, str]]:
    """Return label, operator and value of each matcher."""
    return re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', selector)
