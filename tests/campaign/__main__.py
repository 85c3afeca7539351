"""`python -m tests.campaign`: one campaign; exit code 0 if nothing was lost, doubled or torn."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.campaign.campaign import Campaign
from tests.campaign.places import enter_namespace


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--micrographs", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=200, help="at least so many kill -9")
    parser.add_argument("--rate", type=float, default=4.0, help="micrographs a second")
    parser.add_argument("--pace", type=float, default=0.7, help="seconds from one fault to the next, mean")
    parser.add_argument("--without", action="append", default=[], help="leave out this kind of fault")
    parser.add_argument("--devices", type=int, default=1, help="that pick")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--keep", type=Path, help="a new directory for all files; else a temporary one")
    given = parser.parse_args()
    enter_namespace()
    root = given.keep or Path(tempfile.mkdtemp(prefix="drpwatch-campaign-"))
    root.mkdir(exist_ok=True)
    begun = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {line}", flush=True)

    campaign = Campaign(
        root.resolve(),
        given.seed,
        given.micrographs,
        given.kills,
        given.rate,
        given.pace,
        frozenset(given.without),
        given.devices,
        tell,
    )
    result = campaign.run()
    text = json.dumps(asdict(result), indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")
    if result.problems:
        print(
            f"\n{len(result.problems)} problems; the daemon's log and all else is in {root}", file=sys.stderr
        )
        return 1
    if given.keep is None:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
