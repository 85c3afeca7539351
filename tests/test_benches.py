"""Short runs of the benches, on what is small: that they measure, and tell what they say they tell.

The figures are those of a busy machine, and not looked at beyond their sign.
"""

import json

import pytest
import torch

from drpwatch.pick.picker import Picker
from tests.bench import bench_daemon, bench_growth, bench_pick, bench_rivals, gpu
from tests.bench.scenes import micrograph


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.timeout(300)
def test_the_table_of_a_gpu_is_made_by_the_same_code_without_one(tmp_path, capsys):
    found = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--size", "768x768", "--files", "3", "--repeats", "1"]
    assert gpu.main([*arguments, "--json", str(found), "--dir", str(tmp_path)]) == 0
    result = json.loads(found.read_text())
    assert result["floor"]["bytes"] == 768 * 768 * 4
    assert min(result["floor"]["micrographs_per_s"].values()) > 0
    assert min(result["stages_s"].values()) > 0
    # CPU and device are the same one here, and half of the bits is enough for most picks.
    assert result["precisions"]["float32 on the CPU"]["in_common"] == 1
    assert result["precisions"]["float32"]["in_common"] == 1
    assert result["calls"]["waits"] == result["calls"]["launches"] == 0
    told = capsys.readouterr().out
    assert len([line for line in told.splitlines() if line.startswith("|")]) == len(gpu.rows(result)) + 2


def test_operations_are_counted_and_grow_with_the_image():
    picker = gpu.of_precision("general", torch.device("cpu"), "float32")
    few, many = (gpu.operations(picker, micrograph(1, (side, side)))[0] for side in (1024, 2048))
    assert 2 < many / few < 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(capsys):
    assert gpu.main([]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)


@pytest.mark.timeout(120)
def test_stages_by_kind_and_threads(tmp_path):
    kinds = {"small": ((512, 512), "float16")}
    result = bench_pick.measure(tmp_path, kinds, [1], 1, "general", "cpu")
    for seconds in result["seconds"]["small"].values():
        assert seconds.keys() == set(bench_pick.STAGES)
        assert seconds["alone"] > sum(seconds[stage] for stage in ("prepare", "detect", "choose")) * 0.99


@pytest.mark.timeout(120)
def test_the_daemon_s_throughput(tmp_path):
    result = bench_daemon.measure(tmp_path, 4, (256, 256), "float32", "cpu", 1)
    assert result["seconds_each"] > 0
    assert min(result["picking_seconds_each"].values()) > 0
    assert min(result["beside_seconds_each"].values()) > 0


@pytest.mark.timeout(120)
def test_growth_is_measured_told_and_drawn(tmp_path):
    picker = Picker.load("general", "cpu", 1)
    parts = {
        "pixels": bench_growth.by_size(tmp_path / "size", picker, [256, 512], 1),
        "candidates": bench_growth.by_candidates(tmp_path / "crowd", picker, [2, 20, 10**6], 512, 1),
        "known files": bench_growth.by_known([50, 100], 1),
    }
    assert [row["of"] for row in parts["candidates"]] == [2, 20]  # there are no million
    # A stage may be too quick for four digits, all of them are not.
    assert all(
        min(row.values()) >= 0 and sum(row.values()) > row["of"] for rows in parts.values() for row in rows
    )
    assert bench_growth.grown("pixels", parts["pixels"]).count("\n") == 4
    bench_growth.plot(parts, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().count("known files") == 1


def test_growth_is_a_power():
    rows = [{"of": 10, "a": 1.0, "b": 3.0}, {"of": 100, "a": 10.0, "b": 3.0}]
    assert bench_growth.power(rows, "a") == pytest.approx(1)
    assert bench_growth.power(rows, "b") == 0


def test_rivals_are_compared_by_what_one_more_micrograph_costs(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(bench_rivals.time, "perf_counter", lambda: now)

    def program(start_s, each_s):
        def pick(files, folder):
            nonlocal now
            now += start_s + each_s * len(files)
            return 7 * len(files)

        return pick

    pickers = {bench_rivals.OURS: program(3, 0.5), "other": program(1, 2)}
    found = bench_rivals.measure(tmp_path, [tmp_path] * 5, pickers, 3)
    assert found["other"]["start_s"] == 3
    assert found["other"]["each_more_s"] == 2
    assert found["other"]["start_ratio"] == pytest.approx(3 / 3.5, abs=0.01)
    assert found["other"]["each_more_ratio"] == 4
    assert found["other"]["picks_each"] == 7
