"""Text that strangers chose, as terminals, logs and answers can carry it: names of files, above all."""

from __future__ import annotations

_LONGEST_SHOWN = 120


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with what is not to be seen written out, such as \x1b, \n or \u202e.

    A name could otherwise move the cursor, colour or forge lines, or read backwards on a terminal; and half of
    a surrogate pair, which stands for a byte that is no UTF-8, cannot be sent at all. Characters in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text
    )


def shown(value: object) -> str:
    """Return a value that a user gave as an error message repeats it: printable, and not at any length."""
    text = repr(value)
    return printable(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")
