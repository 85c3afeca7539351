import numpy as np
import pytest
import torch

from drpwatch.errors import UsageError
from drpwatch.pick.networks import DETECTORS, Fcrn, PatchClassifier
from drpwatch.train.dataset import Example
from drpwatch.train.fit import Fit, FitState, Mixture, Schedule, classifier_loss, detector_loss
from drpwatch.train.judge import Judged, Patches, clear_patches, log_odds
from tests.train.making import candidates, easy_example


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [easy_example(seed) for seed in (0, 1)]


def detector_fit(kind: str = "fcrn", steps: int = 6, averaging: float = 0.0) -> Fit:
    torch.manual_seed(0)
    return Fit(DETECTORS[kind](), Schedule(steps, 2, 1e-3, crop_px=48, averaging=averaging), seed=0)


def test_the_loss_falls(examples):
    torch.manual_seed(0)
    fit = Fit(Fcrn(), Schedule(30, 4, 3e-3, crop_px=64), seed=0)
    loss = detector_loss(Mixture(examples))
    losses = [fit.descend(loss) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert fit.done
    detector = fit.finish()
    assert not detector.training
    assert not any(p.requires_grad for p in detector.parameters())


@pytest.mark.parametrize(("kind", "averaging"), [("fcrn", 0.0), ("fcrn", 0.5), ("unet", 0.5)])
def test_a_fit_goes_on_from_its_state_as_if_nothing_had_been(examples, kind, averaging):
    loss = detector_loss(Mixture(examples))
    whole, half = detector_fit(kind, averaging=averaging), detector_fit(kind, averaging=averaging)
    for _ in range(6):
        whole.descend(loss)
    for _ in range(3):
        half.descend(loss)
    state = half.state()
    state = FitState({k: v.clone() for k, v in state.tensors.items()}, state.values)
    again = detector_fit(kind, averaging=averaging)
    torch.rand(5)  # others draw random numbers too
    again.restore(state)
    assert again.step == 3
    for _ in range(3):
        again.descend(loss)
    wanted = whole.finish().state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.finish().state_dict().items())


def test_the_running_mean_is_what_is_used(examples):
    fit = detector_fit(averaging=0.9)
    for _ in range(4):
        fit.descend(detector_loss(Mixture(examples)))
    assert not torch.equal(fit.trained().conv_1.weight, fit.network.conv_1.weight)


def test_own_examples_get_their_share():
    one, other = easy_example(0), easy_example(1)
    own = Example(other.image + 100, other.matched, other.label, other.weight, other.yx_px, other.diameter_px)
    rng = np.random.default_rng(0)

    def share(mixture: Mixture) -> float:
        layers, _, _ = mixture.batch(32, 400, rng)
        return float((layers[:, 0].mean((1, 2)) > 50).float().mean())

    assert share(Mixture([one], [own], 0.25)) == pytest.approx(0.25, abs=0.08)
    assert share(Mixture([one])) == 0
    assert share(Mixture([], [own], 1.0)) == 1


@pytest.fixture(scope="module")
def squares() -> Patches:
    """Patches of which every other one has a dark square in its middle."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((300, 300), dtype=np.float32))
    places = [(y, x) for y in range(20, 300, 25) for x in range(20, 300, 25)]
    label = np.array([i % 2 for i in range(len(places))], np.float32)
    for (y, x), particle in zip(places, label, strict=True):
        if particle:
            image[y - 6 : y + 6, x - 6 : x + 6] -= 4
    example = Example(image, image, image, torch.ones(300, 300), np.array(places, np.float32), 18.0)
    return clear_patches([Judged(example, candidates(places), label)], at_most=len(places))


def test_the_classifier_learns_what_is_easy(squares):
    torch.manual_seed(0)
    fit = Fit(PatchClassifier(), Schedule(25, 32, 3e-3, weight_decay=1e-2), seed=0)
    loss = classifier_loss(squares, None, 0.0)
    while not fit.done:
        fit.descend(loss)
    odds = log_odds(fit.finish(), squares.pixels)
    assert np.median(odds[squares.label == 1]) > np.median(odds[squares.label == 0]) + 1


def test_a_classifier_needs_both_kinds(squares):
    with pytest.raises(UsageError, match="too little to train the classifier on: 144 particles and 0 others"):
        classifier_loss(Patches(squares.pixels, np.ones_like(squares.label)), None, 0.0)
    with pytest.raises(UsageError, match="too little"):
        classifier_loss(squares, Patches(squares.pixels[:2], squares.label[:2]), 0.5)
