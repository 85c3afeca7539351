"""How large the tiles are in which the detector runs: smaller after a lack of memory, and slowly larger again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

RAISE_AFTER = 50
"""So many micrographs are picked in smaller tiles before a larger size is tried once more."""
_MOST_PATIENCE = 32 * RAISE_AFTER


@dataclass(slots=True)
class _Step:
    """Where one kind of image stands: how far down, since when, and how long to stay."""

    down: int = 0
    picked: int = 0
    patience: int = RAISE_AFTER
    raised: bool = False  # the size is on trial


class TileSizes:
    """The working tile size of each kind of image, which is whatever tells images apart by their need of memory.

    Parameters
    ----------
    tell
        Called at every lack of memory, with the tile's side in px and what the device said.
    """

    def __init__(self, tell: Callable[[int, str], None] = lambda *_: None) -> None:
        self._tell = tell
        self._steps: dict[Hashable, _Step] = {}
        self.last_px = 0
        """The size that was handed out last."""

    def of(self, kind: Hashable, sizes_px: Sequence[int]) -> int:
        """Return the size to try now, out of those that there are, largest first."""
        step = self._steps.get(kind)
        self.last_px = sizes_px[0 if step is None else min(step.down, len(sizes_px) - 1)]
        return self.last_px

    def worked(self, kind: Hashable) -> None:
        """Say that the size was small enough; after a while a larger one is handed out."""
        step = self._steps.get(kind)
        if step is None or step.down == 0:
            return
        step.picked += 1
        if step.picked >= step.patience:
            step.down, step.picked, step.raised = step.down - 1, 0, True

    def failed(self, kind: Hashable, sizes_px: Sequence[int], reason: str) -> bool:
        """Say that there was too little memory; return whether there is a smaller size to try.

        After a trial that failed it takes twice as long until the next.
        """
        self._tell(self.of(kind, sizes_px), reason)
        step = self._steps.setdefault(kind, _Step())
        if step.raised:
            step.patience = min(2 * step.patience, _MOST_PATIENCE)
        step.picked, step.raised = 0, False
        if step.down >= len(sizes_px) - 1:
            return False
        step.down += 1
        return True
