"""Tables and ages as text."""

import pytest

from drpwatch.cli.tables import ago, print_fields, print_table


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


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_in_a_name_steers_the_terminal(terminal, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")  # rich itself sends nothing to it
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    name = "a\x1b[2J\x9b31m\r\n\u202e[red]\udcff.mrc"
    print_table(("NAME", "WHY"), [(name, name)])
    print_fields([("name", name)])
    text = capsys.readouterr().out
    assert not {one for one in text if not one.isprintable()} - {"\n"}
    assert text.replace("\n", "").count("[red]") == 3
