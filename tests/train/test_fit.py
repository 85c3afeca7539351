import numpy as np
import pytest
import torch

from drpwatch.errors import UsageError
from drpwatch.pick.networks import Fcrn, PatchClassifier
from drpwatch.pick.peaks import Candidates, PeakRule
from drpwatch.pick.weights import load_weights
from drpwatch.train.dataset import Example, distance_map
from drpwatch.train.fit import (
    Judged,
    Schedule,
    calibrate,
    features,
    judge,
    label_by_confidence,
    label_by_truth,
    train_classifier,
    train_detector,
)
from drpwatch.train.recipe import Recipe, cook


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Two scenes in which particles are easy to see."""
    made = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        yx = np.array([(y, x) for y in range(15, 150, 25) for x in range(15, 150, 25)], np.float32)
        yx += rng.uniform(-5, 5, yx.shape).astype(np.float32)
        label = torch.from_numpy(distance_map(yx, (150, 150), 6.0))
        noise = torch.from_numpy(rng.standard_normal((150, 150), dtype=np.float32))
        made.append(Example(noise - 6 * label, label, torch.ones(150, 150), yx, 18.0))
    return made


def blank_example(yx, shape=(100, 100), weight=None) -> Example:
    image = torch.zeros(shape)
    return Example(
        image,
        image,
        torch.ones(shape) if weight is None else weight,
        np.array(yx, np.float32).reshape(-1, 2),
        20.0,
    )


def candidates(yx, height=None) -> Candidates:
    yx = np.array(yx, np.float32).reshape(-1, 2)
    height = (
        np.linspace(1, 0.5, len(yx), dtype=np.float32) if height is None else np.array(height, np.float32)
    )
    return Candidates(yx, height, height / 2)


def test_the_loss_falls(examples):
    torch.manual_seed(0)
    losses: list[float] = []
    detector = Fcrn()
    schedule = Schedule(30, 4, 3e-3, crop_px=64)
    rng = np.random.default_rng(0)
    train_detector(detector, examples, schedule, rng, lambda _, loss: losses.append(loss))
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert not detector.training
    assert not any(p.requires_grad for p in detector.parameters())


def test_the_same_seeds_train_the_same_detector(examples):
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        detector = Fcrn()
        train_detector(
            detector, examples, Schedule(3, 2, 1e-3, 48), np.random.default_rng(0), lambda *_: None
        )
        trained.append(detector.state_dict())
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


def test_truth_labels_are_one_to_one():
    example = blank_example([(20, 20), (60, 60)])
    found = candidates([(22, 20), (18, 20), (60, 68), (60, 69.5), (90, 90)])
    label = label_by_truth(found, example)
    assert label[0] == 1  # the highest takes the centre
    assert np.isnan(label[1])  # a second one on the same particle is unclear
    assert np.isnan(label[2])  # between a third and half a diameter: unclear
    assert np.isnan(label[3])
    assert label[4] == 0
    assert label_by_truth(candidates([]), example).shape == (0,)
    assert (label_by_truth(found, blank_example([])) == 0).all()


def test_nobody_knows_about_padding():
    weight = torch.ones(100, 100)
    weight[:, :30] = 0
    label = label_by_truth(candidates([(50, 10), (50, 50)]), blank_example([(50, 10)], weight=weight))
    assert np.isnan(label[0])
    assert label[1] == 0


def test_confidence_labels_leave_the_middle_open():
    label = label_by_confidence(
        candidates([(i, i) for i in range(5)], [0.9, 0.7, 0.3, 0.2, 0.05]), PeakRule()
    )
    assert label[0] == 1
    assert np.isnan(label[2])
    assert label[4] == 0


def test_judging_finds_what_the_label_says(examples):
    class Dark(torch.nn.Module):
        """Answers with the darkness of the image, which here is six times the label."""

        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(-1 / 6))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * self.factor

    (judged,) = judge(Dark(), examples[:1], PeakRule(smooth_sigma=0.15, least_height=0.3))
    assert (judged.label == 1).sum() == len(examples[0].yx_px)
    assert (judged.label == 0).sum() <= 2
    (sure,) = judge(Dark(), examples[:1], PeakRule(smooth_sigma=0.15, least_height=0.3), "confidence")
    assert 0 < (sure.label == 1).sum() < len(examples[0].yx_px)


def judged_at_random(n: int, seed: int) -> Judged:
    """Candidates whose chance to be a particle grows with their height."""
    rng = np.random.default_rng(seed)
    height = np.sort(rng.uniform(0.05, 1, n).astype(np.float32))[::-1]
    label = (rng.random(n) < 1 / (1 + np.exp(-10 * (height - 0.5)))).astype(np.float32)
    yx = rng.uniform(5, 95, (n, 2)).astype(np.float32)
    return Judged(blank_example(yx[label == 1]), Candidates(yx, height, height), label)


def test_calibration_gives_probabilities_and_a_threshold():
    judged = [judged_at_random(400, seed) for seed in range(4)]
    calibration, threshold, f = calibrate(None, judged)
    assert 0.2 < threshold < 0.7
    assert 0.75 < f < 1
    x = np.concatenate([features(None, one) for one in judged])
    label = np.concatenate([one.label for one in judged])
    weights = np.array(
        [calibration.offset, calibration.height, calibration.log_prominence, calibration.classifier]
    )
    score = 1 / (1 + np.exp(-(x @ weights)))
    for low in (0.0, 0.25, 0.5, 0.75):
        part = (score >= low) & (score < low + 0.25)
        assert label[part].mean() == pytest.approx(score[part].mean(), abs=0.08)
    assert calibration.classifier == 0


def test_calibration_of_one_kind_is_refused():
    one = judged_at_random(20, 0)
    with pytest.raises(UsageError, match="all candidates are of one kind"):
        calibrate(None, [Judged(one.example, one.found, np.ones(20, np.float32))])


def test_the_classifier_learns_what_is_easy():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((300, 300), dtype=np.float32))
    places = [(y, x) for y in range(20, 300, 25) for x in range(20, 300, 25)]
    label = np.array([i % 2 for i in range(len(places))], np.float32)
    for (y, x), particle in zip(places, label, strict=True):
        if particle:
            image[y - 6 : y + 6, x - 6 : x + 6] -= 4
    example = Example(image, image, torch.ones(300, 300), np.array(places, np.float32), 18.0)
    found = candidates(places)
    torch.manual_seed(0)
    classifier = PatchClassifier()
    judged = [Judged(example, found, label)]
    train_classifier(classifier, judged, Schedule(25, 32, 3e-3), rng, lambda *_: None)
    odds = features(classifier, judged[0])[:, 3]
    assert np.median(odds[label == 1]) > np.median(odds[label == 0]) + 1
    with pytest.raises(UsageError, match="too little to train the classifier on"):
        train_classifier(
            classifier,
            [Judged(example, found, np.ones_like(label))],
            Schedule(1, 4, 1e-3),
            rng,
            lambda *_: None,
        )


def test_a_recipe_ends_in_a_weights_file(tmp_path, monkeypatch):
    monkeypatch.setattr("drpwatch.train.recipe._INVENTED", 1)
    monkeypatch.setattr("drpwatch.train.dataset.SCENE_PX", 200)
    stages: dict[str, int] = {}
    recipe = Recipe(
        name="tiny",
        seed=2,
        scenes=6,
        steps=3,
        classifier_steps=2,
        calibration_scenes=3,
        peaks=PeakRule(least_height=-1.0, least_prominence=-1.0),  # so little training finds hardly a peak
    )
    path = tmp_path / "tiny.safetensors"

    def report(stage: str, done: int, total: int, loss: float) -> None:
        stages[stage] = done
        assert done <= total

    info = cook(recipe, [], "cpu", {"command": "test"}, path, report)
    assert stages == {"scenes": 6, "detector": 3, "classifier": 2, "calibration": 3}
    assert load_weights(path).info == info
    assert info.provenance["command"] == "test"
    assert info.provenance["recipe"]["seed"] == 2
    assert 0 <= info.threshold <= 1
