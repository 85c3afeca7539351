"""Candidates with labels: what the detector finds in examples, and which of it is a particle.

Labels come from the known centres, or as in the paper from the detector's own confidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from drpwatch.errors import UsageError
from drpwatch.pick import scoring
from drpwatch.pick.field import Background, noise_twin
from drpwatch.pick.networks import Detector, detect_in_tiles, patch_centres, patches_at
from drpwatch.pick.peaks import Candidates, PeakRule, find_candidates
from drpwatch.pick.scoring import Array
from drpwatch.pick.trees import tree_of
from drpwatch.train.dataset import Example

FloatArray = npt.NDArray[np.float32]

LabelSource = Literal["truth", "confidence"]

_BATCH = 256
_RIVALS = 6  # no more true centres are that near to one candidate


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Candidates of one example with their labels: 1 a particle, 0 not, (n,); nan where the detector is unsure.

    `truths` counts the particles that could be found: those that are not too near to the border. `twin` is what
    was found in the example's noise twin, where somebody asked for it.
    """

    example: Example
    found: Candidates
    label: FloatArray
    truths: int = 0
    twin: Judged | None = None


def judge(
    detector: Detector,
    examples: Sequence[Example],
    rule: PeakRule,
    source: LabelSource = "truth",
    twins: bool = False,
) -> Iterator[Judged]:
    """Run the detector over examples, and over their noise twins if wanted, and label its candidates.

    `truth` takes the known centres. `confidence` is the paper's way and needs none: candidates in which the
    detector is very confident are particles; those with low confidence are not; the rest is unclear.
    """
    for example in examples:
        one = judge_map(map_of(detector, example), example, rule, source)
        if twins:
            twin = twin_of(example)
            one = replace(one, twin=judge_map(map_of(detector, twin), twin, rule))
        yield one


def twin_of(example: Example) -> Example:
    """Return an example's noise twin, in which there is no particle."""
    image = noise_twin(picture(example))
    nothing = np.zeros((0, 2), dtype=np.float32)
    zeros, ones = torch.zeros_like(image), torch.ones_like(image)
    return Example(image, zeros, zeros, ones, nothing, example.diameter_px)


def picture(example: Example) -> torch.Tensor:
    """Return the image of an example, (h, w) float32, without its padding."""
    inside = example.weight > 0
    rows, columns = inside.any(dim=1).nonzero(), inside.any(dim=0).nonzero()
    return example.image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()


def judge_map(
    distance_map: torch.Tensor, example: Example, rule: PeakRule, source: LabelSource = "truth"
) -> Judged:
    """Find the candidates in the map of one example, and label them."""
    found = find_candidates(distance_map, example.diameter_px, rule)
    margin = rule.border * example.diameter_px
    found = found.keep(_inside(found.yx, example, margin) & _in_picture(found.yx, example))
    label = label_by_truth(found, example) if source == "truth" else label_by_confidence(found, rule)
    return Judged(example, found, label, int(_inside(example.yx_px, example, margin).sum()))


def _inside(yx: FloatArray, example: Example, margin_px: float) -> npt.NDArray[np.bool_]:
    """Return the mask of places (n, 2) that are not nearer to the border than the margin."""
    far = np.array(example.image.shape) - 1 - margin_px
    return np.asarray(((yx >= margin_px) & (yx <= far)).all(axis=1))


def _in_picture(yx: FloatArray, example: Example) -> npt.NDArray[np.bool_]:
    """Return the mask of places (n, 2) that are not in padding, where nobody knows what is a particle."""
    y, x = patch_centres(yx, example.weight.shape).T
    return np.asarray((example.weight[y, x] > 0).numpy())


def map_of(detector: Detector, example: Example) -> torch.Tensor:
    """Return the detector's map of an example, (h, w) float32."""
    device = next(detector.parameters()).device
    with torch.inference_mode():
        return detect_in_tiles(detector, example.image.to(device, torch.float32))


def label_by_truth(found: Candidates, example: Example) -> FloatArray:
    """Label as picks are scored: 1 for the highest candidate within half a diameter of each true centre, else 0.

    Highest first, each takes the nearest centre that is still free.
    """
    label = np.zeros(len(found.yx), dtype=np.float32)
    if len(found.yx) == 0:
        return label
    if len(example.yx_px):
        reach = 0.5 * example.diameter_px
        nearest = min(_RIVALS, len(example.yx_px))
        distance, centre = (
            np.asarray(a) for a in tree_of(example.yx_px).query(found.yx, k=[*range(1, nearest + 1)])
        )
        taken: set[int] = set()
        for i in range(len(found.yx)):
            free = [
                int(c) for c, d in zip(centre[i], distance[i], strict=True) if d <= reach and c not in taken
            ]
            if free:
                taken.add(free[0])
                label[i] = 1
    return label


def label_by_confidence(found: Candidates, rule: PeakRule) -> FloatArray:
    """Label by the detector's own confidence: the best third above 0.4 is 1, whatever is below 0.15 is 0."""
    label = np.full(len(found.yx), np.nan, dtype=np.float32)
    if len(found.yx):
        sure = max(0.4, float(np.quantile(found.height, 0.67)))
        label[found.height >= sure] = 1
        label[found.height < max(0.15, 1.5 * rule.least_height)] = 0
    return label


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """What a classifier is trained on: `pixels` (n, 1, 64, 64) float16, and `label` (n,) of 0 and 1."""

    pixels: torch.Tensor
    label: FloatArray

    def count(self, label: int) -> int:
        """Return how many carry a label."""
        return int((self.label == label).sum())


def clear_patches(judged: Sequence[Judged], at_most: int = 96) -> Patches:
    """Cut out candidates whose label is clear: of each example `at_most`, spread evenly from high to low.

    Raises
    ------
    UsageError
        There is none.
    """
    pixels, labels = [], []
    for one in judged:
        clear = ~np.isnan(one.label)
        if clear.any():
            chosen = np.flatnonzero(clear)
            clear[:] = False
            clear[chosen[:: math.ceil(len(chosen) / at_most)]] = True
            pixels.append(cut(Judged(one.example, one.found.keep(clear), one.label[clear])).half())
            labels.append(one.label[clear])
    if not pixels:
        raise UsageError("the detector found no candidates to train the classifier on")
    return Patches(torch.cat(pixels), np.concatenate(labels))


def cut(one: Judged) -> torch.Tensor:
    """Return the patches of all candidates of one example, (n, 1, 64, 64) float32."""
    image = one.example.image.float()
    return patches_at(image, patch_centres(one.found.yx, image.shape))


def log_odds(classifier: nn.Module, patches: torch.Tensor) -> FloatArray:
    """Return what the classifier says of patches (n, 1, 64, 64): log-odds of a particle, (n,)."""
    if len(patches) == 0:
        return np.zeros(0, dtype=np.float32)
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        batches = [
            classifier(part.to(device, torch.float32).contiguous(memory_format=torch.channels_last))
            for part in torch.split(patches, _BATCH)
        ]
    return np.asarray(torch.cat(batches).cpu().numpy(), dtype=np.float32)


def features(classifier: nn.Module | None, one: Judged, field_judge: nn.Module | None = None) -> Array:
    """Return what the score is made of, (n, 5): see `scoring.features`."""
    odds = np.zeros(len(one.found.yx)) if classifier is None else log_odds(classifier, cut(one))
    x = scoring.features(one.found, odds)
    if field_judge is not None:
        x[:, 4] = scoring.field_log_odds(field_judge, x, background(classifier, one))
    return x


def background(classifier: nn.Module | None, one: Judged) -> Background:
    """Return what a field judge is told of an example besides its candidates; its twin must have been judged."""
    assert one.twin is not None
    found = scoring.told(features(classifier, one.twin))
    return Background.of(picture(one.example), one.twin.example.image, found)
