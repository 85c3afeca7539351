"""The recipe of a set of weights: scenes, detector, classifier, calibration, in one reproducible run.

An interrupted run goes on where it was, and ends in the same weights. The scenes of the networks are simulated
again then: that takes minutes, and saves the disk. Fields, which take longer and are small, are kept.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from drpwatch import __version__
from drpwatch.errors import UsageError, WeightsError
from drpwatch.pick.field import PANEL, FieldJudge, Panel
from drpwatch.pick.networks import CLASSIFIERS, DETECTORS, Detector, take_over
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import Preprocessing
from drpwatch.pick.weights import Weights, WeightsInfo, save_weights
from drpwatch.train.calibrate import calibrate
from drpwatch.train.checkpoint import RunDirectory, code_sha256
from drpwatch.train.course import Course, Report
from drpwatch.train.dataset import Example
from drpwatch.train.field import Field, FieldStudio, as_field, field_loss, untrained
from drpwatch.train.fit import Fit, Mixture, Schedule, classifier_loss, detector_loss
from drpwatch.train.judge import Judged, LabelSource, clear_patches, judge
from drpwatch.train.owned import OwnData, OwnMicrograph, own_examples
from drpwatch.train.scenes import Studio, make_all, make_each
from drpwatch.train.shapes import Species

_CALIBRATION_SCENES = 10_000  # scene numbers from here on calibrate, and train nothing
_VALIDATION_SCENES = 20_000  # and these are looked at while training
_FIELD_SCENES = 30_000  # and from these the field judge learns, on which the others are as good as on any
_CLASSIFIER_SHARE = 0.2  # of the scenes train the classifier,
_FIELD_SHARE = 1.5  # and so many times as many train the field judge,
_FIELD_STEPS = 8000
_FIELD_BATCH = 32
_FIELD_RATE = 2e-3
_CLASSIFIER_RATE = 1e-3
_CLASSIFIER_BATCH = 128
_MADE_BY = ("command", "commit")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights besides the code, the maps and the user's own data.

    Raises
    ------
    UsageError
        A value makes no sense.
    """

    name: str = "general"
    detector: str = "matched-unet"
    classifier: str = "quick-patch-cnn"
    seed: int = 1
    scenes: int = 4000
    steps: int = 7000
    batch: int = 8
    crop_px: int = 160
    learning_rate: float = 2e-3
    averaging: float = 0.99
    classifier_steps: int = 1500
    calibration_scenes: int = 1200  # with 300, the threshold is 0.40 to 0.51 by chance alone
    validation_scenes: int = 24
    invented: int = 160
    labels: LabelSource = "truth"
    own_share: float = 0.0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    peaks: PeakRule = field(default_factory=lambda: PeakRule(least_height=0.02, least_prominence=0.01))

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise UsageError(f"--detector {self.detector}: there are {', '.join(DETECTORS)}")
        if self.classifier not in CLASSIFIERS:
            raise UsageError(f"--classifier {self.classifier}: there are {', '.join(CLASSIFIERS)}")
        stride_px = DETECTORS[self.detector]().stride_px
        if self.crop_px % stride_px:
            raise UsageError(f"--crop-px {self.crop_px}: {self.detector} takes multiples of {stride_px}")
        if not 0 <= self.own_share <= 1:
            raise UsageError(f"--own-share {self.own_share}: a share is between 0 and 1")


@dataclass(frozen=True, slots=True, eq=False)
class Ingredients:
    """What a recipe is cooked from besides chance."""

    maps: tuple[Path, ...] = ()
    own: OwnData | None = None
    start: Weights | None = None  # fine-tuned instead of beginning with random weights


@dataclass(frozen=True, slots=True, eq=False)
class Kitchen:
    """Where a run is done, and who is told."""

    device: str
    run_dir: Path
    report: Report
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    workers: int = 1
    save_every_s: float = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class _Cooking:
    """One run."""

    recipe: Recipe
    ingredients: Ingredients
    kitchen: Kitchen
    course: Course
    studio: Studio
    species: list[Species]

    def scenes(self, stage: str, first: int, count: int) -> list[Example]:
        """Simulate `count` scenes."""
        return make_all(
            self.studio,
            self.species,
            range(first, first + count),
            self.kitchen.workers,
            self.kitchen.stop,
            lambda done: self.kitchen.report(stage, done, count, float("nan")),
        )

    def own(self, which: Literal["training", "held_back"]) -> list[Example]:
        """Prepare the user's own micrographs."""
        if self.ingredients.own is None:
            return []
        chosen: tuple[OwnMicrograph, ...] = getattr(self.ingredients.own, which)
        stage = f"own micrographs, {which.replace('_', ' ')}"
        return own_examples(
            chosen,
            self.recipe.preprocessing,
            self.recipe.peaks,
            self.recipe.crop_px,
            lambda done: self.kitchen.report(stage, done, len(chosen), float("nan")),
        )

    def judged(
        self, stage: str, detector: Detector, examples: list[Example], labels: LabelSource
    ) -> list[Judged]:
        """Label what a detector finds in examples."""
        return list(self._judging(stage, detector, examples, labels, twins=False))

    def fields(
        self, stage: str, cascade: tuple[Detector, nn.Module], first: int, count: int, own: list[Example]
    ) -> list[Field]:
        """Let the cascade look at so many simulated fields, and at the user's own."""
        detector, classifier = cascade
        # Workers have no GPU: each looks at the scenes that it makes, so their pixels stay where they are.
        on_cpu = copy.deepcopy(detector).cpu(), copy.deepcopy(classifier).cpu()
        studio = FieldStudio(replace(self.studio, true_ice=True), *on_cpu, self.recipe.peaks)
        found = self.course.kept(
            stage,
            count,
            lambda begin: make_each(
                studio,
                self.species,
                range(first + begin, first + count),
                self.kitchen.workers,
                self.kitchen.stop,
            ),
        )
        judged = self._judging(f"own {stage}", detector, own, "truth", twins=True)
        return found + [as_field(classifier, one) for one in judged]

    def _judging(
        self, stage: str, detector: Detector, examples: list[Example], labels: LabelSource, twins: bool
    ) -> Iterator[Judged]:
        """Yield what a detector finds in each example, with labels."""
        judged = judge(detector, examples, self.recipe.peaks, labels, twins)
        for done, one in enumerate(judged, 1):
            yield one
            self.kitchen.report(stage, done, len(examples), float("nan"))
            if self.kitchen.stop.is_set():
                raise KeyboardInterrupt


def cook(
    recipe: Recipe, ingredients: Ingredients, provenance: dict[str, Any], target: Path, kitchen: Kitchen
) -> WeightsInfo:
    """Train a whole cascade and write it to `target`, or go on with a run that was interrupted.

    Raises
    ------
    UsageError
        A map or a micrograph cannot be read, there is too little to train on, the detector cannot go on from
        that of the start, or the run's directory holds another run.
    OutputError
        The run's directory or the target cannot be written.
    KeyboardInterrupt
        `kitchen.stop` was set: the same call goes on from there.
    """
    network = _begun(recipe, ingredients.start)
    studio = Studio(ingredients.maps, recipe.invented, recipe.seed, recipe.preprocessing)
    species = studio.species()
    with RunDirectory(kitchen.run_dir, _identity(recipe, ingredients, species)) as directory:
        course = Course(directory, kitchen.report, kitchen.say, kitchen.stop, kitchen.save_every_s)
        cooking = _Cooking(recipe, ingredients, kitchen, course, studio, species)
        count = _simulated(recipe, recipe.scenes)
        first = round(_CLASSIFIER_SHARE * count)
        needed = count if recipe.steps else first if recipe.classifier_steps else 0
        simulated = cooking.scenes("scenes", 0, needed)
        own = cooking.own("training")
        held_back = cooking.own("held_back")
        detector = _detector(cooking, network, Mixture(simulated, own, recipe.own_share), held_back)
        classifier = _classifier(cooking, detector, simulated[:first], own)
        del simulated  # they fill most of the memory
        cascade = detector, classifier
        fields = cooking.fields("fields", cascade, _FIELD_SCENES, round(_FIELD_SHARE * count), own)
        field_judge = _field_judge(cooking, [one for one in fields if len(one.label)])
        count = _simulated(recipe, recipe.calibration_scenes)
        unseen = cooking.fields("fields to calibrate on", cascade, _CALIBRATION_SCENES, count, held_back)
        found = calibrate([one.features(field_judge) for one in unseen], unseen)
        info = WeightsInfo(
            name=recipe.name,
            detector=recipe.detector,
            classifier=recipe.classifier,
            field_judge="pooling-panel",
            preprocessing=recipe.preprocessing,
            peaks=recipe.peaks,
            calibration=found.calibration,
            threshold=found.threshold,
            provenance=provenance
            | _origin(cooking)
            | {
                "f_on_held_back": round(found.f, 4),
                "reliability": found.reliability.as_dict(),
            },
        )
        save_weights(target, info, detector, classifier, field_judge)
        directory.finish(target)
    return info


def _begun(recipe: Recipe, start: Weights | None) -> Detector:
    """Return the detector before its first step."""
    torch.manual_seed(recipe.seed)
    network = DETECTORS[recipe.detector]()
    if start is None:
        return network
    try:
        take_over(network, start.detector)
    except WeightsError as error:
        raise UsageError(
            f"--detector {recipe.detector} cannot go on from the {start.info.detector} of --start-from: leave it out"
        ) from error
    return network


def _detector(cooking: _Cooking, network: Detector, examples: Mixture, held_back: list[Example]) -> Detector:
    """Train the detector, or keep that of the start."""
    recipe = cooking.recipe
    if cooking.ingredients.start is not None and not recipe.steps:
        return network.eval().requires_grad_(False).to(cooking.kitchen.device)
    count = _simulated(recipe, recipe.validation_scenes)
    validation = cooking.scenes("validation", _VALIDATION_SCENES, count)
    schedule = Schedule(
        recipe.steps, recipe.batch, recipe.learning_rate, recipe.crop_px, averaging=recipe.averaging
    )
    fit = Fit(network.to(cooking.kitchen.device), schedule, recipe.seed)
    watched = cooking.course.validated(validation, held_back, recipe.peaks)
    return cooking.course.run("detector", fit, detector_loss(examples), watched)


def _classifier(
    cooking: _Cooking, detector: Detector, simulated: list[Example], own: list[Example]
) -> nn.Module:
    """Train the classifier on what the detector finds, or keep that of the start."""
    recipe, start = cooking.recipe, cooking.ingredients.start
    if start is not None and start.classifier is not None and not recipe.classifier_steps:
        return start.classifier.to(cooking.kitchen.device)
    judged = cooking.judged("judging", detector, [*simulated, *own], recipe.labels)
    parts = judged[: len(simulated)], judged[len(simulated) :]
    patches = [clear_patches(part) if part else None for part in parts]
    torch.manual_seed(recipe.seed)
    network = (
        CLASSIFIERS[recipe.classifier]() if start is None or start.classifier is None else start.classifier
    )
    schedule = Schedule(recipe.classifier_steps, _CLASSIFIER_BATCH, _CLASSIFIER_RATE, weight_decay=1e-2)
    fit = Fit(network.to(cooking.kitchen.device), schedule, recipe.seed)
    loss = classifier_loss(patches[0], patches[1], recipe.own_share)
    return cooking.course.run("classifier", fit, loss)


def _field_judge(cooking: _Cooking, fields: list[Field]) -> Panel:
    """Train a panel of field judges on fields that the classifier has not seen."""
    recipe = cooking.recipe
    schedule = Schedule(_FIELD_STEPS, _FIELD_BATCH, _FIELD_RATE, weight_decay=0.1)
    loss = field_loss(fields, untrained(fields).to(cooking.kitchen.device))
    judges: list[FieldJudge] = []
    for number in range(PANEL):
        torch.manual_seed(recipe.seed + number)
        network = untrained(fields).to(cooking.kitchen.device)
        fit = Fit(network, schedule, recipe.seed + number)
        judges.append(cooking.course.run(f"field judge {number + 1}", fit, loss))
    return Panel(judges)


def _simulated(recipe: Recipe, wanted: int) -> int:
    """Return how many scenes are simulated: of a training with own micrographs, their share less."""
    return round(wanted * (1 - recipe.own_share))


def _identity(recipe: Recipe, ingredients: Ingredients, species: list[Species]) -> dict[str, Any]:
    """Return all that decides the result of a run."""
    own = ingredients.own
    micrographs = [] if own is None else [*own.training, *own.held_back]
    return {
        "recipe": asdict(recipe),
        "map": {one.name: float(one.density.sum()) for one in _from_maps(species)},
        "own micrograph": {
            str(one.path.resolve()): [one.path.stat().st_mtime_ns, len(one.yx_px), float(one.yx_px.sum())]
            for one in micrographs
        },
        "start": None if ingredients.start is None else ingredients.start.sha256,
        "code of drpwatch": code_sha256(),
    }


def _from_maps(species: list[Species]) -> list[Species]:
    return [one for one in species if not one.name.startswith("invented")]


def _origin(cooking: _Cooking) -> dict[str, Any]:
    """Return what the weights were made from."""
    ingredients = cooking.ingredients
    origin: dict[str, Any] = {
        "drpwatch": __version__,
        "recipe": asdict(cooking.recipe),
        "maps": sorted(one.name for one in _from_maps(cooking.species)),
    }
    if ingredients.own is not None:
        origin["own_micrographs"] = len(ingredients.own.training)
        origin["own_micrographs_held_back"] = len(ingredients.own.held_back)
    if ingredients.start is not None:
        origin["started_from"] = {
            "name": ingredients.start.info.name,
            "sha256": ingredients.start.sha256,
            "licence": ingredients.start.info.licence,
            **{key: value for key, value in ingredients.start.info.provenance.items() if key in _MADE_BY},
        }
    return origin
