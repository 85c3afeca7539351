"""Tables and ages as text."""

import pytest

from drpwatch.cli.tables import ago, print_table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s ago"),
        (0, "0 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7200, "2 h ago"),
        (200000, "2 d ago"),
    ],
)
def test_ago(seconds, text):
    assert ago(1000.0, 1000.0 + seconds) == text


def test_never():
    assert ago(None) == "-"


def test_a_pipe_gets_aligned_columns_without_trailing_blanks(capsys):
    print_table(("NAME", "N", "WHY"), [("a", "5", ""), ("long", "412", "x y")], right=("N",))
    assert capsys.readouterr().out == "NAME    N  WHY\na       5\nlong  412  x y\n"
