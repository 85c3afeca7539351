"""What limits picking on a data set: how much of F is chance there, and how a field differs from pure noise.

    python -m tests.bench.bench_chance --suite DIR

`by chance` is the best F, over all densities, of random places that keep a distance from each other: where
particles are crowded, half a diameter around them is much of the area. `picks` is the best F of the picker's
scores. `above noise` is how likely a candidate of a micrograph is higher than one of its noise twin, which has the
same power spectrum and no particles: 0.5 where nothing tells the two apart, 1.0 where every candidate does.

The second table holds scores against labels: of the candidates with such a score, the share that are right, and how
many there are. The third tells where picks lie that are not right: how far they are from the
nearest label, in diameters, as shares of all false ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from drpwatch.assess.datasets import DataSet, find_data_sets, read_data_set
from drpwatch.assess.detection import match
from drpwatch.assess.suite import Measured, measure, read_pixels
from drpwatch.formats import mrc
from drpwatch.micrograph import PickParams, Picks
from drpwatch.pick.picker import Picker
from drpwatch.pick.trees import tree_of
from drpwatch.train.simulate import thin
from tests.bench.options import suite_options, table

SPACINGS = (0.5, 0.7, 0.9)  # diameters
SCORES = (0.05, 0.25, 0.45, 0.65, 0.85, 1.0)
DISTANCES = (0.0, 0.5, 0.75, 1.0, 1.5, np.inf)  # diameters


@dataclass(frozen=True)
class ByChance:
    """Picks random places, no two closer than `spacing` diameters, each with a random score."""

    spacing: float

    def pick(self, pixels: npt.NDArray[Any], pixel_size_yx: tuple[float, float], params: PickParams) -> Picks:
        rng = np.random.default_rng(1)
        diameter_yx = params.diameter_angstrom / np.array(pixel_size_yx)
        far = np.array(pixels.shape) - diameter_yx / 2
        many = int(20 * np.prod(pixels.shape) / np.prod(diameter_yx))
        yx = thin(rng.uniform(diameter_yx / 2, far, size=(many, 2)), self.spacing * float(diameter_yx.mean()))
        score = np.linspace(1, 0, len(yx), dtype=np.float32)
        return Picks(yx.astype(np.float32), score, threshold=0.0, weights_sha256="")


def above_noise(picker: Picker, data_set: DataSet) -> list[float]:
    """Return, of each micrograph, how likely one of its candidates is higher than one of its noise twin."""
    shares = []
    for path in filter(None, data_set.micrographs.values()):
        size_yx = data_set.params.pixel_size_yx(mrc.read_header(path))
        prepared = picker.prepare(picker.upload(read_pixels(path)), size_yx, data_set.params)
        field = picker.detect(prepared, data_set.params)
        heights = [picker.candidates(one).height for one in (field, picker.twin(field))]
        if all(map(len, heights)):
            shares.append(float(mannwhitneyu(*heights).statistic / np.prod([len(one) for one in heights])))
    return shares


def against_labels(found: Measured) -> tuple[list[str], list[str]]:
    """Return the share that are right by score, and the shares of false picks by distance from a label."""
    assert found.data_set.truth is not None
    score, right, astray = [], [], []
    for one in found.micrographs:
        truth_yx = found.data_set.truth[one.micrograph].yx_px
        scores = one.candidates.score
        assert scores is not None
        hit = np.zeros(len(scores), dtype=bool)
        hit[match(one.candidates.yx_px, truth_yx, found.diameter_px / 2).pick] = True
        score.append(scores)
        right.append(hit)
        taken = np.zeros(len(one.picks.yx_px), dtype=bool)
        taken[match(one.picks.yx_px, truth_yx, found.diameter_px / 2).pick] = True
        if not taken.all() and len(truth_yx):
            astray.append(tree_of(truth_yx).query(one.picks.yx_px[~taken])[0] / found.diameter_px)
    all_of = np.histogram(np.concatenate(score), SCORES)[0]
    right_of = np.histogram(np.concatenate(score)[np.concatenate(right)], SCORES)[0]
    far = np.histogram(np.concatenate(astray), DISTANCES)[0]
    return (
        [f"{hits / max(n, 1):.3f} of {n}" for hits, n in zip(right_of, all_of, strict=True)],
        [f"{share:.3f}" for share in far / far.sum()],
    )


def spans(edges: tuple[float, ...]) -> list[str]:
    """Return what is between edges, for people."""
    return [f"{low:g} to {high:g}" for low, high in pairwise(edges)]


def main() -> None:
    """Run the bench and print its tables."""
    given = suite_options(__doc__).parse_args()
    picker = Picker.load(given.model, given.device, given.threads)
    rows, by_score, by_distance = [], [], []
    for folder in find_data_sets(given.suite):
        data_set = read_data_set(folder, None)
        found = measure(picker, data_set)
        best = [*(measure(ByChance(spacing), data_set).best for spacing in SPACINGS), found.best]
        *chance, picks = ["" if one is None else f"{one.pooled.f:.3f}" for one in best]
        shares = above_noise(picker, data_set)
        spread = f"{np.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        rows.append([data_set.name, str(len(data_set.micrographs)), max(chance), picks, spread])
        if data_set.truth is not None:
            right, astray = against_labels(found)
            by_score.append([data_set.name, *right])
            by_distance.append([data_set.name, *astray])
    print(table(["set", "micrographs", "by chance", "picks", "above noise"], rows), end="\n\n")
    print(table(["score", *spans(SCORES)], by_score), end="\n\n")
    print(table(["false picks, diameters from a label", *spans(DISTANCES)], by_distance))


if __name__ == "__main__":
    main()
