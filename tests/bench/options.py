"""What benches share: their options, the table and the file of results, and the machine that they ran on."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from drpwatch import __version__
from drpwatch.cores import usable_cores


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of where the results go."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too, as JSON")
    return parser


def suite_options(description: str | None, *, required: bool = True) -> argparse.ArgumentParser:
    """Return a parser of which suite is picked with which model, and on what."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", type=Path, required=required)
    parser.add_argument("--model", default="general")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser


def shape(text: str) -> tuple[int, int]:
    """Return height and width of HxW."""
    h, w = (int(part) for part in text.split("x"))
    return h, w


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    import torch

    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "drpwatch": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def keep(result: dict[str, Any], file: Path | None) -> None:
    """Write the results to a file, if one was asked for."""
    if file is not None:
        file.write_text(json.dumps(result, indent=2) + "\n")


def told(on: dict[str, Any]) -> str:
    """Return the machine in one line."""
    return (
        f"{on['processor']}, {on['cores']} cores, load {on['load_average']}, drpwatch {on['drpwatch']},"
        f" PyTorch {on['torch']}, Python {on['python']}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
