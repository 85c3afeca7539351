"""The two networks of the cascade: the FCRN, which regresses a distance map, and the classifier of patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from drpwatch.errors import WeightsError

PATCH_PX = 64  # side of the classifier's input, in working pixels
HALO_PX = 16  # at least half of any detector's receptive field


class Fcrn(nn.Module):
    """CNN-1 of the paper: (n, 1, h, w) in, (n, 1, h, w) out, receptive field 25 px; bumps where particles are."""

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


DETECTORS: dict[str, Callable[[], nn.Module]] = {"fcrn": Fcrn}
CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {"patch-cnn": PatchClassifier}


def build(
    kinds: dict[str, Callable[[], nn.Module]], name: str, tensors: dict[str, torch.Tensor]
) -> nn.Module:
    """Make the network called `name` and give it its weights, ready to infer.

    Raises
    ------
    WeightsError
        Unknown architecture, or tensors that do not fit it.
    """
    if name not in kinds:
        raise WeightsError(f"unknown architecture {name!r}; this version knows {', '.join(kinds)}")
    network = kinds[name]()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"the tensors do not fit the architecture {name!r}") from error
    return channels_last(network.eval().requires_grad_(False))


def channels_last(network: nn.Module) -> nn.Module:
    """Put the kernels into the layout that CPU and GPU convolve fastest in."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def detect_in_tiles(detector: nn.Module, image: torch.Tensor, tile_px: int = 256) -> torch.Tensor:
    """Run a detector over (h, w) tile by tile; any tile size gives the same map.

    Each tile sees `HALO_PX` beyond its own pixels, so that the networks' zero padding never reaches the result.
    """
    h, w = image.shape
    mode = "reflect" if min(h, w) > HALO_PX else "replicate"
    padded = F.pad(image[None, None], (HALO_PX,) * 4, mode=mode)
    out = torch.empty_like(image)
    for top in range(0, h, tile_px):
        for left in range(0, w, tile_px):
            rows, columns = min(tile_px, h - top), min(tile_px, w - left)
            tile = padded[:, :, top : top + rows + 2 * HALO_PX, left : left + columns + 2 * HALO_PX]
            seen = detector(tile.contiguous(memory_format=torch.channels_last))
            out[top : top + rows, left : left + columns] = seen[0, 0, HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
    return out


def patch_centres(yx: npt.NDArray[np.float32], shape_yx: tuple[int, ...]) -> torch.Tensor:
    """Return the pixels inside the image, (n, 2) int64, that are nearest to yx (n, 2)."""
    return torch.from_numpy(np.clip(np.round(yx), 0, np.array(shape_yx) - 1).astype(np.int64))


def patches_at(image: torch.Tensor, yx: torch.Tensor) -> torch.Tensor:
    """Cut (n, 1, 64, 64) out of (h, w) around integer centres yx (n, 2); the edge is reflected."""
    half = PATCH_PX // 2
    mode = "reflect" if min(image.shape) > half else "replicate"
    padded = F.pad(image[None, None], (half,) * 4, mode=mode)[0, 0]
    offsets = torch.arange(PATCH_PX, device=image.device)
    rows = yx[:, 0, None] + offsets  # (n, 64): padding has moved the centre by half a patch
    columns = yx[:, 1, None] + offsets
    return padded[rows[:, :, None], columns[:, None, :]][:, None]
