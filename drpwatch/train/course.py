"""The course of a run: steps, checkpoints, validation, and the end when somebody asks for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from drpwatch.errors import UsageError
from drpwatch.pick.networks import Network
from drpwatch.pick.peaks import PeakRule
from drpwatch.train import pictures
from drpwatch.train.checkpoint import RunDirectory
from drpwatch.train.dataset import Example
from drpwatch.train.field import Field, as_tensors, from_tensors
from drpwatch.train.fit import Fit, FitState, LossOfABatch
from drpwatch.train.validation import CurvePoint, as_csv, quality

Report = Callable[[str, int, int, float], None]
"""Called with the name of the stage, the steps done, the steps in all, and the latest loss (nan without one)."""

_VALIDATIONS = 20
_LEAST_INTERVAL = 25  # steps: a look costs as much as some of them
_PICTURED = 4
_LOT = 200  # fields: two minutes on two cores


class Course:
    """Takes fits through their schedules, and keeps fields, in one run's directory.

    Parameters
    ----------
    stop
        Once set, the fit under way is saved, and what is under way is left by a KeyboardInterrupt.
    """

    def __init__(
        self,
        directory: RunDirectory,
        report: Report,
        say: Callable[[str], None],
        stop: threading.Event,
        save_every_s: float,
    ) -> None:
        self._directory = directory
        self._report = report
        self._say = say
        self._stop = stop
        self._save_every_s = save_every_s

    def validated(self, simulated: Sequence[Example], own: Sequence[Example], rule: PeakRule) -> Validation:
        """Return a validation that writes its curve and pictures to the run's directory."""
        try:
            pictures.check_available()
        except UsageError as error:
            self._say(f"no pictures: {error}")
            return Validation(self._directory, simulated, own, rule, draws=False)
        return Validation(self._directory, simulated, own, rule, draws=True)

    def run(
        self,
        stage: str,
        fit: Fit[Network],
        loss_of_a_batch: LossOfABatch,
        validation: Validation | None = None,
    ) -> Network:
        """Make the steps that are left, and return the trained network.

        Raises
        ------
        KeyboardInterrupt
            Somebody asked to stop; the state is saved.
        """
        state = self._directory.load(stage)
        if state is not None:
            fit.restore(state)
            if validation is not None:
                validation.restore(state)
            self._say(f"{stage}: goes on after step {fit.step} of {fit.schedule.steps}")
        saved_at = time.monotonic()
        while not fit.done:
            loss = fit.descend(loss_of_a_batch)
            self._report(stage, fit.step, fit.schedule.steps, loss)
            if validation is not None:
                validation.after(fit, loss)
            if fit.done or self._stop.is_set() or time.monotonic() - saved_at > self._save_every_s:
                self._save(stage, fit, validation)
                saved_at = time.monotonic()
            if self._stop.is_set():
                raise KeyboardInterrupt
        return fit.finish()

    def kept(self, stage: str, count: int, make: Callable[[int], Iterator[Field]]) -> list[Field]:
        """Make the fields that are left of so many, each lot kept as soon as it is whole.

        Parameters
        ----------
        make
            Makes them from a number on.

        Raises
        ------
        KeyboardInterrupt
            Somebody asked to stop.
        """
        fields: list[Field] = []
        while (state := self._directory.load(f"{stage} from {len(fields)}")) is not None:
            fields += from_tensors(state.tensors)
        if fields:
            self._say(f"{stage}: goes on after {len(fields)} of {count}")
        lot: list[Field] = []
        for field in make(len(fields)):
            lot.append(field)
            done = len(fields) + len(lot)
            self._report(stage, done, count, float("nan"))
            if len(lot) == _LOT or done == count:
                self._directory.save(f"{stage} from {len(fields)}", FitState(as_tensors(lot), {}))
                fields, lot = fields + lot, []
        return fields

    def _save(self, stage: str, fit: Fit[Any], validation: Validation | None) -> None:
        state = fit.state()
        more = {} if validation is None else validation.values()
        self._directory.save(stage, FitState(state.tensors, state.values | more))


class Validation:
    """Looks at a detector about twenty times on its way, on examples that it is not trained on.

    Writes `curve.csv`, and where it draws `curve.png` and `scenes.png`, to the run's directory.
    """

    def __init__(
        self,
        directory: RunDirectory,
        simulated: Sequence[Example],
        own: Sequence[Example],
        rule: PeakRule,
        draws: bool,
    ) -> None:
        self._directory = directory
        self._simulated = simulated
        self._own = own
        self._rule = rule
        self._draws = draws
        self._points: list[CurvePoint] = []
        self._losses: list[float] = []  # since the last point

    def after(self, fit: Fit[Any], loss: float) -> None:
        """Note a step, and look where it is time to."""
        self._losses.append(loss)
        if fit.step % max(_LEAST_INTERVAL, fit.schedule.steps // _VALIDATIONS) == 0 or fit.done:
            self._look(fit)

    def values(self) -> dict[str, object]:
        """Return what the checkpoint keeps."""
        return {"curve": [asdict(point) for point in self._points], "losses": self._losses}

    def restore(self, state: FitState) -> None:
        """Go on from a checkpoint."""
        self._points = [CurvePoint(**values) for values in state.values["curve"]]
        self._losses = list(state.values["losses"])

    def _look(self, fit: Fit[Any]) -> None:
        """Add a point to the curve, and write it."""
        network = fit.trained()
        simulated = quality(network, self._simulated, self._rule) if self._simulated else None
        own = quality(network, self._own, self._rule) if self._own else None
        point = CurvePoint(
            step=fit.step,
            training_loss=sum(self._losses) / len(self._losses),
            simulated_loss=simulated.loss if simulated else None,
            simulated_f=simulated.f if simulated else None,
            own_loss=own.loss if own else None,
            own_f=own.f if own else None,
        )
        self._points.append(point)
        self._losses = []
        self._directory.write("curve.csv", as_csv(self._points))
        if self._draws:
            shown = [*self._own[:_PICTURED], *self._simulated[:_PICTURED]]
            self._directory.write("curve.png", pictures.curve_png(self._points))
            if shown:
                self._directory.write("scenes.png", pictures.scenes_png(network, shown, self._rule))
