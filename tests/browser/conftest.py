"""A headless Chromium before the real daemon's page. Skips where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.rig import Rig
from tests.support import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
playwright.expect.set_options(timeout=PATIENCE * 5000)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="package")  # no longer: its event loop would be in the way of other tests
def browser() -> Iterator[playwright.Browser]:
    if CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no user namespace to be safe in
        made = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield made
        made.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.start()
    yield made
    made.close()


@pytest.fixture
def visit(browser: playwright.Browser) -> Iterator[Callable[..., playwright.Page]]:
    """Open the page of a port; whatever the browser complains of fails the test, but for `allowed`."""
    contexts = []
    complaints: list[str] = []
    allowed: list[str] = []

    def open_page(
        port: int, path: str = "", *, allow: str | None = None, **options: object
    ) -> playwright.Page:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **options})
        contexts.append(context)
        if allow is not None:
            allowed.append(allow)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 10_000)
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [said for said in complaints if not any(part in said for part in allowed)] == []
