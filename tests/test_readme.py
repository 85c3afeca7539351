"""README.md, CHANGELOG.md and config.example.toml name nothing that the code lacks, and every command.

Owns: what is named there. Whether config.example.toml has every key is `test_config`'s.
"""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from prometheus_client.metrics import MetricWrapperBase

from drpwatch import cli, errors
from drpwatch.assess.datasets import DESCRIPTION
from drpwatch.config import Config
from drpwatch.report import handover
from drpwatch.service.api import build_app
from drpwatch.service.metrics import Metrics
from drpwatch.session import outputs
from tests.service.fakes import FakeControl, FakeMetrics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "CHANGELOG.md", "config.example.toml")}
TREE = typer.main.get_command(cli.app)


def code(text: str) -> list[str]:
    """Return every line of fenced code, continued ones joined, and every inline code."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]


def command_lines() -> Iterator[str]:
    """Yield all invocations of drpwatch, from its name on; `a|b` stands for two."""
    for name, text in TEXTS.items():
        snippets = code(text)
        if name.endswith(".toml"):
            snippets += [line.lstrip("# ") for line in text.splitlines()]
        for snippet in snippets:
            for part in re.split(r"&&|;| \| ", snippet):
                match = re.match(r"\s*(?:\S*/bin/)?drpwatch ([^.].*)", part)
                if match:
                    words = match[1].removesuffix(" ...").split(" ")
                    choices = [word.split("|") for word in words]
                    yield from (" ".join(chosen) for chosen in itertools.product(*choices))


COMMAND_LINES = sorted(set(command_lines()))


def is_group(command: Any) -> bool:
    return hasattr(command, "commands")  # typer's own copy of click has no public class to ask for


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if is_group(command):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path, command


def walk(line: str) -> tuple[tuple[str, ...], Any, list[str]]:
    """Return the command that a line runs and its arguments; fail where there is none."""
    words, command, path = shlex.split(line, comments=True), TREE, ()
    while is_group(command) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"drpwatch {line}: there is no {words[0]}"
        path += (words[0],)
        command = command.commands[words.pop(0)]
    return path, command, words


def options(command: Any) -> set[str]:
    named = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    return named | {"--help", "-h"}


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMAND_LINES) > 15


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_lines(line: str) -> None:
    path, command, words = walk(line)
    if is_group(command):
        assert words == [] or path == (), line  # named as a whole, such as `drpwatch session`
    for word in words:
        if word.startswith("-"):
            assert word in options(command), f"drpwatch {line}: there is no {word}"


def test_every_command_is_named() -> None:
    named = {walk(line)[0] for line in COMMAND_LINES}
    assert {path for path, _ in leaves(TREE)} - named == set()


def test_every_option_that_is_named_exists() -> None:
    known = set().union(*(options(command) for _, command in leaves(TREE)))
    relion = set(re.findall(r"--\w+", Path(handover.__file__).read_text()))
    for snippet in re.findall(r"(?<!`)`(--[^`]+)`", README):
        for word in snippet.split():
            if word.startswith("--"):
                assert word in known | relion, snippet


def test_keys_of_the_configuration() -> None:
    sections = Config.model_fields
    named = [
        match
        for snippet in code(README)
        if (match := re.fullmatch(rf"({'|'.join(sections)})\.(\w+)|(\w+_s)|\[(\w+)\]", snippet))
        and not snippet.endswith((".star", ".json"))
    ]
    assert len(named) > 3
    for match in named:
        section, key, bare, header = match.groups()
        if header:
            assert header in sections
        elif bare:
            parts = [part.annotation for name, part in sections.items() if name != "profile"]
            assert any(bare in part.model_fields for part in parts), bare
        else:
            assert key in sections[section].annotation.model_fields, match[0]


def metric_rows() -> list[str]:
    rows = ["| `drpwatch_build_info` | info | version, python, torch | What is running. |"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            name = metric._name + ("_total" if metric._type == "counter" else "")
            labels = ", ".join(metric._labelnames)
            rows.append(f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |")
    return rows


def test_the_table_of_metrics_is_the_code_s() -> None:
    assert [line for line in README.splitlines() if line.startswith("| `drpwatch_")] == metric_rows()


def test_build_labels() -> None:
    (build,) = (family for family in Metrics().registry.collect() if family.name == "drpwatch_build")
    assert list(build.samples[0].labels) == ["version", "python", "torch"]


def test_no_other_metric_is_named() -> None:
    named = set(re.findall(r"\bdrpwatch_\w+", README))
    assert named == {row.split("`")[1] for row in metric_rows()}


def test_exit_codes() -> None:
    table = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.M)
    assert [f"{code:>3}  {text}" for code, text in table] == cli.EXIT_CODES.splitlines()[1:]
    raised = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert raised <= {int(code) for code, _ in table}


def test_paths_of_the_api() -> None:
    app = build_app(FakeControl(), FakeMetrics(), writable=False)
    served = {getattr(route, "path", None) for route in app.routes}
    named = [snippet for snippet in code(README) if re.fullmatch(r"/(livez|readyz|metrics|api/\S+)", snippet)]
    assert len(named) >= 4
    assert set(named) <= served


def test_files() -> None:
    """What looks like a file of this repository or of a session's output is one."""
    session = {outputs.PARTICLES, outputs.AUTOPICK, outputs.COORDS_SUFFIX}
    named = {
        snippet
        for text in (README, TEXTS["CHANGELOG.md"])
        for snippet in code(text)
        if re.fullmatch(r"[\w./-]+\.(toml|md|service|star|py)|LICENSE|\.ci/\w+", snippet)
    }
    assert session <= named
    for name in named - session - {DESCRIPTION}:
        assert (ROOT / name).is_file(), name


def test_the_two_commands_that_ci_runs() -> None:
    lines = [line for line in README.splitlines() if "python3 -m venv .venv" in line]
    assert [("demo" in line, "pytest" in line) for line in lines] == [(True, False), (False, True)]
    assert README.index(lines[0]) < README.index("## Picking files")


def test_no_placeholder_is_left_in_the_changelog() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert f"\n## {version[1]}" in TEXTS["CHANGELOG.md"]
