"""Each bad file ends with its reason, and its neighbours are picked."""

import os
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from drpwatch.cli import main
from drpwatch.errors import DrpwatchError, SessionError, UsageError
from drpwatch.formats import mrc
from tests.daemon.rig import Rig, write_image
from tests.daemon.rule import SHAPE
from tests.support import eventually


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    write_image(path, 1)
    os.truncate(path, 5000)


def header_only(path: Path) -> None:
    write_image(path, 1)
    os.truncate(path, 1024)


def random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(5).bytes(20_000))


def directory(path: Path) -> None:
    path.mkdir()


def unreadable(path: Path) -> None:
    write_image(path, 1)
    path.chmod(0)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def symlink_loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere.mrc")


def stack(path: Path) -> None:
    with mrcfile.new(path) as file:
        file.set_data(np.ones((3, 20, 20), np.float32))


def nan_pixels(path: Path) -> None:
    write_image(path, 1)
    with path.open("r+b") as file:
        file.seek(1024)
        file.write(np.full(SHAPE, np.nan, np.float32).tobytes())


def constant(path: Path) -> None:
    mrc.write_mrc(path, np.full((40, 50), 7, np.float32), 1.5)


def movie(path: Path) -> None:
    path.write_bytes(b"II*\0" + bytes(3000))


def other_pixel_size(path: Path) -> None:
    write_image(path, 1, pixel_size_angstrom=3.0)


BAD = {
    empty: ("waiting", "have 0 of 1024 bytes"),
    truncated: ("waiting", "have 5000 of 13312 bytes"),
    header_only: ("waiting", "have 1024 of 13312 bytes"),
    random_bytes: ("failed", "not an MRC file"),
    directory: ("waiting", "not a regular file but a directory"),
    unreadable: ("waiting", "permission denied"),
    fifo: ("waiting", "not a regular file but a FIFO"),
    symlink_loop: ("waiting", "symbolic links"),
    dangling: ("waiting", "no such file"),
    stack: ("failed", "a stack of 3 images"),
    nan_pixels: ("failed", "no pixel is finite"),
    constant: ("failed", "the image is blank"),
    movie: ("failed", "a TIFF or EER file"),
    other_pixel_size: ("failed", "its pixel size is 3 Å, that of the session's other micrographs 1.5 Å"),
}


# Root may read everything, unless the right to it is dropped; other users have none to drop.
AS_ONE_OF_MANY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.getuid() == 0 else ()


@pytest.mark.skipif(bool(AS_ONE_OF_MANY) and shutil.which("setpriv") is None, reason="root, and no setpriv")
def test_bad_files_have_their_reason_and_neighbours_are_picked(rig: Rig) -> None:
    rig.start(before=AS_ONE_OF_MANY)
    rig.start_session()
    rig.write("good_0.mrc", 1)
    rig.picked(1)
    for make in BAD:
        make(rig.watch_dir() / f"{make.__name__}.mrc")
    for name in ("line\nbreak.mrc", "coords_suffix.mrc", "two  blanks.mrc"):
        write_image(rig.watch_dir() / name, 3)
    rig.write("a good one.mrc", 2)
    rig.picked(2)

    def told() -> dict[str, tuple[str, str]]:
        view = rig.control.session("s1")
        return {m["name"]: (m["state"], m["reason"]) for m in (*view["waiting"], *view["failed"])}

    for make, (state, reason) in BAD.items():
        name = f"{make.__name__}.mrc"
        eventually(lambda n=name, s=state: told().get(n, ("", ""))[0] == s, 10, f"{name} {state}: {told()}")
        assert reason.lower() in told()[name][1].lower()
    for name in ("line\nbreak.mrc", "coords_suffix.mrc", "two  blanks.mrc"):
        assert told()[name][0] == "failed"
        assert "rename the file" in told()[name][1]
    rig.check({"good_0.mrc": 1, "a good one.mrc": 2})
    assert rig.get("/readyz")[0] == 200


def test_names_that_mean_harm_stay_names(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Of files and directories, links among them: in the outputs, the answers, the log and on a terminal."""
    rig.start()
    rig.start_session()
    mics = rig.watch_dir()
    long = "l" * (255 - len("_autopick.star") - len("..tmp")) + ".mrc"
    odd = {"e\u0301.mrc": 1, "é.mrc": 2, "it's #1.mrc": 3, long: 4, "$(reboot);.mrc": 5}
    for name, seed in odd.items():
        rig.write(name, seed)
    outside = rig.root / "outside"
    outside.mkdir()
    write_image(outside / "linked.mrc", 6)
    (mics / "out").symlink_to(outside)
    (mics / "round").symlink_to(mics)
    refused = [
        "\x1b[2J\x1b]0;x\x07.mrc",
        "\u202ecrm.mrc\u2028.mrc",
        "m" * 251 + ".mrc",
        "particles.star/a.mrc",
    ]
    for name in refused:
        (mics / name).parent.mkdir(exist_ok=True)
        write_image(mics / name, 7)
    with open(os.fsencode(mics) + b"/no text \xff\xfe.mrc", "wb") as file:
        file.write(b"x")
    rig.picked(6)
    failed = eventually(
        lambda: (found := rig.control.session("s1")["failed"]) and len(found) == 4 and found,
        10,
        "four failed",
    )
    assert {one["name"] for one in failed} == set(refused)
    assert all("rename" in one["reason"] and one["reason"].isprintable() for one in failed)
    [problem] = rig.control.session("s1")["problems"]
    assert r"'no text \udcff\udcfe.mrc': the name is not valid UTF-8" in problem
    assert main(["session", "show", "s1", "--socket", str(rig.socket)]) == 0
    for shown in (capsys.readouterr().out, rig.log.read_text()):
        assert not {one for one in shown if not one.isprintable()} - {"\n"}
    assert sorted(outside.iterdir()) == [outside / "linked.mrc"]
    rig.check(odd | {"out/linked.mrc": 6})


def test_a_truncated_file_is_picked_when_it_is_whole_after_all(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    truncated(rig.watch_dir() / "a.mrc")
    eventually(lambda: rig.counts()["waiting"] == 1, 5, "waiting")
    rig.write("a.mrc", 1)
    rig.picked(1)
    assert rig.counts() == {"waiting": 0, "ready": 0, "picked": 1, "failed": 0}


def test_no_pixel_size_is_refused_at_the_start(rig: Rig) -> None:
    rig.start()
    rig.watch_dir().mkdir(parents=True)
    rig.write("a.mrc", 1, pixel_size_angstrom=0.0)
    with pytest.raises(
        UsageError, match=r"a\.mrc: the header gives no pixel size: give --pixel-size-angstrom"
    ):
        rig.start_session()
    rig.start_session(pixel_size_angstrom=1.2)
    rig.picked(1)


def test_no_pixel_size_is_refused_at_the_file(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1, pixel_size_angstrom=0.0)
    failed = eventually(lambda: rig.control.session("s1")["failed"], 5, "failed")
    assert "gives no pixel size" in failed[0]["reason"]


def test_a_session_that_makes_no_sense_is_refused(rig: Rig) -> None:
    rig.start()
    (rig.root / "file").write_text("")
    rig.start_session("taken")
    for fields, sentence in (
        ({"name": "../up"}, "session name"),
        ({"name": "x", "watch_root": "relative"}, "absolute path"),
        ({"name": "x", "watch_root": str(rig.root / "file")}, "is not a directory"),
        ({"name": "x", "glob": "/etc/*"}, "glob"),
        ({"name": "x", "glob": "*"}, "must end in the file type"),
        ({"name": "x", "out_dir": str(rig.root / "file")}, "cannot be written"),
        ({"name": "x", "out_dir": str(rig.root / "a  b")}, "blanks"),
        ({"name": "x", "diameter_angstrom": -1.0}, "diameter"),
        ({"name": "x", "model": "nonsense"}, "no such file"),
        ({"name": "x", "micrograph_prefix": "a\nb"}, "micrograph prefix"),
    ):
        body = {"watch_root": str(rig.watch_dir("taken")), "diameter_angstrom": 150.0, **fields}
        with pytest.raises(DrpwatchError, match=sentence):
            rig.control.start(body)
    with pytest.raises(SessionError, match="taken exists already"):
        rig.start_session("taken")
    with pytest.raises(SessionError, match="is the output directory of session taken"):
        rig.start_session("other", out_dir=str(rig.out_dir("taken")))
    assert [view["name"] for view in rig.control.sessions()] == ["taken"]


def test_a_stopped_session_gives_up_on_what_stays_incomplete(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    truncated(rig.watch_dir() / "a.mrc")
    rig.write("b.mrc", 2)
    rig.control.change("s1", "stop")
    eventually(lambda: rig.control.session("s1")["state"] == "completed", 20, "completed")
    view = rig.control.session("s1")
    assert view["micrographs"] == {"waiting": 0, "ready": 0, "picked": 1, "failed": 1}
    assert view["failed"][0]["reason"] == ("not whole when the session was stopped: have 5000 of 13312 bytes")
    rig.write("a.mrc", 1)
    rig.control.change("s1", "reopen")
    rig.picked(2)
    rig.check({"a.mrc": 1, "b.mrc": 2})
