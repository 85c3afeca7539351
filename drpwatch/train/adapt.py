"""The classifier adapted to a data set without labels: the paper's second stage.

The detector itself names examples: the candidates in which it is most confident are particles, those in which
it is least confident, or in which there is hardly anything to see, are not. How many of either there are is
told by the general model's probabilities. Simulated patches with known labels are mixed in, so that the
classifier does not forget; others tell afterwards whether it did.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from scipy.special import expit

from drpwatch import __version__
from drpwatch.errors import MicrographError, UsageError
from drpwatch.micrograph import PickParams
from drpwatch.pick import scoring
from drpwatch.pick.field import Background
from drpwatch.pick.networks import PATCH_PX, patch_centres, patches_at
from drpwatch.pick.peaks import Candidates
from drpwatch.pick.picker import CandidateMap, Picker
from drpwatch.pick.preprocess import PreparedImage
from drpwatch.pick.scoring import Array, as_weights
from drpwatch.pick.trees import tree_of
from drpwatch.pick.weights import Calibration, Weights, WeightsInfo, save_weights
from drpwatch.train.calibrate import as_calibration, best_threshold, logistic_regression
from drpwatch.train.course import Report
from drpwatch.train.fit import Fit, Schedule, classifier_loss
from drpwatch.train.judge import Judged, Patches, clear_patches, features, judge, log_odds
from drpwatch.train.owned import read_micrograph
from drpwatch.train.scenes import Studio, make_all

_INVENTED = 40
_ANCHOR_SCENES = 50_000  # numbers that no recipe trains or calibrates on
_BOX_DIAMETERS = 1.3  # the paper's boxes
_NEAR_DIAMETERS = 0.75  # a weak candidate so near to a sure particle may be its rim
_LEAST_SURE = 64  # candidates of either kind
_APART = 1e6  # diameters between micrographs


@dataclass(frozen=True, slots=True)
class Adaptation:
    """The constants of an adaptation; they rest on a few simulated data sets, and on the paper's quantiles.

    `sure_share` is the part of the expected particles, and of the expected others, that is taken as sure;
    quantiles are the paper's, of the mean and the deviation of a candidate's box.
    """

    steps: int = 250
    batch: int = 64
    learning_rate: float = 3e-4
    seed: int = 1
    sure_share: float = 0.5
    anchor_share: float = 0.3
    anchor_scenes: int = 60
    least_mean_quantile: float = 0.02
    least_deviation_quantile: float = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """A micrograph without its candidates, as the general model sees it.

    `patches` (m, 1, 64, 64) float16 are those of the candidates of its noise twin.
    """

    background: Background
    patches: torch.Tensor

    def with_log_odds(self, log_odds: npt.NDArray[np.float32]) -> Background:
        """Return the background with what another classifier says of the twin's candidates, (m,)."""
        twin = self.background.twin.clone()
        twin[:, 2] = torch.from_numpy(log_odds)
        return replace(self.background, twin=twin)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The candidates of all micrographs: `x` (n, 5) features, `probability` (n,) by the general model.

    `patches` is (n, 1, 64, 64) float16; `place` (n, 3) is the number of the micrograph, so large that no two
    of different micrographs are near, and y and x in particle diameters; `grounds` has the ground of the
    micrograph for each of these numbers, where the model has a field judge.
    """

    x: Array
    probability: Array
    patches: torch.Tensor
    place: npt.NDArray[np.float64]
    grounds: dict[float, Ground]
    diameter_px: float


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of it; F is at its best threshold, on simulated scenes that neither classifier has seen."""

    calibration: Calibration
    micrographs: int
    sure: int
    sure_not: int
    anchor_f_before: float
    anchor_f_after: float


def look(
    picker: Picker,
    paths: Sequence[Path],
    params: PickParams,
    step: Callable[[str], None],
    stop: threading.Event,
) -> Seen:
    """Find the candidates of micrographs; those that cannot be read are told and left out.

    Raises
    ------
    UsageError
        None can be used.
    """
    parts: list[Seen] = []
    for number, path in enumerate(paths):
        if stop.is_set():
            raise KeyboardInterrupt
        try:
            pixels, size_yx = read_micrograph(path, params)
            parts.append(_look_at(picker, pixels, size_yx, params, number))
        except MicrographError as error:
            step(f"{path}: left out: {error}")
        else:
            step("")
    if not parts:
        raise UsageError(f"none of the {len(paths)} micrographs can be used; the first is {paths[0]}")
    return Seen(
        x=np.concatenate([one.x for one in parts]),
        probability=np.concatenate([one.probability for one in parts]),
        patches=torch.cat([one.patches for one in parts]),
        place=np.concatenate([one.place for one in parts]),
        grounds={number: ground for one in parts for number, ground in one.grounds.items()},
        diameter_px=parts[0].diameter_px,
    )


def _look_at(
    picker: Picker,
    pixels: npt.NDArray[Any],
    size_yx: tuple[float, float],
    params: PickParams,
    number: int,
) -> Seen:
    """Find the candidates of one micrograph."""
    prepared = picker.prepare(picker.upload(pixels), size_yx, params)
    candidate_map = picker.detect(prepared, params)
    found = picker.candidates(candidate_map)
    x = scoring.features(found, picker.log_odds(prepared, found))
    grounds, field_judge = {}, picker.weights.field_judge
    if field_judge is not None:
        ground = grounds[_APART * number] = _ground(picker, candidate_map)
        x[:, 4] = scoring.field_log_odds(field_judge, x, ground.background)
    place = np.column_stack([np.full(len(x), _APART * number), found.yx / prepared.diameter_px])
    return Seen(
        x=x,
        probability=scoring.probability(x, picker.info.calibration),
        patches=_patches(prepared, found),
        place=place,
        grounds=grounds,
        diameter_px=prepared.diameter_px,
    )


def _ground(picker: Picker, candidate_map: CandidateMap) -> Ground:
    """Look at a micrograph's noise twin."""
    prepared, twin = candidate_map.prepared, picker.twin(candidate_map)
    found = picker.candidates(twin)
    told = scoring.told(scoring.features(found, picker.log_odds(twin.prepared, found)))
    background = Background.of(prepared.image[prepared.inside], twin.prepared.image, told, prepared.rings)
    return Ground(background, _patches(twin.prepared, found))


def _patches(prepared: PreparedImage, found: Candidates) -> torch.Tensor:
    """Cut out candidates, (n, 1, 64, 64) float16 on the CPU."""
    image = prepared.image.cpu()
    return patches_at(image, patch_centres(found.yx, image.shape)).half()


def label_by_certainty(seen: Seen, wanted: Adaptation) -> npt.NDArray[np.float32]:
    """Label candidates, (n,): 1 surely a particle, 0 surely not, nan unclear.

    The detector's confidence is the height of its peak. The general model's probabilities tell how many
    particles to expect.

    Raises
    ------
    UsageError
        There are too few of either kind to learn from.
    """
    confidence = seen.x[:, 1]
    best_first = np.argsort(-confidence, kind="stable")
    n, expected = len(confidence), float(seen.probability.sum())
    confident, doubtful = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    confident[best_first[: int(wanted.sure_share * expected)]] = True
    doubtful[best_first[n - int(wanted.sure_share * (n - expected)) :]] = True
    sure = confident & (seen.probability >= 0.5)
    if n:
        mean, deviation = _box_statistics(seen)
        sure &= mean >= np.quantile(mean, wanted.least_mean_quantile)
        sure &= deviation >= np.quantile(deviation, wanted.least_deviation_quantile)
    sure_not = doubtful & (seen.probability < 0.5) & ~_near(seen.place, sure)
    if min(sure.sum(), sure_not.sum()) < _LEAST_SURE:
        raise UsageError(
            f"the detector is sure of {sure.sum()} particles and of {sure_not.sum()} others among {n} candidates,"
            f" and {_LEAST_SURE} of either are needed to adapt to: give more micrographs, or keep the model"
        )
    label = np.full(n, np.nan, dtype=np.float32)
    label[sure], label[sure_not] = 1, 0
    return label


def _box_statistics(seen: Seen) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean and deviation of each candidate's box, (n,) each."""
    half = max(1, round(_BOX_DIAMETERS * seen.diameter_px / 2))
    box = slice(max(0, PATCH_PX // 2 - half), PATCH_PX // 2 + half)
    boxes = seen.patches[:, 0, box, box].float()
    return boxes.mean((1, 2)).numpy(), boxes.std((1, 2)).numpy()


def _near(place: npt.NDArray[np.float64], sure: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the mask of what lies near a sure particle."""
    if not sure.any():
        return np.zeros(len(place), dtype=bool)
    distance, _ = tree_of(place[sure]).query(place)
    return np.asarray(distance < _NEAR_DIAMETERS)


def adapt(
    picker: Picker, seen: Seen, wanted: Adaptation, report: Report, stop: threading.Event, workers: int = 1
) -> tuple[torch.nn.Module, Adapted]:
    """Fine-tune a picker's classifier on what its detector is sure of, and calibrate it again.

    Returns
    -------
    classifier, adapted
        The network, its calibration and its figures.

    Raises
    ------
    UsageError
        The model has no classifier, or there is too little to learn from.
    KeyboardInterrupt
        `stop` was set; nothing is kept.
    """
    before, info = picker.weights.classifier, picker.info
    if before is None or info.preprocessing.kind != "robust":
        raise UsageError(f"model {info.name} has no classifier to adapt; use one that 'drpwatch train' made")
    label = label_by_certainty(seen, wanted)
    clear = ~np.isnan(label)
    own = Patches(seen.patches[torch.from_numpy(clear)], label[clear])
    anchor = _anchor(picker, wanted, report, stop, workers)
    known, unseen = anchor[::2], anchor[1::2]
    schedule = Schedule(wanted.steps, wanted.batch, wanted.learning_rate, weight_decay=1e-2)
    fit = Fit(copy.deepcopy(before), schedule, wanted.seed)
    loss = classifier_loss(clear_patches(known), own, 1 - wanted.anchor_share)
    while not fit.done:
        report("classifier", fit.step + 1, wanted.steps, fit.descend(loss))
        if stop.is_set():
            raise KeyboardInterrupt
    after = fit.finish()
    field_judge = picker.weights.field_judge
    before_rows = [features(before, one, field_judge) for one in unseen]
    after_rows = [features(after, one, field_judge) for one in unseen]
    weights = _calibrate(after_rows, unseen, _adapted_features(after, field_judge, seen), seen)
    return after, Adapted(
        calibration=as_calibration(weights),
        micrographs=len(np.unique(seen.place[:, 0])),
        sure=own.count(1),
        sure_not=own.count(0),
        anchor_f_before=_best_f(before_rows, as_weights(info.calibration), unseen),
        anchor_f_after=_best_f(after_rows, weights, unseen),
    )


def _anchor(
    picker: Picker, wanted: Adaptation, report: Report, stop: threading.Event, workers: int
) -> list[Judged]:
    """Simulate scenes and label what the detector finds in them by the truth."""
    studio = Studio((), _INVENTED, wanted.seed, picker.info.preprocessing, true_ice=True)
    numbers = range(_ANCHOR_SCENES, _ANCHOR_SCENES + wanted.anchor_scenes)
    scenes = make_all(
        studio,
        studio.species(),
        numbers,
        workers,
        stop,
        lambda done: report("simulating", done, wanted.anchor_scenes, float("nan")),
    )
    return list(judge(picker.weights.detector.to(picker.device), scenes, picker.info.peaks, twins=True))


def _calibrate(rows: Sequence[Array], unseen: Sequence[Judged], adapted: Array, seen: Seen) -> Array:
    """Return the weights of the score with an adapted classifier.

    How much height, prominence and the new log-odds count is learned on simulated scenes, where the truth is
    known. The offset is such that as many particles are expected in the data set as by the general model:
    without labels nothing else tells how many there are.

    Parameters
    ----------
    rows, unseen
        Features of scenes with the adapted classifier, and the scenes.
    adapted, seen
        Features of the data set with the adapted classifier, and with the general one.
    """
    weights = logistic_regression(np.concatenate(rows), np.concatenate([one.label for one in unseen]))
    odds = adapted @ weights
    expected = seen.probability.mean()
    weights[0] += brentq(lambda shift: float(expit(odds + shift).mean() - expected), -60, 60)
    return weights


def _adapted_features(classifier: torch.nn.Module, field_judge: torch.nn.Module | None, seen: Seen) -> Array:
    """Return the features, (n, 5), with an adapted classifier."""
    x = seen.x.copy()
    x[:, 3] = log_odds(classifier, seen.patches)
    if field_judge is not None:
        for number, ground in seen.grounds.items():
            here = seen.place[:, 0] == number
            background = ground.with_log_odds(log_odds(classifier, ground.patches))
            x[here, 4] = scoring.field_log_odds(field_judge, x[here], background)
    return x


def _best_f(rows: Sequence[Array], weights: Array, judged: Sequence[Judged]) -> float:
    """Return the mean F of scenes, from their features, at the threshold that is best for all."""
    _, f = best_threshold([expit(row @ weights) for row in rows], judged)
    return f


def save_adapted(
    path: Path,
    name: str,
    general: Weights,
    classifier: torch.nn.Module,
    adapted: Adapted,
    data: dict[str, Any],
) -> WeightsInfo:
    """Write the general model with its adapted classifier; the threshold stays.

    Parameters
    ----------
    data
        What it was adapted to, and how, for the provenance.
    """
    figures = {key: value for key, value in asdict(adapted).items() if key != "calibration"}
    origin = {"name": general.info.name, "sha256": general.sha256}
    info = replace(
        general.info,
        name=name,
        calibration=adapted.calibration,
        provenance={
            "drpwatch": __version__,
            "adapted_from": origin,
            "adaptation": data | figures,
            "general": general.info.provenance,
        },
    )
    save_weights(path, info, general.detector, classifier, general.field_judge)
    return info
