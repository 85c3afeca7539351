"""The networks of the cascade: detectors, which regress a distance map, and the classifier of patches."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from drpwatch.errors import WeightsError
from drpwatch.pick.matched import matched

Network = TypeVar("Network", bound=nn.Module)

PATCH_PX = 64  # side of the classifier's input, in working pixels
_LEAST_TILE_PX = 256
BORDER_PX = 16  # of reflected image around the image, so that no particle touches a network's zero padding


class Detector(nn.Module):
    """A network that turns what it sees of an image, (n, sees, h, w), into a distance map, (n, 1, h, w)."""

    sees = 1
    """Layers: the image; with a second one, the image under its matched filter too."""

    halo_px: int
    """What a pixel of the map can depend on ends within this distance; a multiple of the stride."""

    stride_px: int
    """Height and width must be multiples of it."""

    seen_yx: tuple[int, int] | None = None
    """Of an input that is larger than its tile, the height and width from its corner on that are tile; None: all."""

    side_px: int
    """Side of such an input."""

    def confine(self) -> None:
        """Have nothing beyond `seen_yx` reach what is inside: for each convolution it is padding, as it was for all.

        So tiles of any size can be run in one shape, with the same map.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(self._clear)

    def _clear(self, _module: nn.Module, _given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        if self.seen_yx is None:
            return
        coarser = self.side_px // out.shape[-1]
        h, w = (length // coarser for length in self.seen_yx)
        out[..., h:, :] = 0
        out[..., :, w:] = 0


class Fcrn(Detector):
    """CNN-1 of the paper: receptive field 25 px; bumps where particles are."""

    halo_px = 16
    stride_px = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(1, 32, 9, padding=4)
        self.conv_2 = nn.Conv2d(32, 32, 3, padding=1)
        self.conv_3 = nn.Conv2d(32, 32, (1, 7), padding=(0, 3))
        self.conv_4 = nn.Conv2d(32, 32, (7, 1), padding=(3, 0))
        self.conv_5 = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the distance map."""
        x = image
        for convolution in (self.conv_1, self.conv_2, self.conv_3, self.conv_4):
            x = F.relu_(convolution(x))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)
        out: torch.Tensor = self.conv_5(x)
        return out


class _Block(nn.Module):
    """Convolution, batch normalisation, ReLU; the normalisation is part of the convolution after `fuse`."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.normalisation: nn.Module = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu_(self.normalisation(self.convolution(x)))

    def fuse(self) -> None:
        if isinstance(self.normalisation, nn.BatchNorm2d):
            self.convolution = fuse_conv_bn_eval(self.convolution, self.normalisation)
            self.normalisation = nn.Identity()


class UNet(Detector):
    """A small U-Net (Ronneberger et al. 2015) that sees the neighbourhood of a particle, not only the particle.

    Four levels, each half as fine as the one before; the finest works at half of the image's resolution, and four
    channels of its last layer are shuffled into the full one. It costs as much as the FCRN: 26,000
    multiplications a pixel.
    """

    halo_px = 128
    stride_px = 16

    def __init__(self, sees: int = 1) -> None:
        super().__init__()
        self.sees = sees
        fine, middle, coarse, coarsest = 32, 48, 64, 64
        self.stem = nn.Sequential(_Block(sees, 16, kernel=5), _Block(16, fine, stride=2))
        self.down_1 = nn.Sequential(_Block(fine, fine), _Block(fine, fine))
        self.down_2 = _stage(fine, middle)
        self.down_3 = _stage(middle, coarse)
        self.down_4 = _stage(coarse, coarsest)
        self.up_3 = nn.Sequential(_Block(coarsest + coarse, coarse), _Block(coarse, coarse))
        self.up_2 = nn.Sequential(_Block(coarse + middle, middle), _Block(middle, middle))
        self.up_1 = nn.Sequential(_Block(middle + fine, fine), _Block(fine, fine))
        self.head = nn.Conv2d(fine, 4, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the distance map."""
        fine = self.down_1(self.stem(image))
        middle = self.down_2(fine)
        coarse = self.down_3(middle)
        coarse = self.up_3(torch.cat([_doubled(self.down_4(coarse)), coarse], dim=1))
        middle = self.up_2(torch.cat([_doubled(coarse), middle], dim=1))
        fine = self.up_1(torch.cat([_doubled(middle), fine], dim=1))
        return F.pixel_shuffle(self.head(fine), 2)


def _stage(channels: int, out: int) -> nn.Sequential:
    """Return the blocks that lead to the next coarser level."""
    return nn.Sequential(_Block(channels, out, stride=2), _Block(out, out), _Block(out, out))


def _doubled(x: torch.Tensor) -> torch.Tensor:
    """Repeat every pixel twice along both axes."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class PatchClassifier(nn.Module):
    """CNN-2 of the paper with pools that stride: (n, 1, 64, 64) in, (n,) out, the log-odds of a particle."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for out, kernel, pool in ((16, 11, 4), (16, 7, 4), (32, 5, 2), (64, 3, 2)):
            convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
            layers += [convolution, nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(pool)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(channels, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return log-odds."""
        out: torch.Tensor = self.head(self.features(patches).flatten(1))
        return out[:, 0]


class QuickPatchClassifier(nn.Module):
    """CNN-2 at half the resolution: the same input and output for a third of the cost."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for out, kernel in ((24, 5), (32, 3), (48, 3), (64, 3)):
            layers += [_Block(channels, out, kernel), nn.MaxPool2d(2)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(channels, 96), nn.ReLU(), nn.Linear(96, 1))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return log-odds."""
        out: torch.Tensor = self.head(self.features(F.avg_pool2d(patches, 2)).mean((2, 3)))
        return out[:, 0]


DETECTORS: dict[str, Callable[[], Detector]] = {
    "fcrn": Fcrn,
    "unet": UNet,
    "matched-unet": lambda: UNet(sees=2),
}
CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "patch-cnn": PatchClassifier,
    "quick-patch-cnn": QuickPatchClassifier,
}


def take_over(network: nn.Module, start: nn.Module) -> None:
    """Give a network the weights of one like it that sees as much, or less: what it sees besides counts nothing yet.

    Raises
    ------
    WeightsError
        They are not alike.
    """
    tensors, wanted = start.state_dict(), network.state_dict()
    for name, one in tensors.items():
        more = wanted[name].shape[1] - one.shape[1] if name in wanted and one.dim() == 4 else 0
        if more > 0:
            tensors[name] = F.pad(one, (0, 0, 0, 0, 0, more))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError("one architecture cannot go on from the weights of the other") from error


def build(kinds: dict[str, Callable[[], Network]], name: str, tensors: dict[str, torch.Tensor]) -> Network:
    """Make the network called `name` and give it its weights, not to be trained.

    Raises
    ------
    WeightsError
        Unknown architecture, or tensors that do not fit it.
    """
    if name not in kinds:
        raise WeightsError(f"unknown architecture {name!r}; this version knows {', '.join(kinds)}")
    network = kinds[name]()
    expected = network.state_dict()
    if any(key in expected and one.dtype != expected[key].dtype for key, one in tensors.items()):
        raise WeightsError(f"the tensors of the architecture {name!r} are of another number type")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"the tensors do not fit the architecture {name!r}") from error
    return channels_last(network.eval().requires_grad_(False))


def channels_last(network: Network) -> Network:
    """Put the kernels into the layout that CPU and GPU convolve fastest in."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def fused(network: Network) -> Network:
    """Return a copy whose batch normalisations are part of the convolutions before them: the same, for less."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, _Block):
            module.fuse()
    return channels_last(network.requires_grad_(False))


def usual_tile_px(detector: Detector) -> int:
    """Return the side of tiles that are more tile than halo, and as small as that allows: a CPU's cache likes it."""
    return max(_LEAST_TILE_PX, 8 * detector.halo_px)


class _Span(NamedTuple):
    """What a tile is along one axis: from `first` to `last` it sees, and from `own` to `end` it tells."""

    first: int
    own: int
    end: int
    last: int


def _tiles(length: int, step: int, halo: int) -> Iterator[_Span]:
    """Yield tiles that tell `step` pixels each and see their halo, where there is picture."""
    for own in range(0, length, step):
        end = min(length, own + step)
        yield _Span(max(0, own - halo), own, end, min(length, own + step + halo))


def _windows(length: int, side: int, halo: int) -> Iterator[_Span]:
    """Yield tiles that see `side` pixels each, or all that there is; no halo is needed where the picture ends."""
    own = 0
    while own < length:
        first = max(0, min(own - halo, length - side))
        last = min(length, first + side)
        end = last if last == length else last - halo
        yield _Span(first, own, end, last)
        own = end


def detect_in_tiles(
    detector: Detector, image: torch.Tensor, tile_px: int | None = None, one_shape: bool = False
) -> torch.Tensor:
    """Run a detector over an image (h, w), and over what else it sees of it, tile by tile; any size gives the same map.

    Each tile sees the detector's halo beyond its own pixels, so that where tiles end never reaches the result.
    Without a size they have the usual one. With `one_shape` all of any image run in the same shape, of the tile
    and a halo on every side; a detector that was confined is needed.
    """
    h, w = image.shape
    stride = detector.stride_px
    mode = "reflect" if min(h, w) > BORDER_PX + stride else "replicate"
    border = (BORDER_PX, BORDER_PX + -w % stride, BORDER_PX, BORDER_PX + -h % stride)
    padded = F.pad(layers(image, detector.sees)[None], border, mode=mode)
    height, width = padded.shape[2:]
    out = torch.empty_like(padded[0, 0])
    step, halo = stride * math.ceil((tile_px or usual_tile_px(detector)) / stride), detector.halo_px
    side = step + 2 * halo
    along = [_windows(n, side, halo) if one_shape else _tiles(n, step, halo) for n in (height, width)]
    dtype = next(detector.parameters()).dtype
    for y, x in itertools.product(*along):
        tile = padded[:, :, y.first : y.last, x.first : x.last]
        detector.seen_yx = None
        if one_shape:
            detector.seen_yx, detector.side_px = (y.last - y.first, x.last - x.first), side
            tile = F.pad(tile, (0, side - tile.shape[3], 0, side - tile.shape[2]))
        told = detector(tile.to(dtype).contiguous(memory_format=torch.channels_last))[0, 0]
        out[y.own : y.end, x.own : x.end] = told[
            y.own - y.first : y.end - y.first, x.own - x.first : x.end - x.first
        ]
    return out[BORDER_PX : BORDER_PX + h, BORDER_PX : BORDER_PX + w].contiguous()


def layers(image: torch.Tensor, sees: int) -> torch.Tensor:
    """Return so many layers of an image (h, w): itself, and then under its matched filter, (sees, h, w)."""
    return image[None] if sees == 1 else torch.stack([image, matched(image)])


def patch_centres(yx: npt.NDArray[np.float32] | torch.Tensor, shape_yx: tuple[int, ...]) -> torch.Tensor:
    """Return the pixels inside the image, (n, 2) int64, that are nearest to yx (n, 2)."""
    nearest = torch.as_tensor(yx).round()
    return torch.stack([nearest[:, i].clamp(0, shape_yx[i] - 1) for i in range(2)], dim=1).long()


def patches_at(image: torch.Tensor, yx: torch.Tensor) -> torch.Tensor:
    """Cut (n, 1, 64, 64) out of (h, w) around integer centres yx (n, 2); the edge is reflected."""
    half = PATCH_PX // 2
    mode = "reflect" if min(image.shape) > half else "replicate"
    padded = F.pad(image[None, None], (half,) * 4, mode=mode)[0, 0]
    offsets = torch.arange(PATCH_PX, device=image.device)
    rows = yx[:, 0, None] + offsets  # (n, 64): padding has moved the centre by half a patch
    columns = yx[:, 1, None] + offsets
    return padded[rows[:, :, None], columns[:, None, :]][:, None]
