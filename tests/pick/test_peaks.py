import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from drpwatch.pick.peaks import PeakRule, find_candidates, refine

RAW = PeakRule(smooth_sigma=0, least_height=0.05, least_prominence=0.0, spacing=0.0)
DIAMETER = 5.0  # neighbourhoods of one pixel on either side


def bumps(shape, places, sigma=4.0, heights=None):
    y, x = np.mgrid[: shape[0], : shape[1]]
    heights = heights or [1.0] * len(places)
    return np.max(
        [
            h * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
            for (cy, cx), h in zip(places, heights, strict=True)
        ],
        axis=0,
    ).astype(np.float32)


def find(surface, rule=RAW, diameter=DIAMETER):
    return find_candidates(torch.from_numpy(np.ascontiguousarray(surface)), diameter, rule)


def prominences(surface: np.ndarray) -> dict[tuple[int, int], float]:
    """Exact prominence of every peak, by flooding downwards: when two hills meet, the lower one's is settled."""
    h, w = surface.shape
    order = np.argsort(-surface, axis=None)
    summit = np.full(surface.size, -1)
    found = {}

    def top(i):
        while summit[i] != i:
            summit[i] = summit[summit[i]]
            i = summit[i]
        return i

    for i in order:
        y, x = divmod(int(i), w)
        near = [
            yy * w + xx
            for yy in range(max(0, y - 1), min(h, y + 2))
            for xx in range(max(0, x - 1), min(w, x + 2))
            if summit[yy * w + xx] >= 0
        ]
        summit[i] = i
        hills = sorted({top(n) for n in near}, key=lambda t: -surface.flat[t])
        for hill in hills:
            high, low = sorted((hill, top(i)), key=lambda t: -surface.flat[t])
            if low != i:
                found[divmod(int(low), w)] = float(surface.flat[low] - surface.flat[i])
            summit[low] = high
    found[divmod(int(order[0]), w)] = float(surface.flat[order[0]])
    return found


def test_known_peaks_are_found_highest_first_to_a_fraction_of_a_pixel():
    places = [(20.3, 30.6), (60.0, 15.25), (70.7, 80.5)]
    found = find(bumps((100, 110), places, heights=[0.6, 1.0, 0.8]))
    np.testing.assert_allclose(found.yx, [places[1], places[2], places[0]], atol=0.1)
    np.testing.assert_allclose(found.height, [1.0, 0.8, 0.6], atol=0.02)


def test_no_peaks_on_nothing():
    for surface in (np.zeros((30, 30), np.float32), np.full((30, 30), -1, np.float32)):
        assert find(surface).yx.shape == (0, 2)


def test_a_flat_top_is_one_peak():
    surface = np.zeros((40, 50), np.float32)
    surface[10:14, 20:27] = 1
    surface[30, 40] = 0.5
    found = find(surface)
    assert len(found.yx) == 2
    assert 10 <= found.yx[0, 0] <= 14
    assert 20 <= found.yx[0, 1] <= 27


def test_a_peak_at_the_border_is_kept_here():
    surface = np.zeros((20, 20), np.float32)
    surface[0, 7] = surface[19, 19] = 1
    assert sorted(map(tuple, find(surface).yx)) == [(0, 7), (19, 19)]


def test_prominence_is_that_of_the_flood():
    rule = PeakRule(smooth_sigma=0, least_height=0.05, least_prominence=0, spacing=0)
    ours, exact = [], []
    for seed in range(6):
        surface = gaussian_filter(np.random.default_rng(seed).standard_normal((70, 80)), 3.0)
        surface = (surface / surface.max()).astype(np.float32)
        found = find_candidates(torch.from_numpy(surface), 16.0, rule)  # saddles within 24 px
        flood = prominences(surface)
        for place, value in zip(np.rint(found.yx).astype(int), found.prominence, strict=True):
            (peak,) = [peak for peak in flood if max(abs(np.subtract(peak, place))) <= 1]
            ours.append(value)
            exact.append(min(flood[peak], surface[peak]))
    ours, exact = np.array(ours), np.array(exact)
    # Ways are straight, so they never find a better saddle, but for what lies between their samples.
    assert (ours >= exact - 0.05).all()
    for h in (0.1, 0.3):  # what an h-maxima transform keeps
        assert ((ours >= h) == (exact >= h)).mean() >= 0.85


def test_a_shoulder_is_no_candidate_of_its_own():
    surface = bumps((60, 60), [(30, 25), (30, 36)], heights=[1.0, 0.9])
    both = PeakRule(smooth_sigma=0, least_height=0.1, least_prominence=0.01, spacing=0)
    one = PeakRule(smooth_sigma=0, least_height=0.1, least_prominence=0.6, spacing=0)
    assert len(find(surface, both, 12.0).yx) == 2
    np.testing.assert_allclose(find(surface, one, 12.0).yx, [[30, 25]], atol=0.1)


def test_no_two_candidates_are_closer_than_the_spacing():
    surface = gaussian_filter(np.random.default_rng(4).standard_normal((200, 200)), 2).astype(np.float32)
    surface /= surface.max()
    rule = PeakRule(smooth_sigma=0, least_height=0.05, least_prominence=0, spacing=0.75)
    found = find(surface, rule, 16.0)
    distance = np.hypot(*(found.yx[:, None] - found.yx[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    assert distance.min() >= 12
    everything = find(surface, PeakRule(0, 0.05, 0, 0), 16.0)
    left_out = [place for place in everything.yx if np.hypot(*(found.yx - place).T).min() > 12]
    assert left_out == []  # nothing is dropped without a reason


def test_the_same_map_gives_the_same_candidates_in_the_same_order():
    surface = np.zeros((60, 60), np.float32)
    surface[5::10, 5::10] = 1  # ties
    one, other = find(surface), find(surface)
    np.testing.assert_array_equal(one.yx, other.yx)
    assert [tuple(place) for place in one.yx] == sorted(tuple(place) for place in one.yx)


@pytest.mark.parametrize(
    "turn", [lambda a: np.rot90(a), lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.T]
)
def test_turning_and_mirroring_the_map_turns_the_peaks(turn):
    surface = gaussian_filter(np.random.default_rng(5).standard_normal((90, 70)), 3).astype(np.float32)
    surface /= surface.max()
    rule = PeakRule(smooth_sigma=0.1, least_height=0.1, least_prominence=0.05, spacing=0.5)
    y, x = np.mgrid[:90, :70].astype(np.float32)
    found, turned = find(surface, rule, 16.0), find(turn(surface), rule, 16.0)
    assert len(found.yx) == len(turned.yx) > 10
    back = np.rint(turned.yx).astype(int).T
    original = np.stack([turn(y)[tuple(back)], turn(x)[tuple(back)]], axis=1)
    for place in found.yx:
        assert np.hypot(*(original - place).T).min() <= 1


def test_heights_can_be_shares_of_the_maximum():
    surface = 7 * bumps((60, 60), [(20, 20), (40, 40)], heights=[1.0, 0.5])
    found = find(surface, PeakRule(0, 0.3, 0, 0, of_maximum=True))
    np.testing.assert_allclose(found.height, [1.0, 0.5], atol=0.01)
    assert len(find(surface, PeakRule(0, 0.6, 0, 0, of_maximum=True)).yx) == 1


def test_refining_a_parabola_is_exact():
    y, x = np.mgrid[:9, :9]
    surface = (10 - (y - 4.3) ** 2 - 2 * (x - 3.8) ** 2).astype(np.float32)
    np.testing.assert_allclose(
        refine(torch.from_numpy(surface), torch.tensor([[4, 4]])), [[4.3, 3.8]], atol=1e-5
    )
