"""Square windows spread over an image."""

from __future__ import annotations

import torch


def windows(pixels: torch.Tensor, size_px: int, counts_yx: tuple[int, int]) -> torch.Tensor:
    """Return (n, size, size) windows of (H, W): so many along each axis, spread evenly from end to end."""
    tops, lefts = (
        _starts(length, size_px, count) for length, count in zip(pixels.shape, counts_yx, strict=True)
    )
    return torch.stack([pixels[top : top + size_px, left : left + size_px] for top in tops for left in lefts])


def _starts(length: int, size_px: int, count: int) -> list[int]:
    """Return where windows begin along one axis."""
    return [round(place * (length - size_px) / max(1, count - 1)) for place in range(count)]
