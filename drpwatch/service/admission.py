"""Which whole micrographs a session takes: the checks between a header and the queue.

The same for the daemon and for `drpwatch pick`, so that both refuse with the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drpwatch.errors import MicrographError, UsageError
from drpwatch.micrograph import ImageHeader, PickParams
from drpwatch.session.journal import Journal
from drpwatch.session.outputs import unwritable
from drpwatch.watch.probe import probe

_HEADERS_TRIED = 20  # for a pixel size, before anything is done
_PIXEL_SIZE_TOLERANCE = 0.005  # headers round; two magnifications differ by far more


def refusal(journal: Journal, session_name: str, name: str, header: ImageHeader) -> str | None:
    """Return why a whole micrograph still cannot be picked in this session, None if it can.

    The first one that can fixes the pixel size of the session's outputs.
    """
    session = journal.session(session_name)
    problem = unwritable(session.spec.out_dir, session.spec.micrograph_prefix, name)
    if problem is not None:
        return problem
    try:
        y, x = session.spec.params.pixel_size_yx(header)
    except MicrographError as error:
        return str(error)
    size = (y * x) ** 0.5
    if session.pixel_size_angstrom is None:
        journal.set_pixel_size(session.id, size)
    elif abs(size / session.pixel_size_angstrom - 1) > _PIXEL_SIZE_TOLERANCE:
        return (
            f"its pixel size is {size:.4g} Å, that of the session's other micrographs"
            f" {session.pixel_size_angstrom:.4g} Å: pick it in a session, or into an output directory, of its own"
        )
    return None


def check_pixel_size(root: Path, names: Sequence[str], params: PickParams) -> None:
    """Refuse, before anything is done, micrographs that all would fail for want of a pixel size.

    Raises
    ------
    UsageError
        Nobody gives a pixel size, nor does the first header that can be read.
    """
    if params.pixel_size_angstrom is not None:
        return
    for name in names[:_HEADERS_TRIED]:
        header = probe(root / name).header
        if header is None:
            continue
        if header.pixel_size_yx_angstrom is None:
            raise UsageError(f"{root / name}: the header gives no pixel size: give --pixel-size-angstrom")
        return
