"""`drpwatch train`: make a set of weights from simulated micrographs."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

MAP_HELP = (
    "Density map (.mrc, .map, .gz) or a folder of them; repeat for more. Shapes of its own are always used."
)


def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights file to write (.safetensors).")],
    maps: Annotated[list[Path] | None, typer.Option("--map", help=MAP_HELP, exists=True)] = None,
    name: Annotated[str, typer.Option(help="Name that the weights carry.")] = "general",
    seed: Annotated[int, typer.Option(help="Same seed, same scenes.")] = 1,
    scenes: Annotated[int, typer.Option(min=2, help="Simulated scenes to train on.")] = 1000,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the detector, 16 crops each.")] = 2500,
    classifier_steps: Annotated[
        int, typer.Option(min=1, help="Steps of the classifier, 128 patches each.")
    ] = 1500,
    calibration_scenes: Annotated[
        int, typer.Option(min=2, help="Unseen scenes that calibrate scores.")
    ] = 200,
    labels: Annotated[
        str,
        typer.Option(
            help="What the classifier learns from: truth, or the detector's own confidence as in the paper."
        ),
    ] = "truth",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all cores.")] = 0,
) -> None:
    """Train detector and classifier on simulated micrographs, calibrate the scores, write one weights file.

    Needs no data. On two CPU cores the defaults take about an hour.
    """
    from drpwatch.errors import UsageError
    from drpwatch.pick.device import resolve
    from drpwatch.train.recipe import Recipe, cook

    if labels not in ("truth", "confidence"):
        raise UsageError(f"--labels {labels}: allowed are truth and confidence")
    recipe = Recipe(
        name=name,
        seed=seed,
        scenes=scenes,
        steps=steps,
        classifier_steps=classifier_steps,
        calibration_scenes=calibration_scenes,
        labels="truth" if labels == "truth" else "confidence",
    )
    target = str(resolve(device, threads))
    with _Bars() as bars:
        info = cook(
            recipe, maps or [], target, {"command": _command(), "commit": _commit()}, output, bars.report
        )
    print(
        f"{output}: threshold {info.threshold:.3f}, F {info.provenance['f_on_held_back_simulations']:.3f} "
        "on simulations that it was not trained on"
    )


def _command() -> str:
    """Return the command line as it was typed, for the weights' provenance."""
    return " ".join(["drpwatch", *sys.argv[1:]])


def _commit() -> str | None:
    """Return the commit of the checkout that trains, None outside of one."""
    here = Path(__file__).parent
    try:
        asked = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class _Bars:
    """One progress bar for each stage on a tty, a line for each tenth elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(
            *columns, TextColumn("{task.fields[note]}"), disable=not sys.stderr.isatty()
        )
        self._tasks: dict[str, TaskID] = {}
        self._mean: dict[str, float] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, stage: str, done: int, total: int, loss: float) -> None:
        """Show one step."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note="")
            self._mean[stage] = loss
        self._mean[stage] = 0.98 * self._mean[stage] + 0.02 * loss
        note = "" if math.isnan(loss) else f"loss {self._mean[stage]:.5f}"
        self._progress.update(self._tasks[stage], completed=done, note=note)
        if self._progress.disable and done % max(1, total // 10) == 0:
            print(f"{stage} {done}/{total} {note}", file=sys.stderr, flush=True)
