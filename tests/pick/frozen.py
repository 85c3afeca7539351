"""Scenes whose picks are kept in `frozen.json`, so that quicker code can be seen to pick what slower code did.

`python -m tests.pick.frozen` writes the picks of the code as it is: only where they should change.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drpwatch.micrograph import PickParams, Picks
from drpwatch.pick.picker import Picker
from tests.pick.making import cascade_model, discs, scattered

PIXEL = (2.5, 2.5)  # a particle is 40 px across
PARAMS = PickParams(diameter_angstrom=100.0)
FILE = Path(__file__).with_name("frozen.json")

FloatArray = npt.NDArray[np.float32]


def scenes() -> dict[str, FloatArray]:
    """Return what is picked, by name."""
    shape = (900, 1100)
    sparse = discs(shape, scattered(shape, 60), (40, 40), seed=1)
    padded = np.pad(sparse[:700, :700], ((90, 0), (0, 120)), mode="edge")
    spoilt = discs((640, 700), scattered((640, 700), 32), (36, 36), seed=2) + np.linspace(0, 9, 700)
    spoilt[::97, ::89] = 500.0
    spoilt[5, 5:9] = np.nan
    return {"sparse": sparse, "padded": padded, "spoilt": spoilt.astype(np.float32)}


def as_rows(picks: Picks) -> list[list[float]]:
    """Return y, x and score of each candidate."""
    rows = np.column_stack([picks.yx_px, picks.score]).astype(np.float64)
    return [[round(y, 2), round(x, 2), round(score, 4)] for y, x, score in rows.tolist()]


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        picker = Picker.load(str(cascade_model(Path(folder) / "cascade.safetensors")), "cpu", 1)
    kept = {name: as_rows(picker.pick(pixels, PIXEL, PARAMS)) for name, pixels in scenes().items()}
    FILE.write_text(json.dumps(kept, separators=(",", ":")).replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    main()
