import numpy as np
import pytest
import torch

from drpwatch.errors import WeightsError
from drpwatch.pick.networks import (
    CLASSIFIERS,
    DETECTORS,
    HALO_PX,
    PATCH_PX,
    Fcrn,
    PatchClassifier,
    build,
    detect_in_tiles,
    patches_at,
)


@pytest.fixture(scope="module")
def detector() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(DETECTORS, "fcrn", Fcrn().state_dict())


@pytest.mark.parametrize("tile_px", [17, 64, 100, 256])
@torch.inference_mode()
def test_any_tile_size_gives_the_same_map(detector, tile_px):
    image = torch.randn(190, 233)
    whole = detect_in_tiles(detector, image, tile_px=1000)
    assert float((detect_in_tiles(detector, image, tile_px) - whole).abs().max()) < 1e-5


@torch.inference_mode()
def test_the_inside_is_what_the_network_says(detector):
    image = torch.randn(80, 90)
    inner = (slice(HALO_PX, -HALO_PX), slice(HALO_PX, -HALO_PX))
    direct = detector(image[None, None])[0, 0]
    assert float((detect_in_tiles(detector, image)[inner] - direct[inner]).abs().max()) < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (16, 17)])
@torch.inference_mode()
def test_images_smaller_than_the_halo(detector, shape):
    assert detect_in_tiles(detector, torch.randn(shape)).shape == shape


@torch.inference_mode()
def test_the_halo_covers_the_receptive_field(detector):
    image = torch.zeros(101, 101)
    image[50, 50] = 100
    changed = (
        detect_in_tiles(detector, image) - detect_in_tiles(detector, torch.zeros(101, 101))
    ).abs() > 1e-7
    y, x = np.nonzero(changed.numpy())
    assert max(abs(y - 50).max(), abs(x - 50).max()) <= HALO_PX


def test_a_patch_has_its_place_in_the_middle():
    image = torch.arange(100.0 * 120).reshape(100, 120)
    patches = patches_at(image, torch.tensor([[50, 60], [0, 0], [99, 119], [31, 5]]))
    assert patches.shape == (4, 1, PATCH_PX, PATCH_PX)
    middle = PATCH_PX // 2
    assert patches[:, 0, middle, middle].tolist() == [
        image[50, 60],
        image[0, 0],
        image[99, 119],
        image[31, 5],
    ]
    assert torch.equal(patches[0, 0], image[18:82, 28:92])
    assert torch.equal(patches[1, 0, middle:, middle:], image[:32, :32])
    assert float(patches[1, 0, middle - 3, middle]) == float(image[3, 0])  # reflected


def test_patches_of_a_small_image():
    assert patches_at(torch.randn(20, 90), torch.tensor([[3, 4]])).shape == (1, 1, PATCH_PX, PATCH_PX)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(WeightsError, match="unknown architecture 'unet'; this version knows fcrn"):
        build(DETECTORS, "unet", {})


def test_tensors_that_do_not_fit_are_refused():
    with pytest.raises(WeightsError, match="do not fit the architecture 'patch-cnn'"):
        build(CLASSIFIERS, "patch-cnn", Fcrn().state_dict())


@torch.inference_mode()
def test_a_batch_gives_what_single_patches_give():
    torch.manual_seed(0)
    classifier = build(CLASSIFIERS, "patch-cnn", PatchClassifier().state_dict())
    patches = torch.randn(7, 1, PATCH_PX, PATCH_PX)
    together = classifier(patches)
    alone = torch.cat([classifier(patch[None]) for patch in patches])
    assert together.shape == (7,)
    assert float((together - alone).abs().max()) < 1e-5
