import math

import pytest
import torch

from drpwatch.pick.field import (
    FIELD_JUDGES,
    Background,
    FieldJudge,
    Panel,
    noise_twin,
)
from drpwatch.pick.networks import build
from drpwatch.pick.signature import SIGNATURE, power_spectrum
from tests.pick.making import discs


def test_a_noise_twin_has_the_spectrum_of_its_field_and_nothing_in_it():
    yx = [(y, x) for y in range(30, 400, 40) for x in range(30, 400, 40)]
    field = torch.from_numpy(discs((420, 410), yx, (20, 20)))
    field = (field - field.mean()) / field.std()
    twin = noise_twin(field)
    assert twin.shape == field.shape
    assert torch.allclose(power_spectrum(twin), power_spectrum(field), atol=0.35)
    assert abs(skewness(field)) > 0.3 > 5 * abs(skewness(twin))
    assert torch.equal(twin, noise_twin(field))  # the same field, the same picks


def skewness(image: torch.Tensor) -> float:
    centred = image - image.mean()
    return float((centred**3).mean() / centred.std() ** 3)


@pytest.mark.parametrize("shape", [(2, 2), (31, 800), (447, 449), (1000, 600)])
def test_a_twin_of_any_size(shape):
    twin = noise_twin(torch.randn(shape))
    assert twin.shape == (min(448, shape[0]), min(448, shape[1]))
    assert torch.isfinite(twin).all()


def test_a_blank_field_has_a_blank_twin():
    assert float(noise_twin(torch.zeros(50, 50)).abs().max()) == 0


@pytest.fixture(params=FIELD_JUDGES)
def judge(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(FIELD_JUDGES, request.param, FIELD_JUDGES[request.param]().state_dict())


def background(twin: torch.Tensor, share: float = 1.0) -> Background:
    return Background(torch.zeros(SIGNATURE), twin, 90_000, round(90_000 * share))


@torch.inference_mode()
def test_a_field_judge_compares_a_candidate_with_its_field_and_with_noise(judge):
    told, twin = torch.rand(9, 3), torch.rand(5, 3)
    odds = judge(told, background(twin))
    assert odds.shape == (9,)
    turned = torch.randperm(9)
    assert torch.allclose(
        judge(told[turned], background(twin)), odds[turned], atol=1e-6
    )  # order tells nothing
    assert not torch.allclose(
        judge(torch.cat([told, told + 1]), background(twin))[:9], odds
    )  # neighbours do,
    assert not torch.allclose(judge(told, background(twin + 1)), odds)  # and so does what noise gives,
    assert not torch.allclose(judge(told, background(twin, 0.5)), odds)  # and on how large an area


def test_a_field_judge_knows_how_crowded_a_field_is():
    judge, noise = FieldJudge(), torch.rand(8, 3)
    few, many = judge.view(9, background(noise)), judge.view(19, background(noise))
    assert torch.allclose(
        many[:2] - few[:2], torch.full((2,), math.log(2))
    )  # for each in noise, for each pixel
    assert torch.equal(many[2:], few[2:])
    assert few[2] == pytest.approx(math.log(320**2))  # less than that no judge has seen
    half = judge.view(9, background(noise, 0.5))  # there is as much in noise on half of the area
    assert half[0] == pytest.approx(math.log(10 / 17))
    assert half[1] == few[1] == pytest.approx(math.log(10 / 90_000))


@torch.inference_mode()
def test_fields_that_are_judged_together_are_judged_as_each_alone(judge):
    one = judge.judges[0] if isinstance(judge, Panel) else judge
    fields = [(torch.rand(n, 3), background(torch.rand(m, 3))) for n, m in ((9, 5), (1, 0), (4, 30))]
    together = one.log_odds_of([one.compare(*field) for field in fields])
    assert torch.allclose(together, torch.cat([one(*field) for field in fields]), atol=1e-6)


@torch.inference_mode()
def test_a_judge_that_pools_knows_more_of_a_field_than_mean_deviation_and_strongest():
    told, field = torch.rand(1, 3), background(torch.rand(5, 3))
    pooling, plain = FieldJudge(), FieldJudge(pools=False)
    compared = pooling.compare(told, field)
    other = compared._replace(noise=compared.noise + 1)  # with the same summary
    assert not torch.allclose(pooling.log_odds_of([other]), pooling.log_odds_of([compared]))
    assert torch.equal(plain.log_odds_of([other]), plain.log_odds_of([compared]))


@torch.inference_mode()
def test_a_panel_says_what_its_judges_say_in_the_mean():
    judges = [FieldJudge() for _ in range(3)]
    told, field = torch.rand(9, 3), background(torch.rand(5, 3))
    said = torch.stack([judge(told, field) for judge in judges])
    assert torch.allclose(Panel(judges)(told, field), said.mean(0), atol=1e-6)
    assert said.std(0).min() > 0


@torch.inference_mode()
@pytest.mark.parametrize(("n", "m"), [(1, 0), (1, 1), (7, 0), (2, 300)])
def test_few_candidates_or_none_in_noise_are_judged_too(judge, n, m):
    odds = judge(torch.rand(n, 3), background(torch.rand(m, 3)))
    assert odds.shape == (n,)
    assert torch.isfinite(odds).all()
