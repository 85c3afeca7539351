"""What was recorded before something goes wrong, and what is ready to be recorded when it does."""

from __future__ import annotations

from tests.session.bench import Bench

NAMES = ("a.mrc", "grid 1/b.mrc", "grid 2/b.mrc")


def first(bench: Bench) -> None:
    """The very first picks: directory and tables come into being."""
    bench.appear("grid 1/b.mrc", 1)


def following(bench: Bench) -> None:
    """Rows are appended below others."""
    bench.appear("a.mrc", 1)
    bench.drain()
    bench.appear("grid 1/b.mrc", 3)


def rewritten(bench: Bench) -> None:
    """Rows in the middle are replaced."""
    for name in NAMES:
        bench.appear(name, 1)
    bench.drain()
    bench.appear("grid 1/b.mrc", 2)


def rewritten_as_blank(bench: Bench) -> None:
    """Rows in the middle go away, after picking."""
    for name in NAMES:
        bench.appear(name, 1)
    bench.drain()
    bench.appear("a.mrc", 6)


def rejected(bench: Bench) -> None:
    """Rows in the middle go away, before picking."""
    for name in NAMES:
        bench.appear(name, 1)
    bench.drain()
    bench.reject("a.mrc")
    bench.appear("c.mrc", 1)
