import hashlib
import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from drpwatch.errors import WeightsError
from drpwatch.pick.networks import Fcrn
from drpwatch.pick.weights import find, load_weights, read_info, save_weights, shipped


def test_a_round_trip_keeps_everything(model_with_classifier, tmp_path):
    weights = load_weights(model_with_classifier)
    copy = tmp_path / "sub" / "copy.safetensors"
    save_weights(copy, weights.info, weights.detector, weights.classifier)
    again = load_weights(copy)
    assert again.info == weights.info == read_info(copy)
    for one, other in ((weights.detector, again.detector), (weights.classifier, again.classifier)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert not any(p.requires_grad for p in again.detector.parameters())
    assert not again.classifier.training


def test_the_sha256_is_that_of_the_file(model):
    assert load_weights(model).sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


def test_shipped_weights_are_found_by_name_and_load():
    assert "general" in shipped()
    for name, path in shipped().items():
        assert find(name) == path
        weights = load_weights(path)
        assert weights.info.licence == "BSD-3-Clause"
        assert 0 < weights.info.threshold < 1
        assert path.stat().st_size < 10_000_000


def test_a_path_is_found(model):
    assert find(str(model)) == model


def test_what_is_not_there_is_told_with_what_is(tmp_path):
    with pytest.raises(WeightsError, match=r"model 'nonsense': no such file, and not one of .*general"):
        find("nonsense")


def test_other_kinds_of_files_are_refused(tmp_path):
    junk = tmp_path / "junk.safetensors"
    for content in (b"", b"short", b"\xff" * 100, b"{}" * 50, os.urandom(4000)):
        junk.write_bytes(content)
        with pytest.raises(WeightsError, match=r"junk.safetensors: not a safetensors file"):
            load_weights(junk)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(tmp_path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_truncated_file_is_refused(model, tmp_path, share):
    cut = tmp_path / "cut.safetensors"
    content = model.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        load_weights(cut)


def rewritten(model, tmp_path, metadata, tensors=None):
    path = tmp_path / "other.safetensors"
    save_file(tensors or load_file(model), path, metadata=metadata)
    return path


def description(model) -> dict:
    content = model.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["drpwatch"])


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"drpwatch": "{not json"}])
def test_weights_of_other_programs_are_refused(model, tmp_path, metadata):
    with pytest.raises(WeightsError, match="these are not drpwatch weights"):
        load_weights(rewritten(model, tmp_path, metadata))


def test_another_format_is_refused(model, tmp_path):
    values = description(model) | {"format": 99}
    with pytest.raises(WeightsError, match="written by another version of drpwatch; this one reads format 1"):
        load_weights(rewritten(model, tmp_path, {"drpwatch": json.dumps(values)}))


@pytest.mark.parametrize("key", ["preprocessing", "threshold", "detector"])
def test_incomplete_metadata_is_refused(model, tmp_path, key):
    values = {k: v for k, v in description(model).items() if k != key}
    with pytest.raises(WeightsError, match="the drpwatch metadata is incomplete"):
        load_weights(rewritten(model, tmp_path, {"drpwatch": json.dumps(values)}))


def test_a_missing_tensor_is_refused(model, tmp_path):
    tensors = load_file(model)
    del tensors["detector.conv_3.weight"]
    with pytest.raises(
        WeightsError, match=r"other.safetensors: the tensors do not fit the architecture 'fcrn'"
    ):
        load_weights(rewritten(model, tmp_path, {"drpwatch": json.dumps(description(model))}, tensors))


def test_an_unknown_network_is_refused(model, tmp_path):
    info = replace(read_info(model), detector="resnet")
    path = tmp_path / "resnet.safetensors"
    save_weights(path, info, Fcrn(), None)
    with pytest.raises(WeightsError, match=r"resnet.safetensors: unknown architecture 'resnet'"):
        load_weights(path)
