"""The recipe of a set of weights: scenes, detector, classifier, calibration, in one reproducible run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drpwatch import __version__
from drpwatch.pick.networks import Fcrn, PatchClassifier
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import Preprocessing
from drpwatch.pick.weights import WeightsInfo, save_weights
from drpwatch.train.dataset import Example, make_example
from drpwatch.train.fit import (
    Judged,
    LabelSource,
    Schedule,
    calibrate,
    judge,
    train_classifier,
    train_detector,
)
from drpwatch.train.shapes import Species, load_species

Report = Callable[[str, int, int, float], None]
"""Called with the name of the stage, the steps done, the steps in all, and the latest loss (nan without one)."""

_INVENTED = 60
_HELD_BACK = 10_000  # scene numbers from here on calibrate, and train nothing
_CLASSIFIER_SCENES = 700


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights besides the code and the maps."""

    name: str = "general"
    seed: int = 1
    scenes: int = 1000
    steps: int = 2500
    classifier_steps: int = 1500
    calibration_scenes: int = 200
    labels: LabelSource = "truth"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    peaks: PeakRule = field(default_factory=PeakRule)


def cook(
    recipe: Recipe, maps: list[Path], device: str, provenance: dict[str, Any], target: Path, report: Report
) -> WeightsInfo:
    """Train a whole cascade and write it to `target`.

    Raises
    ------
    UsageError
        A map cannot be read, or there is too little to train on.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    species = load_species(maps, _INVENTED, recipe.seed)
    examples = _scenes(recipe, species, 0, recipe.scenes, "scenes", report)
    detector = Fcrn().to(device)
    schedule = Schedule(recipe.steps, batch=16, learning_rate=1e-3)
    train_detector(detector, examples, schedule, rng, _stage(report, "detector", recipe.steps))
    classifier = PatchClassifier().to(device)
    schedule = Schedule(recipe.classifier_steps, batch=128, learning_rate=1e-3)
    judged = list(judge(detector, examples[:_CLASSIFIER_SCENES], recipe.peaks, recipe.labels))
    train_classifier(classifier, judged, schedule, rng, _stage(report, "classifier", recipe.classifier_steps))
    unseen = _scenes(recipe, species, _HELD_BACK, recipe.calibration_scenes, "calibration", report)
    held_back: list[Judged] = list(judge(detector, unseen, recipe.peaks))
    calibration, threshold, f_simulated = calibrate(classifier, held_back)
    info = WeightsInfo(
        name=recipe.name,
        detector="fcrn",
        classifier="patch-cnn",
        preprocessing=recipe.preprocessing,
        peaks=recipe.peaks,
        calibration=calibration,
        threshold=threshold,
        provenance=provenance
        | {
            "drpwatch": __version__,
            "recipe": asdict(recipe),
            "maps": sorted(one.name for one in species if not one.name.startswith("invented")),
            "f_on_held_back_simulations": round(f_simulated, 4),
        },
    )
    save_weights(target, info, detector, classifier)
    return info


def _scenes(
    recipe: Recipe, species: list[Species], first: int, count: int, stage: str, report: Report
) -> list[Example]:
    """Simulate `count` scenes."""
    examples = []
    for i in range(count):
        examples.append(make_example(species, recipe.preprocessing, recipe.seed, first + i))
        report(stage, i + 1, count, float("nan"))
    return examples


def _stage(report: Report, stage: str, steps: int) -> Callable[[int, float], None]:
    """Return the progress callback of one training."""
    return lambda done, loss: report(stage, done, steps, loss)
