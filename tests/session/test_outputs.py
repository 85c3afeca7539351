import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from drpwatch.errors import OutputError
from drpwatch.formats import star
from drpwatch.micrograph import Fingerprint, ImageHeader, Outcome, Picks
from drpwatch.session import disk
from drpwatch.session.outputs import unwritable
from drpwatch.session.records import MicrographState
from drpwatch.session.tables import picks_name
from tests.session.bench import HEADER, Bench


def picks(scores: list[float], threshold: float = 0.5) -> Picks:
    yx = np.array([[10.25 * n, 20.5 * n] for n in range(1, len(scores) + 1)], np.float32).reshape(-1, 2)
    return Picks(yx, np.array(scores, np.float32), threshold, "f" * 64)


def record(bench: Bench, name: str, scores: list[float], threshold: float = 0.5, version: int = 1) -> None:
    bench.appear(name, version)
    ready = bench.take()
    assert ready is not None
    assert bench.outputs.record(Outcome(ready, picks(scores, threshold)), bench.now)
    bench.outputs.complete()


def test_the_files_of_a_session(scratch: Path) -> None:
    bench = Bench(scratch, pixel_size_angstrom=0.9)
    record(bench, "grid/a.mrc", [0.9, 0.75, 0.25])
    particles = star.read(scratch / "out/particles.star")
    assert particles["optics"].column("rlnMicrographPixelSize") == ["0.900000"]
    assert [row[:4] for row in particles["particles"].rows] == [
        ("20.500", "10.250", "0.900000", "grid/a.mrc"),
        ("41.000", "20.500", "0.750000", "grid/a.mrc"),
    ]
    listed = star.read(scratch / "out/autopick.star")["coordinate_files"].rows
    assert listed == (("grid/a.mrc", f"{scratch}/out/grid/a_autopick.star"),)
    assert len(star.read(scratch / "out/grid/a_autopick.star")[""].rows) == 2
    assert (scratch / "out/coords_suffix_autopick.star").read_text() == f"{scratch}/out/autopick.star\n"
    for path in bench.outputs.files[:2]:
        gemmi.cif.read(str(path))


def test_candidates_below_the_threshold_are_kept_but_not_written(scratch: Path) -> None:
    bench = Bench(scratch)
    third = float(np.float32(1 / 3))
    record(bench, "a.mrc", [0.9, third, 0.3], threshold=1 / 3)  # the score is the threshold, in float32
    (published,) = bench.journal.published(bench.session.id)
    np.testing.assert_array_equal(published.score, np.float32([0.9, third]))
    (row,) = bench.journal._all("SELECT n_picks, n_candidates, yx_score FROM micrograph JOIN candidates", ())
    assert (row["n_picks"], row["n_candidates"], len(row["yx_score"])) == (2, 3, 36)


def test_a_micrograph_rewritten_as_junk_leaves_nothing(scratch: Path) -> None:
    bench = Bench(scratch)
    record(bench, "grid/a.mrc", [0.9])
    record(bench, "b.mrc", [0.9])
    bench.reject("grid/a.mrc")
    bench.outputs.recover()
    assert not (scratch / "out/grid/a_autopick.star").exists()
    assert star.read(scratch / "out/particles.star")["particles"].column("rlnMicrographName") == ["b.mrc"]
    record(bench, "grid/a.mrc", [0.8], version=2)
    assert (scratch / "out/grid/a_autopick.star").exists()


def test_zero_picks_are_a_result(scratch: Path) -> None:
    bench = Bench(scratch)
    record(bench, "a.mrc", [])
    (block,) = star.read(scratch / "out/a_autopick.star").values()
    assert block.rows == ()
    assert star.read(scratch / "out/autopick.star")["coordinate_files"].rows == ()
    (listed,) = bench.journal.micrographs(bench.session.id, [MicrographState.PICKED])
    assert listed.n_picks == 0
    bench.check_rebuild()


def test_the_first_header_gives_the_pixel_size(scratch: Path) -> None:
    bench = Bench(scratch)
    assert not (scratch / "out/particles.star").exists()
    record(bench, "a.mrc", [0.9])
    optics = star.read(scratch / "out/particles.star")["optics"]
    assert optics.column("rlnMicrographPixelSize") == ["1.500000"]


def test_a_rewritten_micrograph_replaces_its_rows(scratch: Path) -> None:
    bench = Bench(scratch)
    record(bench, "a.mrc", [0.9, 0.8])
    record(bench, "b.mrc", [0.9])
    record(bench, "a.mrc", [0.7], version=2)
    names = star.read(scratch / "out/particles.star")["particles"].column("rlnMicrographName")
    assert names == ["b.mrc", "a.mrc"]
    (newest, _) = bench.journal.micrographs(bench.session.id, [MicrographState.PICKED])
    assert (newest.name, newest.generation) == ("a.mrc", 2)
    bench.check_rebuild()


def test_junk_in_place_of_a_micrograph_takes_its_rows_away(scratch: Path) -> None:
    bench = Bench(scratch)
    record(bench, "a.mrc", [0.9])
    record(bench, "b.mrc", [0.9])
    bench.reject("a.mrc")
    bench.outputs.recover()
    names = star.read(scratch / "out/particles.star")["particles"].column("rlnMicrographName")
    assert names == ["b.mrc"]


def test_deleted_outputs_come_back(scratch: Path) -> None:
    bench = Bench(scratch)
    record(bench, "grid/a.mrc", [0.9])
    record(bench, "b.mrc", [])
    before = bench.contents()
    for path in sorted((scratch / "out").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (scratch / "out").rmdir()
    bench.outputs.complete()
    assert bench.contents() == before


def test_outputs_of_an_earlier_time_are_brought_up_to_date(scratch: Path) -> None:
    """Somebody restored a copy, or a disk came back as it had been."""
    bench = Bench(scratch)
    record(bench, "grid/a.mrc", [0.9])
    shutil.copytree(scratch / "out", scratch / "copy")
    record(bench, "b.mrc", [0.9])
    before = bench.contents()
    shutil.rmtree(scratch / "out")
    shutil.copytree(scratch / "copy", scratch / "out")
    bench.outputs.complete()
    assert bench.contents() == before


def test_nothing_is_written_where_the_outputs_were_mounted(scratch: Path, monkeypatch) -> None:
    bench = Bench(scratch)
    record(bench, "a.mrc", [0.9])
    here = disk.device(scratch / "out")
    (scratch / "out").rename(scratch / "mounted")
    (scratch / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "device", lambda _: here + 1)
        with pytest.raises(OutputError, match="seems to be unmounted"):
            bench.outputs.recover()
    assert list((scratch / "out").iterdir()) == []
    bench.outputs.complete()  # on the same file system it was deleted, and is made anew
    assert (scratch / "out/a_autopick.star").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_refuses_leaves_nothing_half(number: int, scratch: Path, monkeypatch) -> None:
    bench = Bench(scratch)
    record(bench, "a.mrc", [0.9])
    before = bench.contents()
    bench.appear("b.mrc", 1)
    ready = bench.take()
    assert ready is not None

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "append", refuse)
        with pytest.raises(OutputError, match=f"session s1: cannot write .*: {os.strerror(number).lower()}"):
            bench.outputs.record(Outcome(ready, picks([0.8])), bench.now)
    assert {name: data for name, data in bench.contents().items() if name != "b_autopick.star"} == before
    assert bench.journal.totals(bench.session.id).ready == 1
    assert bench.outputs.record(Outcome(ready, picks([0.8])), bench.now)
    bench.check_rebuild()


@pytest.mark.parametrize("later", ["shorter", "longer", "emptied"])
@pytest.mark.parametrize("restart", [False, True])
def test_files_of_an_earlier_time_are_written_anew(later: str, restart: bool, scratch: Path) -> None:
    """A disk was away while another one took its place, and is back with what it had then."""
    bench = Bench(scratch, 1.5)
    out, away = scratch / "out", scratch / "away"
    for number in range(6):
        record(bench, f"grid/{number}.mrc", [0.9, 0.8, 0.6, 0.55])
    out.rename(away)
    bench.outputs.complete()
    if later == "longer":
        record(bench, "grid/new.mrc", [0.9, 0.7])
    else:
        bench.rethreshold(0.58 if later == "shorter" else 0.95)
        bench.outputs.complete()
    wanted = bench.contents()
    out.rename(scratch / "other")
    away.rename(out)
    if restart:
        bench.reopen()
    bench.outputs.complete()
    assert bench.contents() == wanted
    bench.check_rebuild()


def test_a_reader_that_sees_a_write_halfway_sees_whole_rows(scratch: Path) -> None:
    """The kernel lengthens a file page by page; a rebuild leaves the same bytes as appending did."""
    bench = Bench(scratch, 1.5)
    for number in range(40):
        record(bench, f"grid {number % 3}/{'mic' * 20}_{number}.mrc", [0.9] * 20)
    for name in ("particles.star", "autopick.star"):
        data = (scratch / "out" / name).read_bytes()
        assert len(data) > star.PAGE_BYTES
        for seen in range(star.PAGE_BYTES, len(data), star.PAGE_BYTES):
            star.read(data[:seen])
    names = star.read(scratch / "out/particles.star")["particles"].column("rlnMicrographName")
    assert len(names) == 40 * 20
    bench.check_rebuild()


def test_names_that_can_have_no_rows() -> None:
    out = Path("/data/out")
    assert unwritable(out, "Micrographs/", "a b.mrc") is None
    for name in ("a\nb.mrc", "a  b.mrc", "coords_suffix.mrc", "x" * 250 + ".mrc", "\x1b.mrc", "\0.mrc"):
        assert "rename the file" in (unwritable(out, "", name) or "")
    for name in ("particles.star/a.mrc", "grid/b_autopick.STAR/a.mrc", "/".join(["d" * 200] * 21) + "/a.mrc"):
        assert "rename" in (unwritable(out, "", name) or "")


def test_each_micrograph_has_a_picks_file_of_its_own() -> None:
    names = ["a.mrc", "a.mrc.gz", "grid/a.mrc", "a.b.mrc"]
    assert len({picks_name(name) for name in names}) == len(names)


def test_a_compressed_header_survives_the_journal(scratch: Path) -> None:
    bench = Bench(scratch)
    header = ImageHeader((4, 5), np.dtype(">i2"), 2048, None, compressed=True)
    bench.journal.note_ready(bench.session.id, "a.mrc.gz", header, Fingerprint(1, 2, 3), bench.now)
    ready = bench.take()
    assert ready is not None
    assert ready.header == header
    assert replace(ready.header, compressed=False) != HEADER


def test_a_moved_threshold_leaves_what_picking_with_it_leaves(scratch: Path) -> None:
    """Byte for byte; also of a micrograph that is being picked when it moves."""
    moved, straight = Bench(make(scratch / "a"), 1.5), Bench(make(scratch / "b"), 1.5)
    straight.set(threshold=0.35)
    for number in range(8):
        for bench in (moved, straight):
            bench.appear(f"grid {number % 2}/{number}.mrc", number)
            if number < 5:
                bench.drain()
    in_flight = moved.take()
    assert in_flight is not None
    moved.rethreshold(0.35)
    assert moved.record(in_flight)
    moved.drain()
    straight.drain()
    text = {name: data.replace(b"/a/out", b"/b/out") for name, data in moved.contents().items()}
    assert text == straight.contents()
    moved.check_complete()
    assert moved.journal.count_outdated(1) == 0


def test_a_threshold_that_moves_while_rows_are_written_moves_these_too(scratch: Path) -> None:
    bench = Bench(scratch, 1.5)
    bench.appear("a.mrc", 1)
    bench.drain()
    bench.appear("b.mrc", 2)
    ready = bench.take()
    assert ready is not None
    real = disk.append

    def append(path: Path, data: bytes) -> None:
        real(path, data)
        if bench.threshold != 0.05:
            bench.rethreshold(0.05)

    disk.append = append
    try:
        assert bench.record(ready)
    finally:
        disk.append = real
    bench.check_complete()


def test_what_is_picked_again_keeps_its_rows_until_then(scratch: Path) -> None:
    bench = Bench(scratch)
    for name in ("a.mrc", "b.mrc"):
        bench.appear(name, 1)
    bench.drain()
    before = bench.contents()
    bench.set(diameter_angstrom=180.0)
    bench.repick(["a.mrc"])
    bench.outputs.complete()
    assert bench.contents() == before
    assert bench.journal.totals(1).ready == 1
    bench.drain()
    bench.check_complete()
    (newest, older) = bench.journal.micrographs(1, [MicrographState.PICKED])
    assert (newest.name, newest.generation, newest.params_version, newest.outdated) == ("a.mrc", 2, 2, False)
    assert (older.name, older.params_version, older.outdated) == ("b.mrc", 1, True)


def test_a_corrected_pixel_size_is_that_of_the_outputs(scratch: Path) -> None:
    bench = Bench(scratch)
    bench.appear("a.mrc", 1)
    bench.drain()

    def written() -> str:
        bench.outputs.complete()
        (size,) = star.read(scratch / "out/particles.star")["optics"].column("rlnMicrographPixelSize")
        return size

    bench.set(pixel_size_angstrom=1.3)
    assert written() == "1.300000"
    bench.set(pixel_size_angstrom=None)
    assert written() == "1.500000"  # as the header says


def test_a_rebuild_brings_back_what_was_spoilt(scratch: Path) -> None:
    bench = Bench(scratch)
    for number in range(4):
        bench.appear(f"grid/{number}.mrc", number)
    bench.drain()
    before = bench.contents()
    for name, data in before.items():
        (scratch / "out" / name).write_bytes(data[::-1])
    bench.outputs.rebuild()
    assert bench.contents() == before


def make(path: Path) -> Path:
    path.mkdir()
    return path
