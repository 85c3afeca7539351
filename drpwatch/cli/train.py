"""`drpwatch train ...`: weights made from simulated micrographs, from a user's own, or adapted to a data set."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpwatch.cli.progress import Stages
from drpwatch.cli.remote import Socket, connect
from drpwatch.errors import UsageError

if TYPE_CHECKING:
    from drpwatch.train.owned import OwnData

app = typer.Typer(help="Make weights, or adapt them to a data set.", no_args_is_help=True)

MAP_HELP = (
    "Density map (.mrc, .map, .gz) or a folder of them; repeat for more. Shapes of its own are always used."
)
DATA_HELP = (
    "Folder of labelled micrographs with a dataset.toml (diameter_angstrom, truth), as for 'drpwatch evaluate"
    " --suite'; repeat for more. Labels count as complete: what is not labelled teaches that it is no particle."
)

Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Weights file to write (.safetensors).", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option(min=0, max=1024, help="CPU threads; 0: all cores it may use.")]


@app.command()
def detector(
    output: Output,
    kind: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="Architecture: matched-unet, unet, or the DRPnet paper's fcrn. That of --start-from unless given.",
        ),
    ] = None,
    maps: Annotated[list[Path] | None, typer.Option("--map", help=MAP_HELP, exists=True)] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help=DATA_HELP)] = None,
    own_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of --data in all that is trained on; 1: only these.")
    ] = 0.5,
    start_from: Annotated[
        str | None,
        typer.Option(help="Go on from these weights (a shipped name or a file) instead of from nothing."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name that the weights carry.")] = "general",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same weights.")] = 1,
    scenes: Annotated[
        int, typer.Option(min=2, help="Simulated scenes to train on; 0.8 MB of memory each.")
    ] = 4000,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of the detector; 0 keeps that of --start-from.")
    ] = 7000,
    batch: Annotated[int, typer.Option(min=1, help="Crops in each step of the detector.")] = 8,
    crop_px: Annotated[int, typer.Option(min=32, max=320, help="Side of a crop, in working pixels.")] = 160,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the detector; 0.002, or 0.0003 with --start-from.")
    ] = None,
    working_diameter_px: Annotated[
        float | None, typer.Option(min=8, max=40, help="Size at which the networks see a particle.")
    ] = None,
    classifier_steps: Annotated[
        int,
        typer.Option(min=0, help="Steps of the classifier, 128 patches each; 0 keeps that of --start-from."),
    ] = 1500,
    calibration_scenes: Annotated[
        int, typer.Option(min=2, help="Unseen scenes that calibrate scores.")
    ] = 1200,
    labels: Annotated[
        str,
        typer.Option(
            help="What the classifier learns from: truth, or the detector's own confidence as in the paper."
        ),
    ] = "truth",
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of checkpoints, curve and pictures; OUTPUT.run unless given."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0, max=256, help="Processes that simulate scenes and look at them; 0: one for each core."
        ),
    ] = 0,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train detector and classifier, calibrate the scores, and write one weights file: the whole recipe.

    Needs no data: scenes are simulated. An interrupted training goes on with the same command. Beside the
    weights, OUTPUT.run gets the curve of loss and F on held-back scenes (curve.csv, curve.png) and
    predictions next to the truth (scenes.png; pictures need the extra 'train').
    """
    from drpwatch.pick.device import resolve
    from drpwatch.pick.preprocess import Preprocessing
    from drpwatch.pick.weights import find, load_weights
    from drpwatch.train.recipe import Ingredients, Kitchen, Recipe, cook

    if labels not in ("truth", "confidence"):
        raise UsageError(f"--labels {labels}: allowed are truth and confidence")
    start = load_weights(find(start_from)) if start_from is not None else None
    for option, given, kept in (
        ("--steps", steps, start),
        ("--classifier-steps", classifier_steps, start and start.classifier),
    ):
        if not given and kept is None:
            raise UsageError(f"{option} 0: there is nothing to keep; --start-from weights that have it")
    changed: dict[str, Any] = {}
    if start is not None:
        if working_diameter_px is not None:
            raise UsageError("--start-from brings its own --working-diameter-px: leave it out")
        changed = {"preprocessing": start.info.preprocessing, "peaks": start.info.peaks}
        if start.info.classifier is not None:
            changed["classifier"] = start.info.classifier
        kind = kind or start.info.detector
    elif working_diameter_px is not None:
        changed = {"preprocessing": Preprocessing(working_diameter_px=working_diameter_px)}
    if kind is not None:
        changed["detector"] = kind
    if learning_rate is None:
        learning_rate = 2e-3 if start is None else 3e-4
    recipe = Recipe(
        name=name,
        seed=seed,
        scenes=scenes,
        steps=steps,
        batch=batch,
        crop_px=crop_px,
        learning_rate=learning_rate,
        classifier_steps=classifier_steps,
        calibration_scenes=calibration_scenes,
        labels="truth" if labels == "truth" else "confidence",
        own_share=own_share if data else 0.0,
        **changed,
    )
    own = _own_data(data) if data else None
    _check_output(output)
    target = str(resolve(device, threads))
    with Stages() as bars, _stoppable() as stop:
        kitchen = Kitchen(
            device=target,
            run_dir=run_dir or output.with_name(output.name + ".run"),
            report=bars.report,
            say=bars.say,
            stop=stop,
            workers=workers,
        )
        ingredients = Ingredients(tuple(maps or ()), own, start)
        try:
            info = cook(recipe, ingredients, {"command": _command(), "commit": _commit()}, output, kitchen)
        except KeyboardInterrupt:
            bars.say(f"interrupted: the state is in {kitchen.run_dir}; the same command goes on from there")
            raise
    print(
        f"{output}: threshold {info.threshold:.3f}, F {info.provenance['f_on_held_back']:.3f} on what it was"
        " not trained on"
    )


@app.command()
def classifier(
    output: Output,
    from_session: Annotated[
        str | None,
        typer.Option(help="Adapt to the micrographs of this session of the running daemon.", metavar="NAME"),
    ] = None,
    from_files: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Adapt to these: a micrograph or a directory; repeat for more."),
    ] = None,
    diameter_angstrom: Annotated[
        float | None, typer.Option(help="With --from: particle diameter in Å.", show_default=False)
    ] = None,
    pixel_size_angstrom: Annotated[
        float | None, typer.Option(help="With --from: pixel size in Å; read from each header unless given.")
    ] = None,
    negative_stain: Annotated[
        bool, typer.Option("--negative-stain", help="With --from: particles are bright.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Weights to adapt: a shipped name or a file; general, or the session's own."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name that the weights carry; MODEL-adapted.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most micrographs that are looked at, spread evenly over all.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same weights.")] = 1,
    device: Device = "auto",
    threads: Threads = 0,
    socket: Socket = None,
) -> None:
    """Adapt the second network, which keeps or rejects candidates, to a data set. Needs no labels.

    It learns from the candidates in which the first network is most and least confident, in minutes. Give
    the result to `drpwatch pick --model` or to a session.
    """
    from drpwatch.cli.adapting import adapt_to, files_of_session, given_files

    if (from_session is None) == (not from_files):
        raise UsageError("give the micrographs to adapt to, either --from-session or --from")
    if from_session is not None:
        if diameter_angstrom is not None or pixel_size_angstrom is not None or negative_stain:
            raise UsageError("--from-session brings the session's own parameters: leave them out")
        chosen = files_of_session(connect(socket), from_session, model)
    else:
        if diameter_angstrom is None:
            raise UsageError("--from needs the particle's --diameter-angstrom")
        chosen = given_files(from_files or [], diameter_angstrom, pixel_size_angstrom, negative_stain, model)
    _check_output(output)
    with Stages() as bars, _stoppable() as stop:
        told = adapt_to(chosen, output, name, limit, seed, device, threads, bars, stop, _command())
    print(told)


def _own_data(folders: list[Path]) -> OwnData:
    """Return the labelled micrographs of data sets."""
    from drpwatch.assess.datasets import DESCRIPTION, read_data_set
    from drpwatch.train.owned import OwnData, OwnMicrograph

    micrographs = []
    for folder in folders:
        found = read_data_set(folder)
        if found.truth is None:
            raise UsageError(
                f"{folder / DESCRIPTION}: names no truth; only labelled micrographs can be trained on"
            )
        for name, path in found.micrographs.items():
            if path is None:
                raise UsageError(f"{folder}: the truth names {name}, and there is no such micrograph")
            micrographs.append(OwnMicrograph(path, found.params, found.truth[name].yx_px))
    return OwnData.split(micrographs)


def _check_output(output: Path) -> None:
    """Refuse, before hours of work, a target that cannot be written."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise UsageError(f"{output} is a directory; give the weights file to write")
        with output.open("ab"):
            pass
        if output.stat().st_size == 0:
            output.unlink()
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {(error.strerror or '').lower()}") from error


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


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set; asked a second time, they interrupt at once."""
    stop = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():  # others cannot have handlers
        yield stop
        return
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
