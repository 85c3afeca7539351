import threading

import pytest
import torch

from drpwatch.pick.preprocess import Preprocessing
from drpwatch.train.scenes import Studio, make_all

STUDIO = Studio((), 2, 5, Preprocessing())


def scenes(workers: int, numbers=range(8), stop=None, progress=lambda done: None):
    stop = stop or threading.Event()
    return make_all(STUDIO, STUDIO.species(), numbers, workers, stop, progress)


def test_the_number_of_processes_changes_nothing():
    done: list[int] = []
    alone, together = scenes(1), scenes(2, progress=done.append)
    assert done == list(range(1, 9))
    for one, other in zip(alone, together, strict=True):
        assert one.image.dtype == other.image.dtype == torch.float16
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.label, other.label)
        assert torch.equal(one.weight, other.weight)
        assert (one.yx_px == other.yx_px).all()
        assert one.diameter_px == other.diameter_px


def test_a_scene_takes_little_memory():
    (one,) = scenes(1, range(1))
    layers = (one.image, one.label, one.weight)
    assert sum(layer.numel() * layer.element_size() for layer in layers) < 0.65e6


def test_somebody_asks_to_stop():
    stop = threading.Event()
    done: list[int] = []

    def progress(count: int) -> None:
        done.append(count)
        stop.set()

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        scenes(1, stop=stop, progress=progress)
    assert done == [1]
    assert torch.get_num_threads() == threads
