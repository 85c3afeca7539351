"""The page, in a real browser, before the real daemon (with fake picks): what a scientist sees and does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.conftest import playwright
from tests.daemon.rig import Rig, write_image
from tests.support import PATIENCE, eventually

Visit = Callable[..., Any]
expect = playwright.expect
SOON_MS = PATIENCE * 2000  # less than the 15 s after which the page asks without any event


def tiles(page: Any) -> Any:
    return page.locator("#tiles > li > button")


def with_five_picked(rig: Rig) -> Rig:
    """A daemon with a session of five picked micrographs, and one file that is none."""
    rig.start_session()
    for number in range(5):
        rig.write(f"GridSquare_{number % 2}/m{number}.mrc", number)
    (rig.watch_dir() / "junk.mrc").write_bytes(b"no micrograph" * 200)
    rig.picked(5)
    eventually(lambda: rig.counts()["failed"] == 1, 10, "the junk failed")
    pictures = rig.out_dir() / "thumbnails" / "small"
    eventually(lambda: len(list(pictures.rglob("*.jpg"))) == 5, 10, "five pictures")
    return rig


@pytest.fixture
def picked(rig: Rig) -> Rig:
    return with_five_picked(rig)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The same for tests that only look."""
    made = Rig(tmp_path_factory.mktemp("seen"))
    made.start()
    yield with_five_picked(made)
    made.close()


def test_before_any_session_it_says_how_to_start_one(rig: Rig, visit: Visit) -> None:
    page = visit(rig.port)
    expect(page.locator("#nothing")).to_contain_text("drpwatch session start")
    expect(page.locator("#live")).to_have_text("live")
    rig.start_session()
    expect(page.locator("#session-name")).to_have_text("s1", timeout=SOON_MS)


def test_the_newest_micrographs_have_pictures_and_picks(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    expect(tiles(page)).to_have_count(6)
    images = page.locator("#tiles img")
    expect(images).to_have_count(5)
    eventually(
        lambda: images.evaluate_all("all => all.every(one => one.complete && one.naturalWidth === 64)"),
        5,
        "all pictures are loaded",
    )
    # Circles are drawn: some pixels of the first canvas are not transparent.
    drawn = (
        "one => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.some(value => value > 0)"
    )
    assert page.locator("#tiles canvas").first.evaluate(drawn)
    view = seen.control.session("s1")
    expect(page.locator("#figures")).to_contain_text(f"{view['picks']:,}")
    expect(page.locator("#figures")).to_contain_text("1 failed")


def test_what_picks_is_in_the_head(rig: Rig, visit: Visit) -> None:
    page = visit(rig.port)
    device = page.locator("#devices li")
    expect(device).to_have_text("fake device: ready, 1.1 of 10.7 GB")
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.picked(1)
    expect(device).to_have_attribute("title", re.compile("tiles of 512 px"))


def test_a_diameter_that_is_too_small_is_told(rig: Rig, visit: Visit) -> None:
    rig.start_session()
    rig.start_session("small", diameter_angstrom=90.0)
    for session in ("s1", "small"):
        rig.write("a.mrc", 1, session)
        rig.picked(1, session)
    about = visit(rig.port, "#small").locator("#about")
    expect(about).to_contain_text(
        "90 Å given; rings in the newest power spectra tell of 120 Å", use_inner_text=True
    )
    about = visit(rig.port, "#s1").locator("#about")
    expect(about).to_contain_text("150 Å", use_inner_text=True)
    expect(about).not_to_contain_text("rings")
    (enlargement,) = {event.get("enlargement") for event in rig.events("micrograph_picked")} - {None}
    assert enlargement == 1.33


def test_circles_can_be_hidden(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    canvas = page.locator("#tiles canvas").first
    expect(canvas).to_be_visible()
    page.keyboard.press("p")
    expect(canvas).to_be_hidden()
    page.get_by_role("button", name=re.compile("^With picks")).click()
    tiles(page).first.click()
    stage = page.locator("#stage")
    eventually(lambda: stage.evaluate("one => one.width > 300"), 10, "the picture")
    bare = stage.evaluate("one => one.toDataURL()")
    page.locator("#viewer .circles").click()
    assert stage.evaluate("one => one.toDataURL()") != bare
    page.keyboard.press("Escape")
    expect(canvas).to_be_visible()


def test_a_pick_is_shown_within_a_second(picked: Rig, visit: Visit) -> None:
    page = visit(picked.port)
    expect(tiles(page)).to_have_count(6)
    expect(page.locator("#live")).to_have_text("live")
    # In the browser's own words, so that the way to the test does not count.
    page.evaluate(
        """() => { window.seen = {}; new MutationObserver(() => {
            const name = document.querySelector('#tiles .name')?.textContent;
            if (name) window.seen[name] ??= Date.now() / 1000;
        }).observe(document.getElementById('tiles'), {childList: true, subtree: true}); }"""
    )

    def shown_after_s(number: int) -> float:
        name = f"new{number}.mrc"
        picked.write(f"GridSquare_0/{name}", 99 + number)
        picked.picked(6 + number)
        seen = eventually(lambda: page.evaluate(f"window.seen['{name}']"), 10, "the new tile")
        newest = picked.control.session("s1")["newest"]
        (recorded,) = (one["recorded_at"] for one in newest if one["name"].endswith(name))
        return float(seen - recorded)

    # Of a few, as what else the machine does only adds to it.
    assert any(shown_after_s(number) < 1.0 for number in range(5))
    expect(tiles(page).first.locator("img")).to_have_count(1)


def test_kinds_are_filtered_and_failures_have_their_reason(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    page.get_by_role("button", name=re.compile("^Failed")).click()
    expect(tiles(page)).to_have_count(1)
    expect(tiles(page).first).to_contain_text("not an MRC file")
    page.get_by_role("button", name=re.compile("^Empty")).click()
    zero = sum(one["picks"] == 0 for one in seen.control.session("s1")["newest"])
    expect(tiles(page)).to_have_count(zero)
    page.get_by_role("button", name=re.compile("^All")).click()
    expect(tiles(page)).to_have_count(6)


def test_a_large_view_by_mouse(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    page.get_by_role("button", name=re.compile("^With picks")).click()
    tiles(page).first.click()
    viewer = page.locator("#viewer")
    expect(viewer).to_be_visible()
    name = page.locator("#viewer-name").inner_text()
    expect(page.locator("#spectrum")).to_be_visible()
    page.locator("#next-older").click()
    expect(page.locator("#viewer-name")).not_to_have_text(name)
    page.locator("#newer").click()
    expect(page.locator("#viewer-name")).to_have_text(name)
    before = page.locator("#stage").evaluate("one => one.toDataURL()")
    page.locator("#stage").hover()
    page.mouse.wheel(0, -600)
    assert page.locator("#stage").evaluate("one => one.toDataURL()") != before
    page.locator("#fit").click()
    page.locator("#viewer-close").click()
    expect(viewer).to_be_hidden()


def test_the_score_under_the_pointer(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    (one, *_) = gallery(seen, "picked")
    x, y, per_mille = one["circles"][:3]
    page.locator(f"[data-id='{one['id']}']").click()
    expect(page.locator("#viewer")).to_be_visible()
    box = page.locator("#stage").bounding_box()
    height, width = one["shape_yx"]
    scale = 0.98 * min(box["width"] / width, box["height"] / height)
    left, top = box["x"] + (box["width"] - width * scale) / 2, box["y"] + (box["height"] - height * scale) / 2
    page.mouse.move(left + x * scale, top + y * scale)
    expect(page.locator("#under")).to_have_text(f"score {per_mille / 1000:.2f} at {x}, {y}")


def test_another_threshold_is_tried_here_and_foretold_for_the_session(picked: Rig, visit: Visit) -> None:
    page = visit(picked.port)
    (one, *_) = gallery(picked, "picked")
    page.locator(f"[data-id='{one['id']}']").click()
    expect(page.locator("#apply")).to_be_hidden()
    page.locator("#threshold").fill("0.2")
    expect(page.locator("#command")).to_have_text("drpwatch session rethreshold s1 0.2")
    before = picked.control.session("s1")["picks"]
    expect(page.locator("#picks-session")).to_contain_text("→")
    text = page.locator("#picks-session").inner_text()
    match = re.match(r"([\d,]+) → ([\d,]+) picks", text)
    assert match is not None, text
    assert int(match[1].replace(",", "")) == before
    assert picked.control.session("s1")["picks"] == before  # nothing changes by looking
    here = int(re.split(r"→|picks", page.locator("#picks-here").inner_text())[1].replace(",", ""))
    picked.control.ask("s1", "rethreshold", {"threshold": 0.2})
    assert picked.control.session("s1")["picks"] == int(match[2].replace(",", ""))
    assert len(gallery(picked, "picked", one["id"])["circles"]) // 3 == here


def gallery(rig: Rig, show: str, one: int | None = None) -> Any:
    listed = json.loads(rig.get(f"/api/v1/sessions/s1/gallery?show={show}")[1])["micrographs"]
    return listed if one is None else next(found for found in listed if found["id"] == one)


def test_by_keyboard_alone(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    expect(tiles(page)).to_have_count(6)
    page.keyboard.press("ArrowRight")
    expect(tiles(page).first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tiles(page).nth(1)).to_be_focused()
    second = tiles(page).nth(1).get_attribute("title")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    assert second.endswith(page.locator("#viewer-name").inner_text())
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#viewer-name")).not_to_have_text(second.rpartition("/")[2])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    expect(page.locator("#candidates")).to_be_checked()
    for key in ("+", "-", "f"):
        page.keyboard.press(key)
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    page.keyboard.press("f")
    expect(page.locator("#show [aria-pressed=true]")).to_contain_text("With picks")


def test_a_late_answer_does_not_open_again_what_was_closed(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    tiles(page).nth(2).click()
    expect(page.locator("#viewer")).to_be_visible()
    held: list[playwright.Route] = []
    page.route("**/gallery/*", lambda route: held.append(route))
    page.keyboard.press("ArrowRight")
    eventually(lambda: page.wait_for_timeout(10) or held, 10, "the next one is asked for")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    with page.expect_response("**/gallery/*"):
        held[0].continue_()
    page.wait_for_timeout(200)
    expect(page.locator("#viewer")).to_be_hidden()


def test_it_can_be_linked_to(seen: Rig, visit: Visit) -> None:
    one = gallery(seen, "picked")[0]
    page = visit(seen.port, f"#s1/{one['id']}")
    expect(page.locator("#viewer-name")).to_have_text(one["name"].rpartition("/")[2])


def test_plots_and_map_are_drawn(seen: Rig, visit: Visit) -> None:
    page = visit(seen.port)
    expect(page.locator(".plot canvas")).to_have_count(5)
    expect(page.locator("#map .row")).to_have_count(3)
    expect(page.locator("#map")).to_contain_text("GridSquare_1")
    page.locator("#map canvas").first.click(position={"x": 3, "y": 5})
    expect(page.locator("#viewer")).to_be_visible()


def test_a_daemon_that_restarts_is_found_again(picked: Rig, visit: Visit) -> None:
    page = visit(picked.port, allow="ERR_")  # the browser itself tells of every connection that fails
    expect(tiles(page)).to_have_count(6)
    assert picked.stop(within_s=8) == 0  # an open page does not hold up the stop
    expect(page.locator("#live")).to_have_text("daemon away")
    picked.start()
    write_image(picked.watch_dir() / "after.mrc", seed=50)
    expect(page.locator("#live")).to_have_text("live", timeout=PATIENCE * 20_000)
    expect(page.locator("#tiles .name").first).to_have_text("after.mrc", timeout=PATIENCE * 15_000)


def test_several_sessions_and_their_problems(picked: Rig, visit: Visit) -> None:
    picked.start_session("s2")
    page = visit(picked.port)
    expect(page.locator("#session-name")).to_have_text("s2")
    expect(page.locator("#no-tiles")).to_be_visible()
    page.locator("#session").select_option("s1")
    expect(page.locator("#session-name")).to_have_text("s1")
    expect(tiles(page)).to_have_count(6)
    picked.control.change("s1", "pause")
    expect(page.locator("#session-state")).to_have_text("paused", timeout=SOON_MS)
    picked.watch_dir("s1").rename(picked.root / "gone")
    expect(page.locator("#problems")).to_contain_text(str(picked.watch_dir("s1")), timeout=PATIENCE * 10_000)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_any_screen_and_can_be_read_by_all(seen: Rig, visit: Visit, scheme: str, width: int) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe: pip install '.[dev]'"
    )
    page = visit(seen.port, color_scheme=scheme, viewport={"width": width, "height": 844})
    expect(tiles(page)).to_have_count(6)
    expect(page.locator(".plot canvas")).to_have_count(5)
    page.locator("#help-button").click()
    serious(axe, page)
    page.keyboard.press("Escape")
    serious(axe, page)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    page.get_by_role("button", name=re.compile("^With picks")).click()
    tiles(page).first.click()
    expect(page.locator("#viewer")).to_be_visible()
    serious(axe, page)
    for button in page.locator("#viewer button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_report_fits_any_screen_and_can_be_read_by_all(seen: Rig, visit: Visit, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe: pip install '.[dev]'"
    )
    report = seen.root / "report.html"
    report.write_bytes(seen.control.report("s1"))
    page = visit(seen.port, color_scheme=scheme)
    page.goto(report.as_uri())
    for width in (1300, 390):
        page.set_viewport_size({"width": width, "height": 844})
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0, width
    page.evaluate("document.querySelector('meta[http-equiv]').remove()")
    serious(axe, page)


def serious(axe: Any, page: Any) -> None:
    """No finding of axe-core that it calls serious or critical."""
    found = axe.Axe().run(page).response["violations"]
    told = [
        (one["id"], [node["html"][:120] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert told == []
