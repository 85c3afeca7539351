"""How the command line ends: exit codes, one line for each problem, no traceback unless asked."""

import re
import subprocess
import sys

import pytest
import typer

import drpwatch
from drpwatch import cli, errors
from drpwatch.cli import main
from tests.support import child_cpu_seconds, half_a_second


def _family(kind: type) -> list[type]:
    return [kind, *(member for child in kind.__subclasses__() for member in _family(child))]


ALL_ERRORS = _family(errors.DrpwatchError)


@pytest.fixture
def ends_with(monkeypatch):
    """Return a function that runs `main` with a command that raises the given error."""

    def run(error: BaseException) -> int:
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command()
        def command() -> None:
            raise error

        monkeypatch.setattr(cli, "app", app)
        return main([])

    return run


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_each_error_is_one_line_and_its_exit_code(kind, ends_with, capsys):
    assert ends_with(kind("what, where, what to do")) == kind.exit_code
    assert capsys.readouterr().err == "drpwatch: error: what, where, what to do\n"


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_each_exit_code_is_in_the_help(kind, capsys):
    assert main(["--help"]) == 0
    assert re.search(rf"^\s*{kind.exit_code}  \w", capsys.readouterr().out, re.MULTILINE)


def test_several_problems_are_a_line_each(ends_with, capsys):
    assert ends_with(errors.ConfigError("a.toml: x: wrong\na.toml: y: wrong")) == 78
    assert capsys.readouterr().err.splitlines() == [
        "drpwatch: error: a.toml: x: wrong",
        "drpwatch: error: a.toml: y: wrong",
    ]


def test_an_unexpected_error_is_one_line_that_tells_how_to_get_the_traceback(ends_with, capsys, monkeypatch):
    monkeypatch.delenv("DRPWATCH_DEBUG", raising=False)
    assert ends_with(ZeroDivisionError("division\nby zero")) == 1
    assert capsys.readouterr().err == (
        "drpwatch: error: unexpected ZeroDivisionError: division by zero; "
        "run with DRPWATCH_DEBUG=1 for the traceback\n"
    )


def test_the_traceback_is_there_when_asked_for(ends_with, capsys, monkeypatch):
    monkeypatch.setenv("DRPWATCH_DEBUG", "1")
    assert ends_with(ZeroDivisionError("division by zero")) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("drpwatch: error: unexpected ZeroDivisionError: division by zero\n")


def test_interrupted_is_130(ends_with):
    assert ends_with(KeyboardInterrupt()) == 130


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"drpwatch {drpwatch.__version__}\n"


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"]])
def test_wrong_arguments_are_exit_code_2(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().out == ""


def test_no_arguments_print_the_help(capsys):
    main([])
    assert "Usage: drpwatch" in capsys.readouterr().out


def _modules_after(arguments: list[str]) -> set[str]:
    """Return the top-level packages that a run of the command line has imported."""
    script = (
        "import sys, drpwatch.cli; drpwatch.cli.main(sys.argv[1:]);"
        "print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.partition("MODULES ")[2].split())


QUICK = [["--help"], ["session", "list", "--socket", "/nowhere"], ["session", "start", "--help"]]


@pytest.mark.parametrize("arguments", QUICK)
def test_the_command_line_starts_light(arguments):
    heavy = {"torch", "scipy", "fastapi", "starlette", "uvicorn", "numpy", "mrcfile", "PIL"}
    assert _modules_after(arguments) & heavy == set()


@pytest.mark.parametrize("arguments", QUICK[:2])
def test_the_command_line_answers_within_half_a_second(arguments):
    # It waits for nothing, so on an idle machine this is what the clock shows; here tests may run beside it.
    command = [sys.executable, "-m", "drpwatch", *arguments]
    limit_s = half_a_second()
    assert any(
        child_cpu_seconds(lambda: subprocess.run(command, capture_output=True)) < limit_s for _ in range(5)
    )
