"""The report of a session: whole, true, and harmless whatever files are called."""

import re
import time
from contextlib import closing
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from drpwatch import __version__
from drpwatch.errors import JournalError, SessionError
from drpwatch.report import gallery, svg
from drpwatch.report.gallery import choose
from drpwatch.report.handover import Handover, steps
from drpwatch.report.making import make_report
from drpwatch.session.account import Account
from drpwatch.session.statistics import History
from tests.report.making import WEIGHTS, Session

VOID = {"meta", "img", "br"}
HOSTILE = [
    "<script>alert(1)</script>.mrc",
    "\"'><img src=x onerror=alert(1)>&amp;.mrc",
    "</title></style><svg onload=alert(1)>.mrc",
    "\x1b[31mred\n.mrc",
    "\u202ecrm.gpj.mrc",
]


class Parsed(HTMLParser):
    """What a browser would see: elements, their attributes and all text; fails where they do not nest."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def session(tmp_path):
    made = Session(tmp_path)
    with closing(made.journal):
        yield made


def report(session) -> Parsed:
    return Parsed(make_report(session.path, session.name))


def is_harmless(page: Parsed) -> None:
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "section",
        "div",
        "p",
        "bdi",
    }
    allowed |= {"h1", "h2", "h3", "dl", "dt", "dd", "small", "span", "code", "pre", "figure", "figcaption"}
    allowed |= {"table", "thead", "tbody", "tr", "th", "td", "img", "svg", "g"}
    allowed |= {"rect", "line", "text", "polyline", "polygon", "circle", "path", "image"}
    assert {tag for tag, _ in page.elements} <= allowed
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, attributes)
            if name in ("src", "href"):
                assert re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", value or ""), (tag, value)
    assert "url(" not in page.text
    assert "@import" not in page.text
    (policy,) = [one["content"] for one in page.all("meta") if "http-equiv" in one]
    assert "default-src 'none'" in policy
    assert "script" not in policy


def test_everything_is_told(session):
    names = [f"G{n // 10}/m{n:02d}{'_empty' if n % 9 == 0 else ''}.mrc" for n in range(40)]
    session.add([*names, "G4/junk1.mrc", "G4/junk2.mrc"])
    session.end()
    page = report(session)
    is_harmless(page)
    picks = [one.n_picks for one in session.journal.micrographs(session.id, ["picked"])]
    text = page.text.replace("\N{NARROW NO-BREAK SPACE}", "")
    for told in (
        f"Particles{sum(picks)}",
        f"Micrographs picked40{picks.count(0)} of them without a pick",
        "Failed2",
        "not an MRC file",
        "G4/junk1.mrc",
        WEIGHTS.sha256,
        "general",
        f"by drpwatch {__version__}",
        "120 Å",
        "detect 0.5 s",
        "completed",
        "drained",
    ):
        assert told in text, told
    assert len(page.all("img")) == 5  # a strip for each directory
    labels = {one["aria-label"] for one in page.all("svg")}
    assert {"Micrographs per hour", "Picks per micrograph", "Scores of the candidates"} <= labels


@pytest.mark.parametrize(
    ("root", "out", "project", "coordinates"),
    [
        ("/d/apo/MotionCorr/job002", "/d/apo/drpwatch/a", "directory, /d/apo (", "drpwatch/a/"),
        ("/d/apo/MotionCorr/job002/", "/picked/a/", "directory, /d/apo (", "/picked/a/"),
        ("/d/apo/MotionCorr/job003", "/d/apo/drpwatch/a", "directory (", "/d/apo/drpwatch/a/"),
    ],
)
def test_paths_are_those_of_the_project_where_it_is_known(root, out, project, coordinates):
    four, three, _ = steps(Handover(out, root, "MotionCorr/job002/", 120.0, 3.0, False))
    assert project in four.where
    assert f"--coord_list {coordinates}autopick.star " in four.command
    assert f"--coord_dir {coordinates} " in three.command


def test_the_commands_are_those_for_these_paths(session):
    session.add(["a.mrc"])
    text = report(session).text
    of = Handover(
        str(session.root / "out"), str(session.root / "in"), "MotionCorr/job002/", 120.0, 3.0, False
    )
    session.journal.set_pixel_size(session.id, 3.0)
    text = report(session).text
    for step in steps(of):
        assert step.program in text
        assert (step.command or " ".join(step.where.split())) in text
    assert "--extract_size 60 " in text


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_can_do_nothing(name, tmp_path):
    made = Session(tmp_path, watched=f"in/{name}")
    with closing(made.journal):
        made.add([name, f"{name}/b_empty.mrc", f"junk{name}"])
        page = report(made)
    is_harmless(page)
    shown = name.replace("\x1b", "\\x1b").replace("\n", "\\n").replace("\u202e", "\\u202e")
    assert page.text.count(shown) >= 3


def test_a_session_without_a_micrograph(session):
    page = report(session)
    is_harmless(page)
    assert "nothing was recorded yet" in page.text
    assert "No micrograph failed." in page.text


def test_a_daemon_may_be_there_or_not(session):
    session.add(["a.mrc"])
    with_daemon = report(session).text
    session.journal.close()
    assert report(session).text.count("a.mrc") == with_daemon.count("a.mrc")
    with pytest.raises(SessionError, match="no session named s2"):
        make_report(session.path, "s2")
    with pytest.raises(JournalError, match="cannot be read"):
        make_report(session.root / "nowhere.db", "s1")


def test_pictures_are_made_from_files_and_a_missing_one_is_said(session):
    session.add(["here.mrc", "gone.mrc", "other.mrc"])
    session.write("here.mrc")
    session.write("other.mrc")
    (session.root / "in" / "other.mrc").write_bytes(b"\x07" * 5000)
    page = report(session)
    (picture,) = page.all("image")
    assert picture["href"].startswith("data:image/jpeg;base64,")
    assert (picture["width"], picture["height"]) == ("320", "240")
    assert "no picture: cannot be opened now: No such file or directory" in page.text
    assert "no picture: not an MRC file" in page.text
    (one,) = [one for one in session.journal.micrographs(session.id, ["picked"]) if one.name == "here.mrc"]
    assert sum(path["d"].count("M") for path in page.all("path")) == one.n_picks


def test_a_picture_on_disk_is_taken(session):
    session.add(["a.mrc"])
    folder = session.root / "out" / "thumbnails" / "large"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((768, 1024), 99, np.uint8)).save(folder / "a.mrc.jpg")
    assert len(report(session).all("image")) == 1


def test_reading_micrographs_ends_after_a_while(session):
    session.add(["a.mrc", "b.mrc"])
    for name in ("a.mrc", "b.mrc"):
        session.write(name)
    clock = iter([0.0, 0.0, gallery.READ_WITHIN_S + 1])
    with closing(Account(session.path)) as account:
        record = account.record("s1")
        shown = gallery.exhibits(account, record, choose(account.history(record.id)), lambda: next(clock))
    assert sorted(one.missing or "" for one in shown.values()) == [
        "",
        "no picture: reading micrographs took too long",
    ]


def test_where_time_runs_out_each_kind_has_a_picture(session):
    names = [f"m{n}{'_empty' if n % 4 == 0 else ''}.mrc" for n in range(30)]
    session.add(names)
    for name in names:
        session.write(name)
    clock = iter([0.0] * 5 + [gallery.READ_WITHIN_S + 1] * 20)
    with closing(Account(session.path)) as account:
        record = account.record("s1")
        choices = choose(account.history(record.id))
        shown = gallery.exhibits(account, record, choices, lambda: next(clock))
    assert len(choices) == 4
    for choice in choices:
        assert [shown[one].jpeg is not None for one in choice.ids] == [True, False, False]


def history(n_picks: list[int]) -> History:
    nothing = np.full(len(n_picks), np.nan)
    ids = np.arange(1, len(n_picks) + 1)
    names = tuple(map(str, ids))
    return History(ids, names, nothing, nothing, nothing, ids, np.array(n_picks, np.int64))


@pytest.mark.parametrize(
    "n_picks", [[], [0], [-1, 5], [4, 9, 1], list(range(100)), [7] * 20, [0] * 50 + [-1]]
)
def test_most_median_fewest_and_none_are_chosen_once(n_picks):
    choices = {one.title: one.ids for one in choose(history(n_picks))}
    every = [one for ids in choices.values() for one in ids]
    assert len(set(every)) == len(every) <= 12
    picks = {title: [n_picks[one - 1] for one in ids] for title, ids in choices.items()}
    assert all(n == 0 for n in picks.get("No picks", []))
    some = sorted((n for n in n_picks if n > 0), reverse=True)
    assert picks.get("Most picks", []) == some[:3]
    if len(some) >= 9:
        assert picks["Fewest picks"] == some[-3:]
        assert abs(np.median(picks["About the median"]) - np.median(some)) <= 1
    assert len(picks.get("No picks", [])) == min(3, n_picks.count(0))


def test_many_micrographs_take_little_time_and_room(session):
    session.add([f"G{n // 100}/m{n}.mrc" for n in range(1000)], most_picks=5)
    started = time.process_time()
    page = make_report(session.path, "s1")
    assert time.process_time() - started < 2.0  # a session has ten times as many
    assert len(page) < 500_000


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 437, [0, 100, 200, 300, 400]), (0, 0, [0]), (0.3, 0.32, None)],
)
def test_ticks_are_round(low, high, ticks):
    found = svg.nice(low, high)
    assert found == ticks if ticks is not None else all(low <= one <= high for one in found)


def test_lines_have_gaps_where_nothing_is_known():
    at = np.arange(6) * 60.0
    drawn = svg.lines(at, np.array([1, 2, np.nan, 3, np.nan, np.nan]), "t", "x")
    assert drawn.count("<polyline") == 1
    assert drawn.count("<circle") == 1
    assert "nan" not in svg.lines(at, np.full(6, np.nan), "t", "x")
