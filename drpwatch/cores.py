"""How many CPU cores this process may keep busy, by affinity and control groups, and how it shares them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def share_cores() -> None:
    """Have PyTorch's threads sleep while they wait for each other; of use only before PyTorch is imported.

    Else they spin, and where other programs want the cores, too, that delays the very thread that they wait for:
    under a load of ten, two threads took three to ten times as long as one. `OMP_WAIT_POLICY` overrules.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    More threads than that only wait for each other: a container or a unit with `CPUQuota=` sees all cores of the
    machine, and is stopped in the middle of its work once its share of a tenth of a second is used up.
    """
    quota = min(_quotas(_PROCESS, _GROUPS), default=math.inf)
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, math.ceil(quota) if math.isfinite(quota) else cores))


def _quotas(process: Path, groups: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of a process's control groups and of those above them."""
    for controllers, below in _memberships(process):
        root = groups / "cpu" if controllers else groups
        # In a container the path is often that of the host, and only what is mounted at the top is there.
        for group in {PurePosixPath("/"), *PurePosixPath(below).parents, PurePosixPath(below)}:
            quota = _quota(root / str(group).lstrip("/"))
            if quota is not None:
                yield quota


def _memberships(process: Path) -> Iterator[tuple[str, str]]:
    """Yield the controllers of version 1, "" for version 2, and the path, of each group that a process is in."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            yield controllers, path


def _quota(group: Path) -> float | None:
    """Return the quota of one control group in cores, None if it has none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = (
                (group / name).read_text().strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number, too
        return None
    return cores if cores > 0 else None
