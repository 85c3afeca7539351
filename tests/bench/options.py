"""The options that benches of picking quality share."""

from __future__ import annotations

import argparse
from pathlib import Path


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
