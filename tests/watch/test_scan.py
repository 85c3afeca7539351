"""The scan against real trees."""

import os
from pathlib import Path

import pytest

from drpwatch.errors import IncompleteMicrograph, ScanFailed, UsageError
from drpwatch.watch.scan import NameFilter, filesystem_type, scan, sight
from tests.watch.conftest import best_cpu_s, unprivileged

ALL = NameFilter("**/*.mrc")


def names(root: Path, glob: str = "**/*.mrc") -> set[str]:
    return set(scan(root, NameFilter(glob)).names)


@pytest.mark.parametrize(
    ("glob", "name", "wanted"),
    [
        ("**/*.mrc", "a.mrc", True),
        ("**/*.mrc", "x/y/a.mrc", True),
        ("**/*.mrc", "a.mrc.gz", False),
        ("**/*.mrc", "a.MRC", False),
        ("**/*.[mM][rR][cC]", "a.MRC", True),
        ("*.mrc", "a.mrc", True),
        ("*.mrc", "x/a.mrc", False),
        ("**/*.mrc.gz", "x/a.mrc.gz", True),
        ("grid?/*.mrc", "grid1/a.mrc", True),
        ("grid?/*.mrc", "grid1/x/a.mrc", False),
        ("g*/**/Data/*.mrc", "g1/Data/a.mrc", True),
        ("g*/**/Data/*.mrc", "g1/x/y/Data/a.mrc", True),
        ("g*/**/Data/*.mrc", "Data/a.mrc", False),
        ("x/**", "x/y/a.mrc", True),
        ("x/**", "x/a.mrc", True),
        ("x/**", "y/a.mrc", False),
        ("*[!0-9].mrc", "a1.mrc", False),
        ("*[!0-9].mrc", "ab.mrc", True),
        ("a+(b).mrc", "a+(b).mrc", True),
        ("**/*.mrc", "new\nline.mrc", True),
    ],
)
def test_glob(glob: str, name: str, wanted: bool) -> None:
    assert NameFilter(glob).wants(name) is wanted


@pytest.mark.parametrize(
    "name",
    [
        ".a.mrc", ".a.mrc.Xy12Zq", "~a.mrc", "a.mrc.part", "a.mrc.tmp", "a.mrc.partial", "a.mrc.filepart",
        "a.mrc.crdownload", "a.mrc.downloading", "a.PART", "a_noDW.mrc", "a_PS.mrc", "a_ODD.mrc", "a_EVN.mrc",
        "gain.mrcs", "K3_gain_x1.mrc", "K3_Gain.mrc", "a_noDW.mrc.gz", ".snapshot/a.mrc", "x/.hidden/a.mrc",
        "x.part/a.mrc",
    ],
)  # fmt: skip
def test_never_a_micrograph(name: str) -> None:
    assert not NameFilter("**/*").wants(name)


def test_by_product_asked_for_by_name() -> None:
    assert NameFilter("**/*_noDW.mrc").wants("x/a_noDW.mrc")
    assert not NameFilter("**/*_noDW.mrc").wants("x/.a_noDW.mrc")


@pytest.mark.parametrize(
    ("prefer", "found"),
    [
        ("dose-weighted", {"a_DW.mrc", "b.mrc", "x/c_DW.mrc", "x/a.mrc", "d_DW.mrc.gz", "_DW_e.mrc"}),
        ("plain", {"a.mrc", "b.mrc", "x/c_DW.mrc", "x/a.mrc", "d.mrc.gz", "_DW_e.mrc"}),
        (
            "both",
            {"a.mrc", "a_DW.mrc", "b.mrc", "x/c_DW.mrc", "x/a.mrc", "d.mrc.gz", "d_DW.mrc.gz", "_DW_e.mrc"},
        ),
    ],
)
def test_of_a_plain_and_a_dose_weighted_one_the_preferred_is_taken(root, put, prefer, found) -> None:
    names = ("a.mrc", "a_DW.mrc", "b.mrc", "x/c_DW.mrc", "x/a.mrc", "d.mrc.gz", "d_DW.mrc.gz", "_DW_e.mrc")
    for name in names:
        put(name)
    put("b_DW.mrc.part")
    wanted = NameFilter("**/*.mrc*", prefer)
    assert scan(root, wanted).names == found
    for name in names:  # asked of one alone, it is the same
        assert (wanted.preferred_to(name) in names) == (name not in found)


def test_only_what_the_glob_wants_is_preferred() -> None:
    assert NameFilter("**/*.mrc", "plain").preferred_to("a_DW.mrc") == "a.mrc"
    assert NameFilter("**/*_DW.mrc", "plain").preferred_to("a_DW.mrc") is None
    assert NameFilter("**/*.mrc", "dose-weighted").preferred_to("a.tif") is None


@pytest.mark.parametrize("glob", ["", "/data/*.mrc", "../*.mrc", "a/../*.mrc", "a//b.mrc", "a/"])
def test_bad_glob_is_refused_with_an_example(glob: str) -> None:
    with pytest.raises(UsageError, match=r"like '\*\*/\*\.mrc'"):
        NameFilter(glob)


def test_names_are_relative_and_keep_their_directories(root, put) -> None:
    for name in ["a.mrc", "grid1/a.mrc", "grid2/Data/a.mrc", "grid2/a.txt", ".hidden/a.mrc"]:
        put(name)
    assert names(root) == {"a.mrc", "grid1/a.mrc", "grid2/Data/a.mrc"}
    assert names(root, "*.mrc") == {"a.mrc"}


def test_what_scan_lists_is_what_the_filter_wants(root, put) -> None:
    candidates = ["a.mrc", "x/a.mrc", "x/.b.mrc", "x.tmp/a.mrc", "x/y/c.mrc", "x/c_PS.mrc", "x/c.mrc.part"]
    for name in candidates:
        put(name)
    for glob in ["**/*.mrc", "*.mrc", "x/*", "x/**", "**"]:
        assert names(root, glob) == {name for name in candidates if NameFilter(glob).wants(name)} | {
            # directories carry names too
            name for name in ["x", "x/y"] if NameFilter(glob).wants(name)
        }  # fmt: skip


def test_things_that_only_carry_a_micrographs_name_are_listed(root, put) -> None:
    (root / "dir.mrc").mkdir()
    put("dir.mrc/inside.mrc")
    os.mkfifo(root / "fifo.mrc")
    (root / "loop.mrc").symlink_to("loop.mrc")
    (root / "dangling.mrc").symlink_to("nowhere")
    assert names(root) == {"dir.mrc", "dir.mrc/inside.mrc", "fifo.mrc", "loop.mrc", "dangling.mrc"}


def test_directory_links_are_followed_once_and_loops_end(root, put, tmp_path) -> None:
    put("real/a.mrc")
    put(".kept/b.mrc")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.mrc").touch()
    (outside / "again").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (root / "z_to_kept").symlink_to(".kept")
    (root / "a_to_real").symlink_to("real")
    (root / "real" / "up").symlink_to("..")
    (root / "out").symlink_to(outside)
    (root / "over").symlink_to(root.parent)
    (root / "loop").symlink_to("loop")
    assert names(root) == {"real/a.mrc", "z_to_kept/b.mrc", "out/c.mrc"}


def test_root_may_be_a_link(root, put, tmp_path) -> None:
    put("x/a.mrc")
    (tmp_path / "link").symlink_to(root)
    assert names(tmp_path / "link") == {"x/a.mrc"}


def test_missing_root_fails_with_one_sentence(root) -> None:
    with pytest.raises(
        ScanFailed, match=r"gone: the watch directory cannot be read \(no such file or directory\)"
    ):
        scan(root / "gone", ALL)


def test_root_that_is_a_file_fails(put) -> None:
    with pytest.raises(ScanFailed, match="not a directory"):
        scan(put("a.mrc"), ALL)


def test_unreadable_directory_is_reported_and_the_others_go_on(root, put) -> None:
    put("open/a.mrc")
    put("closed/b.mrc")
    (root / "closed").chmod(0)
    try:
        with unprivileged():
            listing = scan(root, ALL)
    finally:
        (root / "closed").chmod(0o755)
    assert listing.names == {"open/a.mrc"}
    assert listing.unreadable == {"closed": "permission denied"}
    assert listing.hides("closed/b.mrc")
    assert not listing.hides("closed2/b.mrc")


def test_name_that_no_text_can_hold_is_refused_by_name(root, put) -> None:
    put("good.mrc")
    with open(os.fsencode(root) + b"/bad\xff.mrc", "wb"):
        pass
    listing = scan(root, ALL)
    assert listing.names == {"good.mrc"}
    assert listing.refused == ("'bad\\udcff.mrc': the name is not valid UTF-8; rename it",)
    assert not ALL.wants("bad\udcff.mrc")  # nor is a hint taken


def test_a_directory_that_no_text_can_hold_is_refused_as_one(root, put) -> None:
    put("good/a.mrc")
    bad = os.fsencode(root) + b"/bad\xff"
    os.mkdir(bad)
    for number in range(30):
        with open(bad + b"/%d.mrc" % number, "wb"):
            pass
    os.symlink(bad, root / "link")  # the name of the link is text
    listing = scan(root, ALL)
    assert listing.names == {"good/a.mrc", *(f"link/{number}.mrc" for number in range(30))}
    assert listing.refused == ("'bad\\udcff': the name is not valid UTF-8; rename it",)


def test_no_number_of_bad_names_floods_the_answer(root, put) -> None:
    put("good.mrc")
    for number in range(100):
        with open(os.fsencode(root) + b"/\xff%d.mrc" % number, "wb"):
            pass
    listing = scan(root, ALL)
    assert listing.names == {"good.mrc"}
    assert len(listing.refused) == 21
    assert listing.refused[-1] == "80 more names are not valid UTF-8; rename them"


def test_a_tree_deeper_than_paths_can_be_has_its_upper_part_found(root, put) -> None:
    put("a.mrc")
    here = os.open(root, os.O_RDONLY)
    for _ in range(20):  # 20 x 250 bytes are more than the 4096 that the system takes at once
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        os.close(os.open("b.mrc", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    listing = scan(root, ALL)
    assert "a.mrc" in listing.names
    assert len(listing.names) in (16, 17)
    [(directory, why)] = listing.unreadable.items()
    assert (directory.count("/"), why) == (len(listing.names) - 1, "file name too long")


@pytest.mark.parametrize(
    "name", ["é.mrc", "e\u0301.mrc", "\u0435.mrc", "日本.mrc", "a b#'.mrc", "a\nb.mrc", "\x1b.mrc"]
)
def test_every_name_that_is_text_is_its_own(root, put, name) -> None:
    put(name)
    put("e.mrc")
    assert names(root) == {name, "e.mrc"}


def test_a_name_of_255_bytes(root, put) -> None:
    name = "é" * 125 + "a.mrc"
    put(name)
    assert names(root) == {name}


def test_sight_follows_links_and_says_what_it_is(root, put) -> None:
    path = put("a.mrc")
    (root / "link.mrc").symlink_to("a.mrc")
    assert sight(root, "link.mrc").fingerprint == sight(root, "a.mrc").fingerprint
    assert sight(root, "a.mrc").fingerprint.size_bytes == path.stat().st_size
    assert sight(root, "a.mrc").is_file
    (root / "d.mrc").mkdir()
    assert not sight(root, "d.mrc").is_file
    (root / "loop.mrc").symlink_to("loop.mrc")
    for name, why in [
        ("loop.mrc", "too many levels"),
        ("none.mrc", "no such file"),
        ("a.mrc/x", "not a dir"),
    ]:
        with pytest.raises(IncompleteMicrograph, match=why):
            sight(root, name)


def test_filesystem_type_takes_the_innermost_and_latest_mount(tmp_path) -> None:
    table = tmp_path / "mountinfo"
    inner = str(tmp_path / "two words").replace(" ", "\\040")
    table.write_text(
        "22 1 0:1 / / rw,relatime - ext4 /dev/sda rw\n"
        f"23 22 0:2 / {inner} rw shared:1 - autofs systemd-1 rw\n"
        f"24 22 0:3 / {inner} rw shared:2 - nfs4 server:/x rw\n"
        "malformed\n"
    )
    assert filesystem_type(tmp_path / "two words" / "x", table) == "nfs4"
    assert filesystem_type(tmp_path / "two words", table) == "nfs4"
    assert filesystem_type(tmp_path / "two wordsy", table) == "ext4"
    assert filesystem_type(tmp_path, tmp_path / "absent") == ""
    assert filesystem_type(Path("/proc/self")) == "proc"


def test_a_pass_over_20000_names_is_fast(crowded_root) -> None:
    assert len(scan(crowded_root, ALL).names) == 20_000
    assert best_cpu_s(lambda: scan(crowded_root, ALL)) < 0.2
