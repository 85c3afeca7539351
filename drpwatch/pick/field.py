"""What a whole field of view says about its candidates: the field judge, and what it is told.

A score of the networks means little by itself: noise of one micrograph looks like weak particles of another. So
the cascade is also shown the field's noise twin, noise of the same power spectrum, in which there is nothing to
find. Whatever it finds there tells what its scores are worth in this field. How the field looks as a whole, its
signature, tells whether there is anything in it at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, cast

import torch
from torch import nn

from drpwatch.pick.signature import SIGNATURE, SPECTRUM_BINS, signature

PANEL = 5
"""Judges of a panel."""
_CROWD = 3  # numbers that tell how crowded a field is
_IMPRESSION = 24  # numbers of what a judge makes of a candidate, and of a field
_KNOWN_PIXELS = 320**2, 640**2  # of the fields that judges learn from: see `drpwatch.train.dataset`
_WITHOUT_FILTER = SIGNATURE - 2  # numbers of a signature before it told of the filtered field
_TWIN_PX = 448  # longest side of a twin: some hundred candidates are enough to compare with
_UNITS = (3.0, 0.33, 0.33)  # bring height, log-prominence and log-odds to about one
_NOTHING = (0.0, -5.0, -5.0)  # the candidate of a twin in which nothing at all was found
_LEAST_DEVIATION = 0.05
_MOST_DEVIATIONS = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A field without its candidates.

    `signature` (28,) is what it looks like as a whole; `twin` (m, 3) is height, log of the prominence and the
    classifier's log-odds of what was found in its noise twin; `pixels` is the field's area at the networks' scale,
    and `twin_pixels` the twin's.
    """

    signature: torch.Tensor
    twin: torch.Tensor
    pixels: int
    twin_pixels: int

    @classmethod
    def of(
        cls,
        picture: torch.Tensor,
        twin_image: torch.Tensor,
        twin: torch.Tensor,
        rings: torch.Tensor | None = None,
    ) -> Self:
        """Return the background of a picture, (h, w), with what was found in its twin's image, (m, 3).

        `rings` are those of the picture, where somebody has them.
        """
        return cls(signature(picture, rings), twin, picture.numel(), twin_image.numel())

    @property
    def share(self) -> float:
        """The twin's area in that of the field."""
        return self.twin_pixels / self.pixels

    def to(self, device: torch.device) -> Background:
        """Return it on a device."""
        return replace(self, signature=self.signature.to(device), twin=self.twin.to(device))


class Compared(NamedTuple):
    """The candidates of one field, compared with each other and with those of its noise twin.

    `candidates` (n, 9) and `noise` (m, 9) are what each of them is, by how many of noise's deviations it stands out,
    and how many more there are that strong than in noise (for a judge that does not pool, m is 0); `whole` (18 + k,)
    is what the field is like, the last k numbers of it how unusual the view of it is.
    """

    candidates: torch.Tensor
    noise: torch.Tensor
    whole: torch.Tensor


class FieldJudge(nn.Module):
    """A network that compares each candidate with the others of its field, and with those of the noise twin.

    In: of each candidate the height, the log of its prominence and the classifier's log-odds, (n, 3), and the
    background, of which it knows the first `known` numbers of the signature and, if it `counts`, how crowded the
    field is. Out: log-odds of a particle, (n,). Neither is noise taken for weak particles then, nor are weak
    particles taken for noise.

    If it `pools`, it has an impression of each candidate, learned as all else, and the mean impression of the field
    and that of its twin tell it more of the field than mean and deviation do (Zaheer et al. 2017, "Deep Sets").
    """

    def __init__(self, known: int = SIGNATURE, *, counts: bool = True, pools: bool = True) -> None:
        super().__init__()
        self._known, self._counts, self._pools = known, counts, pools
        viewed = known + _CROWD * counts
        self.usual_mean = nn.Buffer(torch.zeros(viewed))
        self.usual_deviation = nn.Buffer(torch.ones(viewed))
        whole = 2 * 9 + viewed
        if pools:
            self.impression = _perceptron(9, 32, _IMPRESSION)
            self.field = _perceptron(2 * _IMPRESSION + whole, 48, _IMPRESSION)
            whole = _IMPRESSION
        self.head = nn.Sequential(*_perceptron(9 + whole, 64, 32), nn.Linear(32, 1))

    def forward(self, candidates: torch.Tensor, background: Background) -> torch.Tensor:
        """Return log-odds of the candidates of one field."""
        return self.log_odds_of([self.compare(candidates, background)])

    def log_odds_of(self, fields: Sequence[Compared]) -> torch.Tensor:
        """Return log-odds of the candidates of all fields, one field after the other."""
        whole = torch.stack([field.whole for field in fields])
        if self._pools:
            told = self._mean_impression([field.candidates for field in fields])
            noise = self._mean_impression([field.noise for field in fields])
            whole = self.field(torch.cat([told, noise, whole], dim=1))
        candidates = torch.cat([field.candidates for field in fields])
        whole_of_each = torch.cat(
            [one.expand(len(field.candidates), -1) for one, field in zip(whole, fields, strict=True)]
        )
        out: torch.Tensor = self.head(torch.cat([candidates, whole_of_each], dim=1))
        return out[:, 0]

    def view(self, count: int, background: Background) -> torch.Tensor:
        """Return what it knows of a field as a whole, in which there are so many candidates, (k,)."""
        known = background.signature[: self._known]
        return torch.cat([known.new_tensor(_crowd(count, background)), known]) if self._counts else known

    def compare(self, candidates: torch.Tensor, background: Background) -> Compared:
        """Hold candidates against their field and its twin."""
        twin = background.twin if len(background.twin) else candidates.new_tensor([_NOTHING])
        x, noise = candidates * candidates.new_tensor(_UNITS), twin * candidates.new_tensor(_UNITS)
        unusual = (self.view(len(x), background) - self.usual_mean) / self.usual_deviation
        return Compared(
            candidates=_beside(x, x, noise, background.share),
            noise=_beside(noise, x, noise, background.share) if self._pools else noise.new_empty(0, 9),
            whole=torch.cat([*_summary(x), *_summary(noise), unusual]),
        )

    def _mean_impression(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Return the mean impression of the candidates of each field, (f, 24)."""
        impressions = torch.split(self.impression(torch.cat(parts)), [len(part) for part in parts])
        return torch.stack([each.mean(0) for each in impressions])


class Panel(nn.Module):
    """Field judges that differ by chance alone; the panel says what they say in the mean.

    In fields unlike any that it learned from, one judge errs far, and each in its own way.
    """

    def __init__(self, judges: Sequence[FieldJudge] = ()) -> None:
        super().__init__()
        self.judges = nn.ModuleList(judges or [FieldJudge() for _ in range(PANEL)])

    def forward(self, candidates: torch.Tensor, background: Background) -> torch.Tensor:
        """Return log-odds of the candidates of one field."""
        judges = cast("list[FieldJudge]", list(self.judges))
        compared = [judges[0].compare(candidates, background)]  # all know the same signatures
        return torch.stack([judge.log_odds_of(compared) for judge in judges]).mean(0)


def _panel(known: int, *, counts: bool = False) -> Panel:
    """Return a panel as it was when signatures had so many numbers, and nobody had impressions."""
    return Panel([FieldJudge(known, counts=counts, pools=False) for _ in range(PANEL)])


FIELD_JUDGES: dict[str, Callable[[], nn.Module]] = {
    "noise-twin": lambda: FieldJudge(SPECTRUM_BINS, counts=False, pools=False),
    "noise-twin-panel": lambda: _panel(SPECTRUM_BINS),
    "signature-panel": lambda: _panel(_WITHOUT_FILTER),
    "matched-panel": lambda: _panel(SIGNATURE),
    "counting-panel": lambda: _panel(SIGNATURE, counts=True),
    "pooling-panel": Panel,
}


def _perceptron(inputs: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, out), nn.ReLU())


def _crowd(count: int, background: Background) -> list[float]:
    """Return logs of how many candidates there are for each in noise, and for each pixel; and of the pixels."""
    noise, pixels = len(background.twin) / background.share, background.pixels
    least, most = _KNOWN_PIXELS
    return [
        math.log((count + 1) / (noise + 1)),
        math.log((count + 1) / pixels),
        math.log(min(max(pixels, least), most)),
    ]


def _summary(x: torch.Tensor) -> list[torch.Tensor]:
    """Return what is usual among (n, 3): mean, deviation, and the value that one in ten exceeds."""
    return [x.mean(0), x.std(0, correction=0), torch.quantile(x, 0.9, dim=0)]


def _beside(told: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, share: float) -> torch.Tensor:
    """Return candidates told (l, 3), and how they stand among those of the field (n, 3) and of noise (m, 3), (l, 9)."""
    deviations = (told - noise.mean(0)) / noise.std(0, correction=0).clamp_min(_LEAST_DEVIATION)
    limited = deviations.clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS) / 3
    excess = torch.stack([_excess(told[:, i], x[:, i], noise[:, i], share) for i in range(3)], dim=1)
    return torch.cat([told, limited, excess], dim=1)


def _excess(told: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, share: float) -> torch.Tensor:
    """Return, for each of told (l,), the log of how many of x (n,) are that strong, as a multiple of noise's.

    `noise` is (m,), found on that share of the field's area. Its inverse is the false discovery rate, were all
    that is not a particle like noise.
    """
    return (_as_strong(told, x) + 1).log() - (_as_strong(told, noise) / share + 1).log()


def _as_strong(x: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return how many of the others, (m,), are at least x, (n,)."""
    weaker = torch.searchsorted(others.sort().values, x.contiguous())
    return (len(others) - weaker).to(x.dtype)


def twin_shape(shape_yx: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of the noise twin of an image."""
    return min(shape_yx[0], _TWIN_PX), min(shape_yx[1], _TWIN_PX)


def twin_phases(shape_yx: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return the Fourier transform of white noise, always the same one, for twins of a shape."""
    noise = torch.randn(shape_yx, generator=torch.Generator().manual_seed(0))
    phases: torch.Tensor = torch.fft.rfft2(noise.to(device))
    return phases


def noise_twin(image: torch.Tensor, phases: torch.Tensor | None = None) -> torch.Tensor:
    """Return Gaussian noise with the power spectrum of an image's middle, at most 448 px along each side.

    The phases of the Fourier transform are replaced by those of white noise: `twin_phases`, to be kept by whoever
    makes many twins.
    """
    h, w = twin_shape(image.shape)
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    amplitude = torch.fft.rfft2(image[top : top + h, left : left + w]).abs()
    if phases is None:
        phases = twin_phases((h, w), image.device)
    twin: torch.Tensor = torch.fft.irfft2(amplitude * phases / phases.abs().clamp_min(1e-12), s=(h, w))
    return twin
