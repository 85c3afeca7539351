"""One look at the content of one file: what `settle` decides on.

Opening matters: on NFS a bare stat may be a minute old, while an open asks the server.
"""

from __future__ import annotations

import os
from pathlib import Path

from drpwatch.errors import IncompleteMicrograph, MicrographError
from drpwatch.formats import mrc
from drpwatch.micrograph import ImageHeader
from drpwatch.watch.settle import Probe


def probe(path: Path) -> Probe:
    """Open a file once and return its state, its header, and what keeps it from being picked."""
    try:
        descriptor = mrc.open_regular(path)
    except MicrographError as problem:
        return Probe(None, None, problem)
    header = None
    try:
        # Before the content: a change while we look shows as another fingerprint at the next look.
        state = mrc.fingerprint(os.fstat(descriptor))
        header = mrc.read_header(descriptor)
        mrc.check_complete(header, state.size_bytes)
        _refuse_unfilled(descriptor, header)
    except OSError as error:
        return Probe(None, None, IncompleteMicrograph(f"cannot be read now: {error.strerror or error}"))
    except MicrographError as problem:
        failing = isinstance(problem, IncompleteMicrograph) and isinstance(problem.__cause__, OSError)
        # A read error may pass and leave the fingerprint as it is: it must not settle.
        return Probe(None if failing else state, header, problem)
    finally:
        os.close(descriptor)
    return Probe(state, header, None)


def _refuse_unfilled(descriptor: int, header: ImageHeader) -> None:
    """Refuse a file that was allocated whole and is still being filled, by its last row.

    `formats.mrc.read_pixels` has the same rule; here it costs one small read, there a whole one.
    """
    if header.compressed:
        return
    row_bytes = header.shape_yx[1] * header.dtype.itemsize
    last = os.pread(descriptor, row_bytes, header.expected_bytes - row_bytes)
    if not any(last) and any(os.pread(descriptor, row_bytes, header.data_offset_bytes)):
        raise IncompleteMicrograph("the last row is all zeros: the file is still being filled")
