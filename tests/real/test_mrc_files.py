"""Real MRC files, read as mrcfile reads them."""

import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from drpwatch.formats import mrc

FILES = sorted((Path(__file__).parents[3] / "shared" / "data" / "misc").glob("*.mrc"))


@pytest.mark.real
@pytest.mark.skipif(not FILES, reason="the real micrographs are absent")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_as_mrcfile(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, permissive=True) as oracle:
            expected, voxel = oracle.data.reshape(oracle.data.shape[-2:]), oracle.voxel_size
    header = mrc.read_header(path)
    mrc.check_complete(header, path.stat().st_size)
    np.testing.assert_array_equal(mrc.read_pixels(path, header, mrc.fingerprint(path.stat())), expected)
    if header.pixel_size_yx_angstrom is None:
        assert float(voxel.x) in (0.0, 1.0)
    else:
        assert header.pixel_size_yx_angstrom == (pytest.approx(voxel.y), pytest.approx(voxel.x))
