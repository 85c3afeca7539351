import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from drpwatch.errors import WeightsError
from drpwatch.pick.networks import (
    BORDER_PX,
    CLASSIFIERS,
    DETECTORS,
    PATCH_PX,
    Detector,
    Fcrn,
    UNet,
    build,
    detect_in_tiles,
    fused,
    layers,
    patches_at,
    take_over,
)


def multiplications_per_pixel(detector: Detector) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        detector(torch.zeros(1, detector.sees, 256, 256))
    return counter.get_total_flops() / 2 / 256**2


def test_the_u_net_costs_what_the_paper_s_network_costs():
    assert multiplications_per_pixel(UNet().eval()) == pytest.approx(26_000, rel=0.05)
    assert multiplications_per_pixel(UNet(sees=2).eval()) == pytest.approx(26_000, rel=0.05)
    assert multiplications_per_pixel(Fcrn().eval()) == pytest.approx(26_000, rel=0.05)


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def detector(request) -> Detector:
    torch.manual_seed(0)
    detector = DETECTORS[request.param]()
    with torch.no_grad():  # every pixel that a network looks at counts
        for parameter in detector.parameters():
            parameter.abs_().add_(0.01)
    return build(DETECTORS, request.param, detector.state_dict())


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() < 1e-5 * other.abs().max())


@pytest.mark.parametrize("tile_px", [17, 64, 100, 256])
@torch.inference_mode()
def test_any_tile_size_gives_the_same_map(detector, tile_px):
    image = torch.randn(190, 333)
    whole = detect_in_tiles(detector, image, tile_px=1000)
    assert _same(detect_in_tiles(detector, image, tile_px), whole)


@pytest.mark.parametrize(("shape", "tile_px"), [((190, 333), 64)])
@torch.inference_mode()
def test_tiles_in_one_shape_give_the_same_map(detector, shape, tile_px):
    image, confined = torch.randn(shape), fused(detector)
    confined.confine()
    shapes = set()
    confined.register_forward_pre_hook(lambda _, given: shapes.add(tuple(given[0].shape)))
    assert _same(detect_in_tiles(confined, image, tile_px, one_shape=True), detect_in_tiles(detector, image))
    assert shapes == {(1, detector.sees, tile_px + 2 * detector.halo_px, tile_px + 2 * detector.halo_px)}
    assert _same(detect_in_tiles(confined, image, 1000), detect_in_tiles(detector, image))


@torch.inference_mode()
def test_the_inside_is_what_the_network_says(detector):
    image = torch.randn(320, 352)
    far = detector.halo_px + BORDER_PX
    inner = (slice(far, -far), slice(far, -far))
    direct = detector(layers(image, detector.sees)[None])[0, 0]
    assert _same(detect_in_tiles(detector, image)[inner], direct[inner])


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (16, 17), (33, 50)])
@torch.inference_mode()
def test_images_of_any_size(detector, shape):
    assert detect_in_tiles(detector, torch.randn(shape)).shape == shape


@pytest.mark.parametrize("place", [(160, 160), (167, 175), (175, 161)])
def test_the_halo_covers_the_receptive_field(detector, place):
    image = torch.ones(1, detector.sees, 320, 320, requires_grad=True)
    detector(image)[0, 0][place].backward()
    seen = np.argwhere(image.grad[0].abs().amax(0).numpy() > 0) - place
    assert abs(seen).max() <= detector.halo_px


@torch.inference_mode()
def test_fusing_changes_nothing(detector):
    image = torch.randn(64, 64)
    quick = fused(detector)
    assert _same(detect_in_tiles(quick, image), detect_in_tiles(detector, image))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules())


@torch.inference_mode()
def test_who_sees_more_begins_as_who_saw_less():
    torch.manual_seed(0)
    start, network, image = UNet().eval(), UNet(sees=2).eval(), torch.randn(96, 96)
    take_over(network, start)
    assert _same(detect_in_tiles(network, image), detect_in_tiles(start, image))
    with pytest.raises(WeightsError, match="cannot go on from"):
        take_over(start, network)  # it would forget
    with pytest.raises(WeightsError, match="cannot go on from"):
        take_over(network, Fcrn())


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
    with pytest.raises(WeightsError, match="unknown architecture 'resnet'; this version knows fcrn, unet"):
        build(DETECTORS, "resnet", {})


def test_tensors_that_do_not_fit_are_refused():
    with pytest.raises(WeightsError, match="do not fit the architecture 'patch-cnn'"):
        build(CLASSIFIERS, "patch-cnn", Fcrn().state_dict())


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
@torch.inference_mode()
def test_a_batch_gives_what_single_patches_give(name):
    torch.manual_seed(0)
    classifier = build(CLASSIFIERS, name, CLASSIFIERS[name]().state_dict())
    patches = torch.randn(7, 1, PATCH_PX, PATCH_PX)
    together = classifier(patches)
    alone = torch.cat([classifier(patch[None]) for patch in patches])
    assert together.shape == (7,)
    assert float((together - alone).abs().max()) < 1e-5
    assert float((together - fused(classifier)(patches)).abs().max()) < 1e-5
