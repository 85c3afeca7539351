"""Nothing is lost or doubled when the plug is pulled: files are durable before what relies on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpwatch.session import disk
from tests.session.bench import Bench
from tests.session.faults import Died, faulty_disk
from tests.session.plug import PluggedOs
from tests.session.scenes import first, following, rewritten


@pytest.mark.parametrize(("names_kept", "data_kept"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("scene", [first, following, rewritten])
def test_a_power_cut_at_every_point(
    scene, names_kept: bool, data_kept: bool, scratch: Path, monkeypatch
) -> None:
    at, struck = 0, True
    while struck:
        root = scratch / str(at)
        root.mkdir()
        bench = Bench(root)
        plug = PluggedOs(bench.faults, root / "out")
        monkeypatch.setattr(disk, "os", plug)
        scene(bench)
        ready = bench.take()
        assert ready is not None
        bench.faults.arm(at, "die before")
        try:
            bench.record(ready)
        except Died:
            pass
        struck = bench.faults.struck
        plug.pull(names_kept=names_kept, data_kept=data_kept)
        bench.reopen()
        if not bench.journal.awaits(ready):
            bench.note_recorded(ready)
        bench.drain()
        bench.check_complete()
        bench.check_rebuild()
        bench.close()
        at += 1
    assert at > 10


def test_rows_are_durable_before_they_are_recorded(scratch: Path) -> None:
    """Although a table that lost its end would be written anew from the journal."""
    bench = Bench(scratch)
    following(bench)
    ready = bench.take()
    assert ready is not None
    with faulty_disk(bench.faults):
        bench.faults.arm(10**6, "die before")
        assert bench.outputs.record(bench.outcome(ready), bench.now)
    calls = [call for call in bench.faults.calls if call in ("write", "fsync", "replace", "commit")]
    own_file = ["write", "fsync", "replace", "fsync"]
    tables = ["write", "fsync", "write", "fsync"]
    assert calls == ["fsync", *own_file, *tables, "commit"]  # the first is that of its directory
    bench.close()
