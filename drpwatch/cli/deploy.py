"""`drpwatch deploy`: the files that make drpwatch a service of this host, and what to do with each."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from drpwatch.cli.remote import AsJson
from drpwatch.cli.tables import print_table
from drpwatch.errors import OutputError, UsageError

_UNSEEN = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - of the service, which has its own
_HOMES = (Path("/root"), Path("/home"))


def deploy(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if missing.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration that the daemon is to have; /etc/drpwatch/config.toml unless given.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[str, typer.Option(help="Who the daemon runs as.")] = "drpwatch",
    writes: Annotated[
        list[Path] | None,
        typer.Option(
            help="A directory below which sessions write their output; can be given several times.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write systemd unit, Prometheus job and rules, and Grafana dashboard for this host.

    Nothing is installed: what is printed tells how. Files of an earlier run are replaced.
    """
    from drpwatch.config import DEFAULT_CONFIG, Config, load_config
    from drpwatch.deploy.host import Host
    from drpwatch.places import SERVICE

    path = (config or DEFAULT_CONFIG).absolute()
    settings = load_config(path, SERVICE) if config is not None or path.is_file() else Config()
    program = _program()
    host = Host(program, path, settings, user, tuple(one.absolute() for one in writes or ()))
    files = host.files()
    for file in files:
        _write(directory / file.path, file.text)
    notes = _notes(host.program[0], writes=bool(writes))
    steps = _steps(directory, host.target)
    if as_json:
        listed = [{"path": str(directory / file.path), "purpose": file.purpose} for file in files]
        print(json.dumps({"files": listed, "steps": steps, "notes": notes}, indent=2))
        return
    print_table(("FILE", "IS"), [(str(directory / file.path), file.purpose) for file in files])
    for what, commands in steps.items():
        print(f"\n{what}:")
        for command in commands:
            print(f"  {command}")
    for note in notes:
        print(f"\n! {note}")


def _program() -> tuple[str, ...]:
    """Return the command by which this installation of drpwatch is run."""
    script = Path(sys.executable).with_name("drpwatch")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "drpwatch")


def _steps(directory: Path, target: str) -> dict[str, list[str]]:
    """Return the commands that put the files to use, by what they give."""
    quoted = shlex.quote(str(directory))
    return {
        "The service, as root": [
            f"cp -r {quoted}/etc/. /etc/",
            "systemd-sysusers && systemd-tmpfiles --create",
            "systemctl daemon-reload && systemctl enable --now drpwatch",
            "systemctl reload drpwatch     # after changes of the configuration",
        ],
        f"Prometheus, if it runs here; elsewhere, put this host's name for {target} into the job": [
            f"cp {quoted}/prometheus/drpwatch.rules.yml /etc/prometheus/     # and name it under rule_files:",
            f"cat {quoted}/prometheus/drpwatch.scrape.yml     # paste the job under scrape_configs:",
            "promtool check config /etc/prometheus/prometheus.yml && systemctl reload prometheus",
        ],
        "Grafana": [
            f"Dashboards > New > Import > {directory}/grafana/drpwatch.json, and choose the data source",
        ],
    }


def _notes(program: str, *, writes: bool) -> list[str]:
    """Return what will not work as it is."""
    notes = []
    if not writes:
        notes.append("no --writes DIR is given: the service may write its state, and no session's output")
    if any(Path(program).is_relative_to(place) for place in _UNSEEN):
        notes.append(
            f"{program}: the service does not see /tmp; install drpwatch elsewhere, as in /opt/drpwatch"
        )
    elif any(Path(program).is_relative_to(place) for place in _HOMES):
        notes.append(f"{program}: its user may not be able to enter this directory; /opt/drpwatch is better")
    return notes


def _write(path: Path, text: str) -> None:
    """Write a file and the folders above it.

    Raises
    ------
    OutputError
        It cannot be written.
    UsageError
        A file is in the place of a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{path.parent}: a file is where a directory should be") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
