import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from drpwatch.errors import UsageError
from drpwatch.pick import scoring
from drpwatch.pick.field import Background
from drpwatch.pick.signature import SIGNATURE
from drpwatch.pick.weights import find, load_weights
from drpwatch.train.field import Field, FieldStudio, as_tensors, field_loss, from_tensors, untrained
from drpwatch.train.fit import Fit, Schedule
from drpwatch.train.scenes import Studio, make_all


def field(seed: int) -> Field:
    """Return candidates of some heights, half of them particles, or none: which only the noise twin tells."""
    rng = np.random.default_rng(seed)
    empty = seed % 2
    told = rng.random((40, 3)).astype(np.float32)
    label = (told[:, 0] > 0.5) & (not empty)
    twin = rng.random((40, 3)) * (1 if empty else 0.3)
    signature = rng.normal(0, 0.1, SIGNATURE).astype(np.float32)
    return Field(
        torch.from_numpy(told),
        Background(torch.from_numpy(signature), torch.from_numpy(twin.astype(np.float32)), 90_000, 90_000),
        label.astype(np.float32),
        int(label.sum()),
    )


def test_a_field_judge_learns_to_tell_empty_fields():
    fields = [field(seed) for seed in range(40)]
    network = untrained(fields[:30])
    fit = Fit(network, Schedule(300, batch=8, learning_rate=3e-3), seed=0)
    loss = field_loss(fields[:30], network)
    while not fit.done:
        fit.descend(loss)
    judge = fit.finish()
    with torch.inference_mode():
        for one in fields[30:]:
            right = (judge(one.told, one.background).numpy() > 0) == (one.label > 0.5)
            assert right.mean() > 0.8


def test_a_studio_of_fields_looks_at_its_scenes_in_any_process():
    known = load_weights(find("general"))
    plain = Studio((), 1, 5, known.info.preprocessing, true_ice=True)
    studio = FieldStudio(plain, known.detector, known.classifier, known.info.peaks)
    alone, together = (
        make_all(studio, studio.species(), range(8), workers, threading.Event(), lambda done: None)
        for workers in (1, 2)
    )
    assert sum(len(one.told) for one in alone) > 100
    for one, other, kept in zip(alone, together, from_tensors(as_tensors(alone)), strict=True):
        assert_same(one, other)
        assert_same(one, kept)
        assert one.told.shape == (len(one.label), 3)
    judged = alone[0].features(known.field_judge)
    assert judged.shape == (len(alone[0].label), 5)
    np.testing.assert_array_equal(scoring.told(judged), alone[0].told)
    assert judged[:, 4].any()


def assert_same(one: Field, other: Field) -> None:
    assert torch.equal(one.told, other.told)
    assert (one.label == other.label).all()
    assert torch.equal(one.background.signature, other.background.signature)
    assert torch.equal(one.background.twin, other.background.twin)
    sizes = [(f.truths, f.background.pixels, f.background.twin_pixels) for f in (one, other)]
    assert sizes[0] == sizes[1]


def test_fields_without_candidates_are_kept_too():
    full = field(0)
    empty = replace(
        full,
        told=full.told[:0],
        label=full.label[:0],
        background=replace(full.background, twin=full.told[:0]),
    )
    back = from_tensors(as_tensors([empty, full, empty]))
    for one, other in zip([empty, full, empty], back, strict=True):
        assert_same(one, other)


def test_fields_that_are_all_alike_do_not_make_others_unheard_of():
    one = field(0)
    judge = untrained([one, one])
    larger = replace(one.background, pixels=360_000, twin_pixels=360_000)
    with torch.inference_mode():
        assert judge.compare(one.told, larger).whole.abs().max() < 20


def test_it_needs_fields():
    with pytest.raises(UsageError, match="too few scenes"):
        untrained([field(0)])
