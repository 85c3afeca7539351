"""Pictures of a training, by matplotlib: the curve, and predictions next to the truth."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drpwatch.errors import UsageError
from drpwatch.pick.networks import Detector
from drpwatch.pick.peaks import PeakRule, find_candidates
from drpwatch.train.dataset import Example
from drpwatch.train.judge import map_of
from drpwatch.train.validation import CurvePoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_HEIGHT = 0.3  # of the peaks that are circled: about where picks begin


def check_available() -> None:
    """Refuse to draw without matplotlib.

    Raises
    ------
    UsageError
        It is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("pictures of the training need matplotlib: pip install 'drpwatch[train]'")


def curve_png(points: Sequence[CurvePoint]) -> bytes:
    """Draw losses and F over the steps."""
    figure = _figure(10, 4)
    losses, scores = figure.subplots(1, 2)
    step = [point.step for point in points]
    for axes, names in (
        (losses, ("training_loss", "simulated_loss", "own_loss")),
        (scores, ("simulated_f", "own_f")),
    ):
        for name in names:
            values = [getattr(point, name) for point in points]
            if any(value is not None for value in values):
                axes.plot(step, values, marker=".", label=name.replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    losses.set_yscale("log")
    losses.set_title("squared error of the distance map")
    scores.set_title("F of the detector alone, on held-back examples")
    return _png(figure)


def scenes_png(detector: Detector, examples: Sequence[Example], rule: PeakRule) -> bytes:
    """Draw one row for each example: input, truth, prediction, and the peaks on the input."""
    figure = _figure(12, 3.1 * len(examples))
    rows = figure.subplots(len(examples), 4, squeeze=False)
    for axes, example in zip(rows, examples, strict=True):
        predicted = map_of(detector, example).cpu()
        found = find_candidates(predicted, example.diameter_px, rule)
        image, high = example.image.float().numpy(), found.height >= _LEAST_HEIGHT
        for ax, pixels, title in zip(
            axes,
            (image, example.label.float().numpy(), predicted.numpy(), image),
            ("input", "truth", "prediction", "picks (red), truth (green)"),
            strict=True,
        ):
            limits = {"vmin": -3, "vmax": 3} if pixels is image else {"vmin": 0, "vmax": 1}
            ax.imshow(pixels, cmap="gray", **limits)
            ax.set_title(title, fontsize=9)
            ax.set_axis_off()
        axes[3].scatter(*example.yx_px.T[::-1], s=30, facecolors="none", edgecolors="lime", linewidths=0.8)
        axes[3].scatter(*found.yx[high].T[::-1], s=8, c="red", marker="+", linewidths=0.8)
    return _png(figure)


def _figure(width_inches: float, height_inches: float) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()
