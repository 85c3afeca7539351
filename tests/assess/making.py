"""Data sets of a few small micrographs, as a user lays them out."""

from pathlib import Path

import numpy as np

from drpwatch.formats import star
from drpwatch.formats.mrc import write_mrc

PIXEL_SIZE = 2.0


def make_set(
    folder: Path,
    description: str,
    truth: dict[str, list[tuple[float, float]]] | None = None,
    images: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write micrographs of noise (or those given), `truth.star` where a truth is given, and `dataset.toml`."""
    folder.mkdir(parents=True)
    names = list(truth or "ab")
    rng = np.random.default_rng(1)
    for name in names:
        noise = rng.standard_normal((80, 100), dtype=np.float32)
        write_mrc(folder / f"{name}.mrc", (images or {}).get(name, noise), PIXEL_SIZE)
    if truth is not None:
        rows = [
            star.particles_rows(f"{name}.mrc", np.array(yx, dtype=float).reshape(-1, 2), np.ones(len(yx)))
            for name, yx in truth.items()
        ]
        (folder / "truth.star").write_bytes(star.particles_header(star.Optics(PIXEL_SIZE)) + b"".join(rows))
    (folder / "dataset.toml").write_text(description)
    return folder
