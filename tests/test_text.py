"""Text of strangers, as it is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpwatch.text import printable, shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("GridSquare 1/é日本.mrc", "GridSquare 1/é日本.mrc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\r\nfake", r"a\r\nfake"),
        ("\x9b2J", r"\x9b2J"),
        ("cod\u202ecrm.", r"cod\u202ecrm."),
        ("\udcff.mrc", r"\udcff.mrc"),
        ("a\u200bb", r"a\u200bb"),
        ("\x7f\x00", r"\x7f\x00"),
    ],
)
def test_what_is_not_to_be_seen_is_written_out(text, seen):
    assert printable(text) == seen


@given(st.text())
def test_whatever_comes_can_be_printed_and_sent(text):
    assert printable(text).isprintable()
    assert printable(text).encode().decode() == printable(text)
    assert printable(printable(text)) == printable(text)


def test_what_is_kept():
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_a_long_value_is_shown_in_part():
    assert shown("a\x1b") == r"'a\x1b'"
    assert len(shown("x" * 10**6)) < 200
