"""The directory of a training run: what it was asked for, and the state of each fit, safe against a pulled plug.

A state is one safetensors file with a JSON string in its metadata; nothing is pickled. Files are written
beside, synced and renamed, so that what lies there is always whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from drpwatch.errors import OutputError, UsageError
from drpwatch.session import disk
from drpwatch.train.fit import FitState

_RUN = "run.json"
_FINISHED = "finished"
_LISTED = 3  # differences that a refusal names


class RunDirectory:
    """One run's directory, claimed for this process until it is closed.

    Parameters
    ----------
    path
        Made if it is not there.
    identity
        All that decides the result, as plain JSON values; a run goes on only if they are the same.

    Raises
    ------
    UsageError
        The directory holds another run, a finished one, or something else; or another process trains there.
    OutputError
        It cannot be written.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        identity = json.loads(json.dumps(identity))  # as it will be read again
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise _cannot_write(path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._join(identity)
        except BlockingIOError as error:
            self.close()
            raise UsageError(f"{path}: another process trains here now; give another --run-dir") from error
        except BaseException:
            self.close()
            raise

    def _join(self, identity: dict[str, Any]) -> None:
        """Begin a run, or go on with the one that is there."""
        if not (self.path / _RUN).exists():
            if any(self.path.iterdir()):
                raise UsageError(
                    f"{self.path} is neither empty nor the directory of a training run; give another --run-dir"
                )
            self.write(_RUN, _as_json(identity))
            return
        try:
            before = json.loads((self.path / _RUN).read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.path / _RUN} cannot be read ({error}); give another --run-dir"
            ) from error
        if before.get(_FINISHED):
            raise UsageError(
                f"{self.path} holds a finished run, whose weights went to {before[_FINISHED]};"
                " remove it to train again, or give another --run-dir"
            )
        if different := list(_differences(before, identity)):
            raise UsageError(
                f"{self.path} holds a run with other options ({'; '.join(different[:_LISTED])}): give the same"
                " ones to go on with it, remove it to begin anew, or give another --run-dir"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others use the directory."""
        os.close(self._lock)

    def load(self, stage: str) -> FitState | None:
        """Return the last state of a stage, None before the first.

        Raises
        ------
        UsageError
            The file is damaged.
        """
        path = self.path / f"{stage}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                values = json.loads((file.metadata() or {})["drpwatch"])
                return FitState({name: file.get_tensor(name) for name in file.keys()}, values)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UsageError(f"{path}: a damaged checkpoint ({error}); remove {self.path}") from error

    def save(self, stage: str, state: FitState) -> None:
        """Replace the state of a stage.

        Raises
        ------
        OutputError
            It cannot be written; the state before is still there.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        self.write(f"{stage}.safetensors", save(tensors, {"drpwatch": json.dumps(state.values)}))

    def finish(self, result: Path) -> None:
        """Note that the run is over, and remove its states; curves and pictures stay."""
        run = json.loads((self.path / _RUN).read_bytes())
        self.write(_RUN, _as_json(run | {_FINISHED: str(result)}))
        for state in self.path.glob("*.safetensors"):
            state.unlink()

    def write(self, name: str, content: bytes) -> None:
        """Replace a file in one step.

        Raises
        ------
        OutputError
            It cannot be written; what was there is still there.
        """
        try:
            disk.replace(self.path / name, content)
        except OSError as error:
            raise _cannot_write(self.path / name, error) from error


def code_sha256() -> str:
    """Return what tells two versions of the simulator, the networks and the training apart."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.glob("train/*.py"), *package.glob("pick/*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two runs, one phrase each."""
    found = []
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{name} ")
        elif old != new:
            short = all(len(str(value)) < 40 for value in (old, new))
            found.append(f"{name} {old}, now {new}" if short else f"another {name}")
    return found


def _as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _cannot_write(path: Path, error: OSError) -> OutputError:
    why = (error.strerror or type(error).__name__).lower()
    return OutputError(f"{path} cannot be written: {why}")
