"""The real daemon with fake pickers: `python -m tests.daemon.fake_daemon CONFIG [--pick-s S] ...`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from drpwatch.config import load_config
from drpwatch.errors import DrpwatchError
from drpwatch.service.daemon import run
from tests.daemon.fake_device import FakeDevice
from tests.daemon.fake_picker import FakePickers


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--pick-s", type=float, default=0.0)
    parser.add_argument("--there-with", type=Path, default=Path(__file__), help="no device without this file")
    parser.add_argument("--fault-at", type=int, default=None)
    parser.add_argument("--device", type=json.loads, default={}, help="fields of FakeDevice")
    parser.add_argument("--other", type=json.loads, default={}, help="and of all others")
    given = parser.parse_args()
    try:
        config = load_config(given.config)
        others = [FakeDevice(**given.other) for _ in config.pick.devices[1:]]
        first = FakeDevice(**given.device)
        pickers = FakePickers(
            given.pick_s, given.fault_at, is_there=given.there_with.exists, device=first, others=others
        )
        return run(config, given.config, pickers)
    except DrpwatchError as error:
        print(f"drpwatch: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
