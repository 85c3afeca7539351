"""The page of a session with ten thousand micrographs: quick, and light on the daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.conftest import playwright
from tests.browser.making import BAD_SQUARE, long_session
from tests.daemon.rig import Rig

COUNT = 10_000
CANDIDATES = 100
MB = 1 << 20
expect = playwright.expect


def test_ten_thousand_micrographs(tmp_path: Path, visit: Callable[..., Any]) -> None:
    long_session(tmp_path, COUNT, CANDIDATES)
    rig = Rig(tmp_path)
    rig.start()
    try:
        rig.control.sessions()
        before = resident_bytes(rig)
        page = visit(rig.port)
        expect(page.locator("#tiles > li")).to_have_count(24)
        shown_ms = page.evaluate("performance.now()")
        painted_ms = first_paint_ms(page)
        expect(page.locator("#map .row")).to_have_count(COUNT // 50)
        expect(page.locator("#map .row.bad")).to_have_count(1)
        expect(page.locator("#map .row.bad")).to_contain_text(f"GridSquare_{BAD_SQUARE:03d}")
        expect(page.locator("#map .row").first).to_have_class("row bad")
        expect(page.locator("#map-told")).to_have_text(f"1 of {COUNT // 50} with few picks")
        expect(page.locator("#scores-now")).to_contain_text("from 0.5")
        for _ in range(4):
            page.locator("#older").click()
        expect(page.locator("#tiles > li")).to_have_count(120)
        for show in ("Failed", "Empty", "All"):
            page.locator("#show button", has_text=show).click()
            expect(page.locator("#tiles > li").first).to_be_visible()
        grown = resident_bytes(rig) - before
        page.close()
        for _ in range(3):  # what else the machine does only adds to it
            page = visit(rig.port)
            painted_ms = min(painted_ms, first_paint_ms(page))
            page.close()  # it would complain of the daemon's end
        print(f"first paint {painted_ms:.0f} ms, tiles {shown_ms:.0f} ms, daemon grew by {grown / MB:.1f} MB")
        assert painted_ms < 1000
        assert grown < 50 * MB
    finally:
        rig.close()


def first_paint_ms(page: Any) -> float:
    expect(page.locator("#tiles > li")).to_have_count(24)
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def resident_bytes(rig: Rig) -> int:
    assert rig.process is not None
    status = Path(f"/proc/{rig.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
