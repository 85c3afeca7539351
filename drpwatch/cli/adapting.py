"""`drpwatch train classifier`: which micrographs are adapted to, and the adaptation as a user sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from drpwatch.cli.client import ControlClient
from drpwatch.cli.progress import Stages
from drpwatch.errors import UsageError
from drpwatch.micrograph import PickParams
from drpwatch.pick.picker import Picker
from drpwatch.service.inputs import find_inputs
from drpwatch.train.adapt import Adaptation, Adapted, adapt, look, save_adapted

_WORSE = 0.02  # of F on simulated scenes: more than chance


@dataclass(frozen=True, slots=True)
class Chosen:
    """Micrographs to adapt to, and how they are picked."""

    paths: tuple[Path, ...]
    params: PickParams
    origin: str  # for the provenance


def given_files(
    paths: Sequence[Path],
    diameter_angstrom: float,
    pixel_size_angstrom: float | None,
    negative_stain: bool,
    model: str | None,
) -> Chosen:
    """Return the micrographs that a user names.

    Raises
    ------
    UsageError
        A path does not exist, nothing is found, or a parameter is out of its range.
    """
    params = PickParams(
        diameter_angstrom, pixel_size_angstrom, negative_stain, model="general" if model is None else model
    )
    inputs = find_inputs(paths)
    return Chosen(
        tuple(inputs.root / name for name in inputs.names), params, ", ".join(str(path) for path in paths)
    )


def files_of_session(client: ControlClient, name: str, model: str | None) -> Chosen:
    """Return the micrographs of a session, running or completed, without those that wait or failed.

    Raises
    ------
    DaemonUnreachable
        No daemon answers that could tell what the session is.
    SessionError
        It has no such session.
    UsageError
        The session has no micrographs yet, or its directory cannot be read from here.
    """
    view = client.session(name)
    params = PickParams.from_dict(view["params"])
    if model is not None:
        params = PickParams.from_dict({**view["params"], "model": model})
    inputs = find_inputs([Path(view["watch_root"])], view["glob"])
    left_out = {one["name"] for one in (*view["waiting"], *view["failed"])}
    paths = tuple(inputs.root / one for one in inputs.names if one not in left_out)
    if not paths:
        raise UsageError(f"session {name}: no micrograph in {view['watch_root']} is whole and usable yet")
    return Chosen(paths, params, f"session {name}")


def spread(paths: Sequence[Path], limit: int) -> tuple[Path, ...]:
    """Return at most `limit` of the paths, spread evenly over all."""
    count = min(limit, len(paths))
    return tuple(paths[(2 * i + 1) * len(paths) // (2 * count)] for i in range(count))


def adapt_to(
    chosen: Chosen,
    output: Path,
    name: str | None,
    limit: int,
    seed: int,
    device: str,
    threads: int,
    bars: Stages,
    stop: threading.Event,
    command: str,
) -> str:
    """Adapt, write the weights, and return what to tell the user."""
    started = time.monotonic()
    picker = Picker.load(chosen.params.model, device, threads, "float32")
    paths = spread(chosen.paths, limit)
    done = 0

    def step(problem: str) -> None:
        nonlocal done
        done += 1
        bars.report("micrographs", done, len(paths), float("nan"))
        if problem:
            bars.say(problem)

    wanted = Adaptation(seed=seed)
    seen = look(picker, paths, chosen.params, step, stop)
    network, adapted = adapt(picker, seen, wanted, bars.report, stop)
    data = {
        "from": chosen.origin,
        "params": chosen.params.as_dict(),
        "command": command,
        "constants": asdict(wanted),
    }
    general = picker.weights
    info = save_adapted(output, name or f"{general.info.name}-adapted", general, network, adapted, data)
    if adapted.anchor_f_before - adapted.anchor_f_after > _WORSE:
        bars.say(_warning(adapted))
    return (
        f"{output}: {info.name}, adapted to {adapted.sure} candidates that are surely particles and"
        f" {adapted.sure_not} that surely are not, of {adapted.micrographs} micrographs, in"
        f" {time.monotonic() - started:.0f} s"
    )


def _warning(adapted: Adapted) -> str:
    return (
        f"the adapted classifier is worse on simulated scenes: F {adapted.anchor_f_after:.3f} instead of"
        f" {adapted.anchor_f_before:.3f}; look at its picks before you use it"
    )
