import gzip

import mrcfile
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from drpwatch.errors import UsageError
from drpwatch.train.shapes import Species, invented_species, load_species, species_from_map


def ball(radius_voxels: float, voxel: float, offset=(0, 0, 0)) -> np.ndarray:
    z, y, x = np.mgrid[:41, :41, :41] - 20
    return (
        np.sqrt((z - offset[0]) ** 2 + (y - offset[1]) ** 2 + (x - offset[2]) ** 2) < radius_voxels
    ).astype("f4")


def write_map(path, values, voxel):
    with mrcfile.new(path, compression="gzip" if path.suffix == ".gz" else None) as file:
        file.set_data(values)
        file.voxel_size = voxel
    return path


@pytest.mark.parametrize("pixel", [1.7, 3.0, 6.0])
def test_mass_is_the_same_from_every_side_and_at_every_pixel_size(pixel):
    species = invented_species(np.random.default_rng(3))
    views = species.project(Rotation.random(6, rng=np.random.default_rng(0)), pixel)
    masses = views.sum(dim=(1, 2)).numpy() * pixel**2  # cubic angstrom
    exact = float(species.density.sum()) * species.voxel_angstrom**3
    np.testing.assert_allclose(masses, exact, rtol=0.05)


def test_the_centre_of_mass_is_in_the_middle_pixel():
    species = invented_species(np.random.default_rng(8))
    views = species.project(Rotation.random(5, rng=np.random.default_rng(1)), 3.0).numpy()
    box = views.shape[1]
    assert box % 2 == 1
    y, x = np.mgrid[:box, :box] - box // 2
    for view in views:
        assert abs((view * y).sum() / view.sum()) < 0.5
        assert abs((view * x).sum() / view.sum()) < 0.5


def test_no_projection_is_cut_off():
    for seed in range(8):
        views = invented_species(np.random.default_rng(seed)).project(
            Rotation.random(3, rng=np.random.default_rng(2)), 4.0
        )
        rim = torch.cat([views[:, 0], views[:, -1], views[:, :, 0], views[:, :, -1]], dim=1)
        assert float(rim.max()) < 0.02 * float(views.max())


def test_a_ball_projects_to_its_thickness():
    z, y, x = np.mgrid[:61, :61, :61] - 30
    density = torch.from_numpy((np.sqrt(z**2 + y**2 + x**2) <= 25).astype("f4"))
    view = Species("ball", density, 2.0, 100.0).project(Rotation.identity(1), 2.0)[0]
    middle = view.shape[0] // 2
    assert float(view[middle, middle]) == pytest.approx(102, abs=3)
    assert float(view[middle, middle + 15]) == pytest.approx(2 * np.sqrt(50**2 - 30**2), rel=0.06)


@pytest.mark.parametrize("name", ["ball.mrc", "ball.map", "ball.mrc.gz"])
def test_a_map_becomes_a_species(tmp_path, name):
    species = species_from_map(write_map(tmp_path / name, 7 * ball(10, 4.0, (3, -2, 5)), 4.0))
    assert species.name == "ball"
    assert species.diameter_angstrom == pytest.approx(80, abs=8)
    middle = species.density.shape[0] // 2
    points = np.argwhere(species.density.numpy() > 0.3) - middle
    assert abs(points.mean(axis=0)).max() < 0.6  # centred
    assert float(species.density[middle, middle, middle]) == pytest.approx(1, abs=0.1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:mrcfile")
def test_maps_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "junk.mrc").write_bytes(b"junk" * 100)
    (tmp_path / "junk.mrc.gz").write_bytes(gzip.compress(bytes(4000))[:-9])
    write_map(tmp_path / "flat.mrc", np.zeros((10, 10), "f4"), 1.0)
    write_map(tmp_path / "empty.mrc", np.zeros((10, 10, 10), "f4"), 1.0)
    write_map(tmp_path / "unscaled.mrc", ball(5, 1.0), 0.0)
    for name in ("junk.mrc", "junk.mrc.gz", "flat.mrc", "empty.mrc", "unscaled.mrc", "missing.mrc"):
        with pytest.raises(UsageError, match=name):
            species_from_map(tmp_path / name)


def test_a_folder_of_maps_and_invented_ones(tmp_path):
    (tmp_path / "sub").mkdir()
    write_map(tmp_path / "sub/b.map", ball(10, 4.0), 4.0)
    write_map(tmp_path / "a.mrc", ball(8, 4.0), 4.0)
    names = [species.name for species in load_species([tmp_path], 2, seed=0)]
    assert names[:2] == ["a", "b"]
    assert all(name.startswith("invented-") for name in names[2:])
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no \.mrc, \.map or \.mrc\.gz maps in this folder"):
        load_species([tmp_path / "none"], 0, seed=0)


def test_the_seed_decides_what_is_invented():
    one, same, other = (load_species([], 1, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one.density, same.density)
    assert one.diameter_angstrom == same.diameter_angstrom != other.diameter_angstrom
