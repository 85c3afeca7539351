import numpy as np
import pytest
import torch

from drpwatch.errors import UsageError
from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import PickParams
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import Preprocessing, prepare
from drpwatch.train.dataset import SCENE_PX
from drpwatch.train.owned import OwnData, OwnMicrograph, own_examples

PARAMS = PickParams(36.0)  # at 1 px = 1.2 A: 30 px, so that a micrograph shrinks by 30 / 18


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory) -> OwnMicrograph:
    path = tmp_path_factory.mktemp("own") / "a.mrc"
    pixels = np.random.default_rng(2).standard_normal((1000, 500), dtype=np.float32)
    write_mrc(path, pixels, 1.2)
    yx = np.array([[100.0, 200.0], [700.0, 400.0], [3.0, 250.0]])  # the last one is on the border
    return OwnMicrograph(path, PARAMS, yx)


def examples_of(micrograph: OwnMicrograph) -> list:
    return own_examples([micrograph], Preprocessing(), PeakRule(), 160, lambda done: None)


def test_examples_are_what_is_picked_on(micrograph):
    tiles = examples_of(micrograph)
    assert [tuple(one.image.shape) for one in tiles] == [(300, 300), (300, 300)]
    pixels = np.random.default_rng(2).standard_normal((1000, 500), dtype=np.float32)
    seen = prepare(torch.from_numpy(pixels), (1.2, 1.2), PARAMS, Preprocessing())
    whole = torch.cat([one.image for one in tiles]).float()
    assert torch.allclose(whole, seen.image, atol=4e-3)  # half precision


def test_labels_lie_where_the_star_file_says(micrograph):
    top, bottom = examples_of(micrograph)
    assert np.allclose(top.yx_px, [[60, 120]], atol=0.01)
    assert np.allclose(bottom.yx_px, [[120, 240]], atol=0.01)
    assert float(top.label[60, 120]) == pytest.approx(1, abs=0.01)
    assert float(bottom.label[120, 240]) == pytest.approx(1, abs=0.01)
    assert top.diameter_px == pytest.approx(18)


def test_the_border_teaches_nothing(micrograph):
    top, bottom = examples_of(micrograph)
    assert float(top.weight[:8].max()) == 0
    assert float(top.weight[12:, 12:-12].min()) == 1
    assert float(bottom.weight[-8:].max()) == 0
    assert float(bottom.weight[:20, 150].min()) == 1  # inside of the micrograph


def test_a_small_micrograph_is_large_enough_for_crops(tmp_path):
    write_mrc(tmp_path / "s.mrc", np.random.default_rng(0).standard_normal((150, 600), dtype=np.float32), 1.2)
    tiles = examples_of(OwnMicrograph(tmp_path / "s.mrc", PARAMS, np.array([[75.0, 300.0]])))
    assert all(min(one.image.shape) == 160 for one in tiles)
    assert max(one.image.shape[1] for one in tiles) < 1.5 * SCENE_PX
    assert float(tiles[0].weight[100:].max()) == 0


def test_what_cannot_be_used_is_named(tmp_path):
    (tmp_path / "no.mrc").write_bytes(b"no")
    with pytest.raises(UsageError, match=r"no\.mrc: "):
        examples_of(OwnMicrograph(tmp_path / "no.mrc", PARAMS, np.zeros((0, 2))))


def test_every_fifth_micrograph_is_held_back(tmp_path, micrograph):
    data = OwnData.split([micrograph] * 11)
    assert (len(data.training), len(data.held_back)) == (9, 2)
    data = OwnData.split([micrograph] * 2)
    assert (len(data.training), len(data.held_back)) == (1, 1)
    with pytest.raises(UsageError, match="two labelled micrographs or more"):
        OwnData.split([micrograph])
