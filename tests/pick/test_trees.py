import subprocess
import sys

import numpy as np
import pytest

from drpwatch.pick.trees import tree_of

# Most points of a branch have a coordinate of 0, and denormal numbers are flushed: scipy's default dies of it.
PICKING = """
import numpy as np, torch
torch.set_flush_denormal(True)
"""
BUILD = (
    PICKING
    + """
from drpwatch.pick.trees import tree_of
points = np.zeros((50, 2))
points[-1] = 1e6
assert tree_of(points).query(points)[0].max() == 0
"""
)
PEAKS = (
    PICKING
    + """
from drpwatch.pick.peaks import PeakRule, find_candidates
distances = torch.zeros(400, 200)
distances[0, ::9] = 1.0
distances[350, 4:190:60] = 1.0
found = find_candidates(distances, 18.0, PeakRule(smooth_sigma=0.0, spacing=0.1))
assert len(found.yx) == 23 + 4, len(found.yx)
"""
)


@pytest.mark.parametrize("program", [BUILD, PEAKS])
def test_points_on_the_first_row_do_not_end_a_process_that_picks(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]


def test_it_finds_what_is_near():
    points = np.random.default_rng(0).uniform(0, 100, (300, 2))
    for place in points[:20]:
        distance = np.hypot(*(points - place).T)
        assert sorted(tree_of(points).query_ball_point(place, 20)) == list(np.flatnonzero(distance <= 20))
