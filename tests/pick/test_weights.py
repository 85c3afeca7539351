import hashlib
import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from drpwatch.errors import WeightsError
from drpwatch.pick.networks import Fcrn
from drpwatch.pick.weights import _MOST_BYTES, find, load_weights, read_info, save_weights, shipped


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


class TestHostile:
    """Weights from anywhere: a file either loads as what it says, or is refused in one sentence."""

    def refusal(self, model, tmp_path, values, tensors=None) -> str:
        path = rewritten(model, tmp_path, {"drpwatch": json.dumps(values)}, tensors)
        with pytest.raises(WeightsError, match=r"other\.safetensors: ") as caught:
            load_weights(path)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
        return str(caught.value)

    @pytest.mark.parametrize(
        ("part", "key", "value"),
        [
            ("preprocessing", "working_diameter_px", 1e9),
            ("preprocessing", "working_diameter_px", 0),
            ("preprocessing", "working_diameter_px", "18"),
            ("preprocessing", "illumination_sigma_px", float("nan")),
            ("preprocessing", "smooth_sigma_px", 10**400),
            ("preprocessing", "kind", "evil"),
            ("preprocessing", "kind", ["robust"]),
            ("peaks", "smooth_sigma", 1e6),
            ("peaks", "spacing", -1),
            ("peaks", "of_maximum", 1),
            ("peaks", "border", None),
            ("calibration", "offset", float("inf")),
            ("calibration", "field", True),
        ],
    )
    def test_numbers_that_would_cost_memory_or_mean_nothing(self, model, tmp_path, part, key, value):
        values = description(model)
        values[part][key] = value
        assert "the drpwatch metadata has" in self.refusal(model, tmp_path, values)

    @pytest.mark.parametrize(
        "change",
        [
            {"threshold": 1.5},
            {"threshold": None},
            {"name": 3},
            {"name": {"\x1b[2J": 1}},
            {"detector": ["fcrn"]},
            {"detector": "\x1b[2J"},
            {"classifier": 5},
            {"provenance": "x"},
            {"preprocessing": []},
            {"peaks": "x" * 10_000},
            {"calibration": {"\x1b": 1}},
            {"__class__": "x"},
        ],
    )
    def test_descriptions_of_another_kind(self, model, tmp_path, change):
        self.refusal(model, tmp_path, description(model) | change)

    @pytest.mark.parametrize("values", [[], None, 3, "x", {}])
    def test_metadata_that_is_no_description(self, model, tmp_path, values):
        self.refusal(model, tmp_path, values)

    def test_metadata_without_end(self, model, tmp_path):
        for text in ("[" * 100_000, json.dumps(description(model) | {"licence": "x" * (2 << 20)})):
            with pytest.raises(WeightsError, match="metadata"):
                load_weights(rewritten(model, tmp_path, {"drpwatch": text}))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
    def test_tensors_of_another_type(self, model, tmp_path, dtype):
        tensors = load_file(model)
        tensors["detector.conv_3.weight"] = tensors["detector.conv_3.weight"].to(dtype)
        assert "number type" in self.refusal(model, tmp_path, description(model), tensors)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_tensors_that_hold_no_numbers(self, model, tmp_path, value):
        tensors = load_file(model)
        tensors["detector.conv_3.weight"][0, 0, 0, 0] = value
        assert "not finite" in self.refusal(model, tmp_path, description(model), tensors)

    @pytest.mark.parametrize("shape", [(0,), (1,), (1024, 1024)])
    def test_tensors_of_another_shape(self, model, tmp_path, shape):
        tensors = load_file(model) | {"detector.conv_3.weight": torch.zeros(shape)}
        assert "do not fit" in self.refusal(model, tmp_path, description(model), tensors)

    @pytest.mark.parametrize("name", ["classifier.a", "x", "detector", "\x1b[2J", "field_judge.a"])
    def test_tensors_that_nobody_asked_for(self, model, tmp_path, name):
        tensors = load_file(model) | {name: torch.zeros(3)}
        self.refusal(model, tmp_path, description(model), tensors)

    def test_a_file_larger_than_weights_are(self, tmp_path):
        path = tmp_path / "large.safetensors"
        path.touch()
        os.truncate(path, _MOST_BYTES + 1)
        with pytest.raises(WeightsError, match="larger than any weights file"):
            load_weights(path)

    @pytest.mark.parametrize("length", [0, 1 << 20, (1 << 63) + 5, (1 << 64) - 1])
    def test_a_header_as_long_as_it_likes(self, tmp_path, length):
        path = tmp_path / "long.safetensors"
        path.write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(100))
        with pytest.raises(WeightsError, match="not a safetensors file"):
            load_weights(path)

    def test_nothing_is_unpickled(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        for name, write in (
            ("a.pt", lambda path: torch.save({"detector": Evil()}, path)),
            ("a.safetensors", lambda path: path.write_bytes(pickle.dumps(Evil()))),
        ):
            path = tmp_path / name
            write(path)
            with pytest.raises(WeightsError, match="not a safetensors file"):
                load_weights(path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "model_name", ["x" * 5000, "~nobody-has-this-name/w", "a\0b", "/dev/null", "/proc", ""]
    )
    def test_names_that_are_no_files(self, model_name):
        with pytest.raises(WeightsError, match="no such file"):
            find(model_name)
