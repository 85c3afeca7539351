"""How many cores a process may use, for control groups of both versions."""

import os
import subprocess
import sys

import pytest
import torch

from drpwatch import cores
from drpwatch.pick import device


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight cores; returns what plants a file of its control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_PROCESS", tmp_path / "self")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")

    def plant(membership: str, **files: str) -> None:
        (tmp_path / "self").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "groups" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return plant


def test_without_control_groups_the_affinity_counts(machine):
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(
    ("content", "usable"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # the second core is busy for half of the time
        ("10000 100000\n", 1),
        ("9000000 100000\n", 8),
        ("nonsense", 8),
    ],
)
def test_the_quota_of_a_unit(machine, content, usable):
    machine(
        "0::/system.slice/drpwatch.service\n", system_dot_slice__drpwatch_dot_service__cpu_dot_max=content
    )
    assert cores.usable_cores() == usable


def test_the_least_quota_of_all_groups_above_counts(machine):
    machine("0::/a/b\n", a__b__cpu_dot_max="600000 100000", a__cpu_dot_max="300000 100000")
    assert cores.usable_cores() == 3


def test_a_container_that_sees_only_its_own_group(machine):
    machine("0::/docker/0123abcd\n", cpu_dot_max="400000 100000")
    assert cores.usable_cores() == 4


def test_control_groups_of_version_1(machine):
    quota = {"cpu_dot_cfs_quota_us": "250000", "cpu_dot_cfs_period_us": "100000"}
    machine(
        "4:memory:/m\n3:cpu,cpuacct:/job\n", **{f"cpu__job__{name}": text for name, text in quota.items()}
    )
    assert cores.usable_cores() == 3


def test_version_1_without_a_quota(machine):
    machine("3:cpu:/job\n", cpu__job__cpu_dot_cfs_quota_us="-1", cpu__job__cpu_dot_cfs_period_us="100000")
    assert cores.usable_cores() == 8


def test_the_picker_takes_no_more_threads_than_that(machine):
    machine("0::/\n", cpu_dot_max="100000 100000")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        device.resolve("cpu")
        assert torch.get_num_threads() == 1
        device.resolve("cpu", threads=3)  # somebody who says how many gets them
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_somebody_says_otherwise(given, found):
    look = (
        "import drpwatch.cli, os, sys; drpwatch.cli.main(['--version']);"
        "sys.exit(f\"{os.environ['OMP_WAIT_POLICY']} {'torch' in sys.modules}\")"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    done = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True)
    assert done.stderr.strip() == f"{found} False"
