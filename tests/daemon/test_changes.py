"""Sessions whose parameters, thresholds and rows change while they live: the real daemon, fake weights."""

from __future__ import annotations

import datetime
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from drpwatch.cli.client import Json
from drpwatch.errors import DrpwatchError, SessionError, UsageError
from drpwatch.formats import star
from drpwatch.micrograph import PickParams
from tests.daemon.fake_picker import SHA256, picks_of
from tests.daemon.rig import Rig, write_image
from tests.daemon.rule import image
from tests.support import eventually


def rows(rig: Rig) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    if not (rig.out_dir() / "particles.star").exists():
        return found
    for x, y, score, name, *_ in star.read(rig.out_dir() / "particles.star")["particles"].rows:
        found.setdefault(name, []).append((x, y, score))
    return found


def expected(seed: int, params: PickParams, weights_sha256: str = SHA256) -> list[tuple[str, ...]]:
    picks = picks_of(image(seed), params, weights_sha256)
    keep = picks.chosen
    return [
        (f"{x:.3f}", f"{y:.3f}", f"{score:.6f}")
        for (y, x), score in zip(picks.yx_px[keep].tolist(), picks.score[keep].tolist(), strict=True)
    ]


def holds(rig: Rig, want: dict[str, list[tuple[str, ...]]]) -> None:
    want = {name: chosen for name, chosen in want.items() if chosen}
    eventually(lambda: rows(rig) == want, 10, "the rows are what was picked")
    eventually(lambda: not rig.control.session("s1")["behind"], 10, "the files of each micrograph follow")
    for name, chosen in want.items():
        (block,) = star.read(rig.out_dir() / name.replace(".mrc", "_autopick.star")).values()
        assert len(block.rows) == len(chosen)


def micrographs(rig: Rig) -> dict[str, Json]:
    return {one["name"]: one for one in rig.control.session("s1")["newest"]}


def contents(rig: Rig) -> dict[str, bytes]:
    out = rig.out_dir()
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.star")}


def test_other_weights_take_effect_for_new_micrographs(rig: Rig, tmp_path: Path) -> None:
    weights = tmp_path / "adapted.safetensors"
    weights.write_bytes(b"first")
    first, second = (hashlib.sha256(text).hexdigest() for text in (b"first", b"second"))
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.picked(1)
    view = rig.control.set("s1", {"model": str(weights)})
    assert (view["params_version"], view["weights_sha256"], view["outdated"]) == (2, first, 1)
    weights.write_bytes(b"second")  # nobody said so: the session keeps what it was given
    rig.write("b.mrc", 2)
    rig.picked(2)
    view = rig.control.set("s1", {"model": str(weights)})
    assert (view["params_version"], view["weights_sha256"], view["outdated"]) == (3, second, 2)
    rig.write("c.mrc", 3)
    rig.picked(3)
    params = PickParams(150.0)
    holds(
        rig,
        {
            "a.mrc": expected(1, params),
            "b.mrc": expected(2, params, first),
            "c.mrc": expected(3, params, second),
        },
    )
    used = {
        name: (one["params_version"], one["weights_sha256"], one["outdated"])
        for name, one in micrographs(rig).items()
    }
    assert used == {"a.mrc": (1, SHA256, True), "b.mrc": (2, first, True), "c.mrc": (3, second, False)}
    assert rig.control.ask("s1", "repick", {"which": "outdated"})["count"] == 2
    holds(
        rig,
        {f"{name}.mrc": expected(seed, params, second) for name, seed in zip("abc", (1, 2, 3), strict=True)},
    )
    assert rig.control.session("s1")["outdated"] == 0


def test_what_is_wrong_is_refused_and_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").write_bytes(b"")
    rig.start()
    rig.start_session()
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "nothing is given to be set"),
        ({"model": "/nowhere"}, "no such file"),
        ({"model": str(tmp_path / "empty.safetensors")}, "not a safetensors file"),
        ({"threshold": 2.0}, "threshold 2.0 is not a probability"),
        ({"diameter_angstrom": None}, "diameter_angstrom: Input should be a valid number"),
        ({"diameter": 100.0}, "diameter: no such field; allowed are diameter_angstrom, pixel_size_angstrom"),
    ]
    for changes, sentence in refused:
        with pytest.raises(DrpwatchError, match=sentence):
            rig.control.set("s1", changes)
    with pytest.raises(UsageError, match=r"threshold 7\.0 is not a probability"):
        rig.control.ask("s1", "rethreshold", {"threshold": 7.0})
    with pytest.raises(UsageError, match="no micrograph that is recorded matches 'x"):
        rig.control.ask("s1", "repick", {"which": "recorded", "glob": "x*"})
    assert rig.control.session("s1")["params_version"] == 1
    rig.control.change("s1", "stop")
    eventually(lambda: rig.control.session("s1")["state"] == "completed", 10, "completed")
    with pytest.raises(SessionError, match="cannot change a session that is completed; reopen it first"):
        rig.control.set("s1", {"threshold": 0.4})
    with pytest.raises(
        SessionError, match="cannot pick again in a session that is completed; reopen it first"
    ):
        rig.control.ask("s1", "repick", {"which": "failed"})


def test_a_waiting_and_a_paused_session_are_changed_too(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    assert rig.control.set("s1", {"diameter_angstrom": 180.0})["state"] == "waiting"
    rig.control.change("s1", "pause")
    rig.write("a.mrc", 1)
    eventually(lambda: rig.counts()["ready"] == 1, 10, "ready")
    view = rig.control.set("s1", {"threshold": 0.2, "expected_end_at": 1_900_000_000.0})
    assert (view["params_version"], view["expected_end_at"]) == (3, 1_900_000_000.0)
    rig.control.change("s1", "resume")
    rig.picked(1)
    holds(rig, {"a.mrc": expected(1, PickParams(180.0, threshold=0.2))})
    rig.control.set("s1", {"threshold": None, "expected_end_at": None})
    view = rig.control.session("s1")
    assert (view["params"]["threshold"], view["expected_end_at"], view["outdated"]) == (None, None, 1)


def test_a_threshold_moves_without_picking_also_after_the_end_and_a_restart(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    for number in range(5):
        rig.write(f"grid {number % 2}/{number}.mrc", number)
        rig.picked(number + 1)
    rig.control.ask("s1", "rethreshold", {"threshold": 0.2})
    rig.write("new.mrc", 9)
    rig.picked(6)
    seeds = {f"grid {number % 2}/{number}.mrc": number for number in range(5)} | {"new.mrc": 9}
    low = PickParams(150.0, threshold=0.2)
    holds(rig, {name: expected(seed, low) for name, seed in seeds.items()})
    assert rig.control.session("s1")["outdated"] == 0
    before = contents(rig)
    rig.control.change("s1", "stop")
    eventually(lambda: rig.control.session("s1")["state"] == "completed", 10, "completed")
    rig.control.ask("s1", "rethreshold", {"threshold": 0.9})
    rig.kill()  # most likely before the files have followed
    rig.start()
    high = PickParams(150.0, threshold=0.9)
    holds(rig, {name: expected(seed, high) for name, seed in seeds.items()})
    rig.control.ask("s1", "rethreshold", {"threshold": 0.2})
    eventually(lambda: not rig.control.session("s1")["behind"], 10, "the files have followed")
    assert contents(rig) == before


def test_files_that_were_spoilt_are_written_anew(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    for number in range(3):
        rig.write(f"{number}.mrc", number)
    rig.picked(3)
    eventually(lambda: not rig.control.session("s1")["behind"], 10, "all is written")
    before = contents(rig)
    for name, data in before.items():
        (rig.out_dir() / name).write_bytes(data[::-1])
    rig.control.ask("s1", "rebuild")
    eventually(lambda: contents(rig) == before, 10, "as before")


def test_what_failed_is_listed_and_tried_again(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.picked(1)
    for name in ("b.mrc", "c.mrc"):
        rig.write(name, 2, pixel_size_angstrom=0.0)  # no pixel size
    eventually(lambda: rig.counts()["failed"] == 2, 10, "both fail")
    failed = rig.control.micrographs("s1", "failed")
    assert {one["name"] for one in failed} == {"b.mrc", "c.mrc"}
    assert all("the header gives no pixel size" in one["reason"] for one in failed)
    rig.control.set("s1", {"pixel_size_angstrom": 1.5})
    assert rig.control.ask("s1", "repick", {"which": "failed", "glob": "b*"})["count"] == 1
    rig.picked(2)
    assert rig.counts() == {"waiting": 0, "ready": 0, "picked": 2, "failed": 1}
    assert rig.control.ask("s1", "repick", {"which": "failed"})["count"] == 1
    rig.picked(3)
    rig.check({"a.mrc": 1, "b.mrc": 2, "c.mrc": 2})


def test_picked_again_are_files_as_they_are_by_then(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.write("b.mrc", 2)
    rig.picked(2)
    rig.control.change("s1", "pause")
    rig.control.set("s1", {"diameter_angstrom": 180.0})
    assert rig.control.ask("s1", "repick", {"which": "recorded", "glob": "*"})["count"] == 2
    write_image(rig.watch_dir() / "a.mrc", 7)
    (rig.watch_dir() / "b.mrc").unlink()
    rig.control.change("s1", "resume")
    old, new = PickParams(150.0), PickParams(180.0)
    holds(rig, {"a.mrc": expected(7, new), "b.mrc": expected(2, old)})  # what is gone keeps its rows


def test_of_what_is_there_at_the_start_only_what_is_wanted_is_picked(rig: Rig) -> None:
    rig.watch_dir().mkdir(parents=True)
    for name, age_s in (("old.mrc", 7200), ("young.mrc", 60)):
        rig.write(name, 1)
        at = time.time() - age_s
        os.utime(rig.watch_dir() / name, (at, at))
    half = rig.watch_dir() / "half.mrc"
    write_image(half, 3)
    os.truncate(half, 5000)
    rig.start()
    since = datetime.datetime.fromtimestamp(time.time() - 3600).astimezone().isoformat()
    for name, backfill in (("new", "new-only"), ("since", f"since={since}")):
        rig.start_session(
            name, watch_root=str(rig.watch_dir()), out_dir=str(rig.out_dir(name)), backfill=backfill
        )
    assert rig.control.session("new")["backfill"] == "new-only"
    rig.write("later.mrc", 2)
    write_image(half, 3)  # it was being written at the start
    rig.picked(2, "new")
    rig.picked(3, "since")

    def names(session: str) -> set[str]:
        return {one["name"] for one in rig.control.session(session)["newest"]}

    rig.kill()
    rig.start()
    rig.write("last.mrc", 4)
    rig.picked(3, "new")
    rig.picked(4, "since")
    assert names("new") == {"half.mrc", "later.mrc", "last.mrc"}
    assert names("since") == {"young.mrc", "half.mrc", "later.mrc", "last.mrc"}
    rig.write("old.mrc", 5)  # written anew, so it is new
    rig.picked(4, "new")
    with pytest.raises(UsageError, match="backfill 'some': give all, new-only, or since=TIME"):
        rig.start_session("third", backfill="some")
