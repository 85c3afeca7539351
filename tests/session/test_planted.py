"""What others may lay into the output directory: nothing is written where their links lead."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from drpwatch.errors import OutputError, StarError
from drpwatch.formats import star
from drpwatch.session import disk
from tests.session.bench import Bench
from tests.session.test_outputs import record

TABLES = ("particles.star", "autopick.star")


@pytest.fixture
def bench(scratch: Path) -> Bench:
    bench = Bench(scratch, pixel_size_angstrom=1.0)
    record(bench, "grid/a.mrc", [0.9, 0.8])
    return bench


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of somebody that the daemon may write."""
    path = tmp_path / "victim"
    path.write_text("precious\n")
    return path


def names(bench: Bench) -> list[str]:
    block = star.read(bench.outputs.directory / "particles.star")["particles"]
    return list(dict.fromkeys(block.column("rlnMicrographName")))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kept", [True, False])
def test_a_link_in_place_of_a_table_is_replaced_by_the_table(bench, victim, table, kept) -> None:
    path = bench.outputs.directory / table
    if kept:
        victim.write_bytes(path.read_bytes())  # as long as the table, so that no length gives it away
    before = victim.read_bytes()
    path.unlink()
    path.symlink_to(victim)
    record(bench, "b.mrc", [0.7])
    assert victim.read_bytes() == before
    assert not path.is_symlink()
    assert names(bench) == ["grid/a.mrc", "b.mrc"]


@pytest.mark.parametrize("table", TABLES)
def test_a_link_laid_at_the_last_moment_is_not_appended_to(bench, victim, table, monkeypatch) -> None:
    path, append = bench.outputs.directory / table, disk.append

    def too_late(target: Path, data: bytes) -> None:
        if target == path:
            path.unlink()
            path.symlink_to(victim)
        append(target, data)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "append", too_late)
        bench.appear("b.mrc", 1)
        ready = bench.take()
        with pytest.raises(OutputError, match=f"{table}: too many levels of symbolic links"):
            bench.record(ready)
    assert victim.read_text() == "precious\n"
    bench.record(ready)
    assert names(bench) == ["grid/a.mrc", "b.mrc"]
    assert not path.is_symlink()


@pytest.mark.parametrize("name", [".particles.star.tmp", ".autopick.star.tmp", "grid/.b_autopick.star.tmp"])
def test_a_link_in_place_of_the_next_version_is_not_written_through(bench, victim, name) -> None:
    (bench.outputs.directory / name).symlink_to(victim)
    record(bench, "grid/b.mrc", [0.7])
    bench.outputs.rebuild()
    assert victim.read_text() == "precious\n"
    assert names(bench) == ["grid/a.mrc", "grid/b.mrc"]


def test_a_link_in_place_of_a_picks_file_is_replaced(bench, victim) -> None:
    path = bench.outputs.directory / "grid/b_autopick.star"
    path.symlink_to(victim)
    record(bench, "grid/b.mrc", [0.7])
    assert victim.read_text() == "precious\n"
    assert not path.is_symlink()


def test_a_link_in_place_of_a_directory_holds_the_session_up_until_it_is_gone(bench, tmp_path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b_autopick.star").write_text("precious\n")
    link = bench.outputs.directory / "linked"
    link.symlink_to(elsewhere)
    bench.appear("linked/deep/b.mrc", 1)
    ready = bench.take()
    with pytest.raises(OutputError, match=r"out/linked: it is a symbolic link; remove it"):
        bench.record(ready)
    assert [path.name for path in elsewhere.iterdir()] == ["b_autopick.star"]
    link.unlink()
    bench.record(ready)
    assert "linked/deep/b.mrc" in names(bench)


def test_the_output_directory_itself_may_be_reached_by_a_link(scratch, tmp_path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (scratch / "out").symlink_to(real)
    bench = Bench(scratch, pixel_size_angstrom=1.0)
    record(bench, "grid/a.mrc", [0.9])
    assert (real / "grid/a_autopick.star").exists()
    assert names(bench) == ["grid/a.mrc"]


@pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL])
def test_a_name_that_the_outputs_disk_refuses_is_a_reason_and_no_stop(bench, code, monkeypatch) -> None:
    real = disk.replace

    def refuse(path: Path, data: bytes) -> None:
        if "b_autopick" in path.name:
            raise OSError(code, os.strerror(code), str(path))
        real(path, data)

    monkeypatch.setattr(disk, "replace", refuse)
    bench.appear("b.mrc", 1)
    ready = bench.take()
    with pytest.raises(StarError, match=r"its picks file cannot have its name here .*; rename it"):
        bench.record(ready)


@pytest.mark.parametrize(
    "name", ["é.mrc", "e\u0301.mrc", "\u0430.mrc", "A.mrc", "é" * 110 + ".mrc", "a b#'.mrc", "日/本.mrc"]
)
def test_look_alikes_have_rows_and_files_of_their_own(bench, name) -> None:
    record(bench, "a.mrc", [0.9])
    record(bench, name, [0.7])
    assert names(bench) == ["grid/a.mrc", "a.mrc", name]
    assert len(list(bench.outputs.directory.rglob("*_autopick.star"))) == 4  # coords_suffix among them


@pytest.mark.parametrize("name", ["m" * 251 + ".mrc", "/".join(["d" * 250] * 20) + "/a.mrc"])
def test_a_failed_micrograph_with_too_long_a_name_holds_nothing_up(bench, name) -> None:
    bench.reject(name)
    bench.reopen()
    record(bench, "b.mrc", [0.7])
    assert names(bench) == ["grid/a.mrc", "b.mrc"]
