"""A damaged journal: the process refuses it, `drpwatch recover` makes another of the STAR files, and it goes on."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.daemon.rig import ROOT, Rig, expected_rows
from tests.support import eventually

N = 20
EMPTY = next(seed for seed in itertools.count(N) if not expected_rows(seed))


def drpwatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drpwatch", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.star")}


def written(rig: Rig) -> None:
    eventually(lambda: not rig.control.session("s1")["behind"], 20, "the files are as the journal says")


def overwrite(journal: Path) -> bytes:
    """Damage the page at which the micrographs begin."""
    database = sqlite3.connect(journal)
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'micrograph'").fetchone()
    database.close()
    content = bytearray(journal.read_bytes())
    content[4096 * (page - 1) : 4096 * page] = b"\x0d" * 4096
    journal.write_bytes(content)
    return bytes(content)


def test_a_damaged_journal_is_made_anew_from_the_star_files(rig: Rig) -> None:
    journal = rig.root / "state/journal.db"
    rig.start()
    rig.start_session()
    seeds = {f"grid {n % 3}/mic_{n}.mrc": n for n in range(N - 1)} | {"grid 1/empty.mrc": EMPTY}
    for name, seed in seeds.items():
        rig.write(name, seed)
    rig.picked(N)
    assert drpwatch("recover", "--config", str(rig.config)).returncode == 1  # another daemon uses it
    assert rig.stop() == 0
    before = files(rig.out_dir())
    damaged = overwrite(journal)

    rig.start(wait=False)
    rig.ends(1)
    last = rig.log.read_text().splitlines()[-1]
    assert f"journal {journal}: damaged (" in last
    assert f"'drpwatch recover --config {rig.config}' makes a new one" in last
    assert journal.read_bytes() == damaged

    changed, deleted = "grid 0/mic_0.mrc", "grid 1/mic_1.mrc"
    seeds[changed] = 1000
    rig.write(changed, 1000)
    done = drpwatch("recover", "--config", str(rig.config))
    assert done.returncode == 0, done.stderr
    assert f"session s1: {N} micrographs with " in done.stdout
    assert "1 of them are newer than their picks" in done.stdout
    kept = done.stdout.partition("the damaged journal is kept as ")[2].strip()
    assert Path(kept).read_bytes() == damaged
    (rig.watch_dir() / deleted).unlink()

    rig.start()
    view = rig.control.session("s1")
    assert (view["state"], view["micrographs"]["picked"]) == ("completed", N - 1)
    written(rig)
    assert files(rig.out_dir()) == before
    rig.control.change("s1", "reopen")
    seeds["new.mrc"] = 77
    rig.write("new.mrc", 77)
    rig.picked(N + 1)
    written(rig)
    rig.check(seeds)
    again = [event["micrograph"] for event in rig.events("micrograph_picked")][N:]
    assert sorted(again) == [changed, "new.mrc"]
    assert rig.control.session("s1")["outdated"] == N - 1  # with which weights they were picked is not known
    rig.control.ask("s1", "repick", {"which": "outdated", "glob": "grid 2/*"})
    of_grid = len([name for name in seeds if name.startswith("grid 2/")])
    eventually(
        lambda: rig.control.session("s1")["outdated"] == N - 1 - of_grid, 10, "now it is known of some"
    )
    written(rig)
    rig.check(seeds)
