"""Files that change, go and move after they were picked, under the real process."""

from __future__ import annotations

import os
import re
from pathlib import Path

from drpwatch.cli.client import Json
from tests.daemon.rig import Rig, write_image
from tests.support import eventually


def detections(rig: Rig) -> int:
    """Return how many micrographs the picker had in its hands."""
    (count,) = re.findall(r'drpwatch_stage_seconds_count\{stage="detect"\} (\d+)', rig.get("/metrics")[1])
    return int(count)


def micrographs(rig: Rig) -> dict[str, Json]:
    view = rig.control.session("s1")
    return {one["name"]: one for one in (*view["newest"], *view["waiting"], *view["ready"])}


def told(rig: Rig, event: str, count: int) -> None:
    eventually(lambda: len(rig.events(event)) == count, 10, f"{count} times {event}: {rig.events(event)}")


def becomes(rig: Rig, name: str, within_s: float = 10, **fields: object) -> None:
    def as_wanted() -> bool:
        one = micrographs(rig).get(name, {})
        return all(one.get(field) == value for field, value in fields.items())

    eventually(as_wanted, within_s, f"{name} {fields}: {micrographs(rig).get(name)}")


def test_a_file_is_picked_again_if_its_pixels_are_others(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    path = rig.watch_dir() / "a.mrc"
    rig.write("a.mrc", 1)
    rig.write("grid/a.mrc", 100)  # the same name in another directory is another micrograph
    rig.picked(2)

    os.utime(path)
    told(rig, "micrograph_only_touched", 1)
    with path.open("ab") as file:
        file.write(bytes(100))  # more than the header promises: the pixels are the same
    told(rig, "micrograph_only_touched", 2)
    becomes(rig, "a.mrc", generation=1, state="picked")
    assert detections(rig) == 2
    rig.check({"a.mrc": 1, "grid/a.mrc": 100})

    write_image(path, 2)  # in place
    becomes(rig, "a.mrc", generation=2, state="picked")
    rig.check({"a.mrc": 2, "grid/a.mrc": 100})

    times_ns = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    write_image(beside := rig.watch_dir() / ".a.mrc.Xy12Zw", 3)
    os.utime(beside, ns=times_ns)  # as `rsync --times` does: nothing but the inode tells
    beside.rename(path)
    becomes(rig, "a.mrc", generation=3, state="picked")
    rig.check({"a.mrc": 3, "grid/a.mrc": 100})
    assert detections(rig) == 4

    whole = path.read_bytes()
    os.truncate(path, 5000)
    becomes(rig, "a.mrc", generation=4, state="waiting", reason="have 5000 of 13312 bytes")
    rig.check({"a.mrc": 3, "grid/a.mrc": 100})  # until there is something better
    path.write_bytes(whole)
    told(rig, "micrograph_only_touched", 3)
    becomes(rig, "a.mrc", generation=3, state="picked")
    assert detections(rig) == 4

    os.truncate(path, 1024)
    os.truncate(path, len(whole))  # allocated anew, and not filled: zeros but for the header
    with path.open("r+b") as file:
        file.seek(1024)
        file.write(whole[1024:4096])
    becomes(rig, "a.mrc", state="waiting", reason="the last row is all zeros: the file is still being filled")
    rig.check({"a.mrc": 3, "grid/a.mrc": 100})
    write_image(path, 4)
    becomes(rig, "a.mrc", state="picked", generation=4)
    rig.check({"a.mrc": 4, "grid/a.mrc": 100})
    assert detections(rig) == 5


def test_what_was_picked_of_a_file_stays_when_it_goes(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    for number in range(3):
        rig.write(f"{number}.mrc", number)
    rig.picked(3)
    (rig.watch_dir() / "0.mrc").unlink()
    becomes(rig, "0.mrc", source_missing=True, state="picked")
    assert rig.control.session("s1")["sources_missing"] == 1
    assert rig.control.ask("s1", "repick", {"which": "recorded", "glob": "0.mrc"})["missing"] == 1
    rig.kill()
    rig.start()
    becomes(rig, "0.mrc", source_missing=True, state="picked")
    rig.check({"0.mrc": 0, "1.mrc": 1, "2.mrc": 2})

    # Gone between the wish to pick it again and the reading of it.
    rig.control.change("s1", "pause")
    assert rig.control.ask("s1", "repick", {"which": "recorded", "glob": "1.mrc"})["count"] == 1
    becomes(rig, "1.mrc", state="ready", generation=2)
    (rig.watch_dir() / "1.mrc").unlink()
    rig.control.change("s1", "resume")
    becomes(rig, "1.mrc", state="picked", generation=1, source_missing=True)
    rig.control.change("s1", "stop")
    eventually(lambda: rig.control.session("s1")["state"] == "completed", 20, "completed")
    rig.check({"0.mrc": 0, "1.mrc": 1, "2.mrc": 2})
    rig.control.change("s1", "reopen")
    rig.write("0.mrc", 0)
    becomes(rig, "0.mrc", source_missing=False, state="picked")
    rig.write("1.mrc", 7)
    becomes(rig, "1.mrc", source_missing=False, state="picked", generation=2)
    rig.check({"0.mrc": 0, "1.mrc": 7, "2.mrc": 2})


def test_a_file_that_moves_is_picked_once_and_its_rows_have_the_new_name(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    for number in range(4):
        rig.write(f"grid 1/{number}.mrc", number)
    rig.picked(4)
    root = rig.watch_dir()
    (root / "grid 1").rename(root / "grid 2")
    rows = {f"grid 2/{number}.mrc": number for number in range(4)}
    eventually(lambda: set(micrographs(rig)) == set(rows), 10, f"moved: {set(micrographs(rig))}")
    rig.check(rows)
    assert detections(rig) == 4
    eventually(lambda: not list((rig.out_dir() / "grid 1").glob("*")), 10, "no file of the old names")

    (root / "grid 2/0.mrc").rename(root / "0.mrc")
    eventually(lambda: "grid 2/0.mrc" not in micrographs(rig), 10, "moved")
    (root / "0.mrc").rename(root / "grid 2/0.mrc")  # and back
    eventually(lambda: "0.mrc" not in micrographs(rig), 10, "moved back")
    rig.check(rows)
    assert detections(rig) == 4

    # A copy is a micrograph of its own, until the first is gone: then it has moved, across file systems.
    _copy(root / "grid 2/1.mrc", root / "1.mrc")
    rig.picked(5)
    rig.check({**rows, "1.mrc": 1})
    (root / "grid 2/1.mrc").unlink()
    eventually(lambda: "grid 2/1.mrc" not in micrographs(rig), 10, "moved")
    rig.check({**{name: seed for name, seed in rows.items() if seed != 1}, "1.mrc": 1})
    rig.control.ask("s1", "rebuild")
    eventually(lambda: not rig.control.session("s1")["behind"], 10, "rebuilt")
    rig.check({**{name: seed for name, seed in rows.items() if seed != 1}, "1.mrc": 1})


def test_what_motion_correction_leaves_beside_a_micrograph_is_not_picked(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.picked(1)
    for number, name in enumerate(("b_PS.mrc", "b_noDW.mrc", "b_ODD.mrc", "b_EVN.mrc", ".b.mrc.Xy12Zw"), 10):
        write_image(rig.watch_dir() / name, number)
    (rig.watch_dir() / "b.mrc.part").write_bytes((rig.watch_dir() / "b_PS.mrc").read_bytes())
    rig.write("a_DW.mrc", 2)  # later than its sibling, which was picked
    rig.write("b.mrc", 3)
    rig.write("b_DW.mrc", 4)
    eventually(lambda: set(micrographs(rig)) == {"a_DW.mrc", "b_DW.mrc"}, 10, f"{set(micrographs(rig))}")
    becomes(rig, "a_DW.mrc", state="picked")
    becomes(rig, "b_DW.mrc", state="picked")
    rig.check({"a_DW.mrc": 2, "b_DW.mrc": 4})
    assert rig.counts() == {"waiting": 0, "ready": 0, "picked": 2, "failed": 0}
    eventually(lambda: not (rig.out_dir() / "a_autopick.star").exists(), 10, "no file of what is left out")


def _copy(source: Path, target: Path) -> None:
    target.with_name(f".{target.name}").write_bytes(source.read_bytes())
    target.with_name(f".{target.name}").rename(target)
