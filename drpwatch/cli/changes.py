"""`drpwatch session set|failed|retry|repick|rethreshold|rebuild`: changing what a session does or did."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from drpwatch.cli import remote, views
from drpwatch.cli.client import ControlClient, Json
from drpwatch.cli.remote import AsJson, Name, Socket, connect, model_name, print_view, progress, unix_time
from drpwatch.errors import DrpwatchError, UsageError

_NOT_TOLD = {"default", "header", "none", ""}


def set_values(
    name: Name,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            show_default=False,
            help="threshold (or default), model, diameter_angstrom, pixel_size_angstrom (or header),"
            " negative_stain (true or false), expected_end (2026-11-24T08:00, or none).",
        ),
    ],
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Change parameters for the micrographs to come; those that were picked become outdated."""
    changes = dict(_parse(text) for text in values)
    print_view(connect(socket).set(name, changes), as_json, _print_params)


def failed(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """List the micrographs that failed, and why."""
    micrographs = connect(socket).micrographs(name, "failed")
    if as_json:
        print(json.dumps({"micrographs": micrographs}, indent=2))
    else:
        views.print_failed(name, micrographs)


def retry(
    name: Name,
    glob: Annotated[
        str | None, typer.Argument(help="Only names that match; * stands for anything.", show_default=False)
    ] = None,
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Look at the micrographs that failed once more."""
    _repick(connect(socket), name, {"which": "failed", "glob": glob}, as_json)


def repick(
    name: Name,
    glob: Annotated[
        str | None, typer.Argument(help="Names that match; * stands for anything.", show_default=False)
    ] = None,
    only_outdated: Annotated[
        bool, typer.Option("--outdated", help="Those picked with other parameters or weights than now.")
    ] = False,
    only_failed: Annotated[bool, typer.Option("--failed", help="Those that failed.")] = False,
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Pick micrographs again with the parameters of now; their rows are replaced when that is done."""
    if only_outdated and only_failed:
        raise UsageError("give --outdated or --failed, not both")
    if glob is None and not (only_outdated or only_failed):
        raise UsageError("say what is to be picked again: --outdated, --failed, or a GLOB ('*' for all)")
    which = "outdated" if only_outdated else "failed" if only_failed else "recorded"
    _repick(connect(socket), name, {"which": which, "glob": glob}, as_json)


def rethreshold(
    name: Name,
    threshold: Annotated[float, typer.Argument(help="Least probability of a pick, 0 to 1.")],
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Move the threshold of all micrographs, those picked and those to come, without picking again."""
    client = connect(socket)
    client.ask(name, "rethreshold", {"threshold": threshold})
    print_view(_written(client, name), as_json, _print_picks)


def rebuild(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Write all STAR files of a session anew from the journal."""
    client = connect(socket)
    client.ask(name, "rebuild")
    print_view(_written(client, name), as_json, _print_picks)


COMMANDS: dict[str, Callable[..., None]] = {
    "set": set_values,
    "failed": failed,
    "retry": retry,
    "repick": repick,
    "rethreshold": rethreshold,
    "rebuild": rebuild,
}


def _parse(text: str) -> tuple[str, Any]:
    """Return one KEY=VALUE as the API takes it.

    Raises
    ------
    UsageError
        There is no such key, or the value is not of its kind.
    """
    key, found, value = text.partition("=")
    value = value.strip()
    parse = _PARSERS.get(key)
    if not found or parse is None:
        raise UsageError(f"{text!r}: give KEY=VALUE with one of the keys {', '.join(_PARSERS)}")
    try:
        return "expected_end_at" if key == "expected_end" else key, parse(value)
    except ValueError:
        raise UsageError(f"{text!r}: {_KINDS[key]}") from None


def _number(value: str) -> float:
    return float(value)


def _number_or_none(value: str) -> float | None:
    return None if value in _NOT_TOLD else float(value)


def _boolean(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError
    return value.lower() == "true"


def _time(value: str) -> float | None:
    return None if value in _NOT_TOLD else unix_time("expected_end", value)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "threshold": _number_or_none,
    "model": model_name,
    "diameter_angstrom": _number,
    "pixel_size_angstrom": _number_or_none,
    "negative_stain": _boolean,
    "expected_end": _time,
}
_KINDS = {
    "threshold": "give a probability from 0 to 1, or default",
    "diameter_angstrom": "give a number of Å",
    "pixel_size_angstrom": "give a number of Å, or header",
    "negative_stain": "give true or false",
}


def _repick(client: ControlClient, name: str, body: Json, as_json: bool) -> None:
    answer = client.ask(name, "repick", body)
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        n = answer["count"]
        print(f"session {name}: {n} {'micrograph is' if n == 1 else 'micrographs are'} picked again")
        if answer["missing"]:
            print(f"  {answer['missing']} not, for their files are not there any more; their picks stay")


def _written(client: ControlClient, name: str) -> Json:
    """Return the session once its outputs are as the journal says.

    Raises
    ------
    DrpwatchError
        They cannot be written now.
    """
    with progress() as tell:
        tell(f"session {name}: its files are written")
        while (view := client.session(name))["behind"]:
            problems = [one for one in view["problems"] if "cannot write" in one]
            if problems:
                raise DrpwatchError(f"{problems[0]}; the daemon goes on with it when that is possible")
            time.sleep(remote.POLL_S)
    return view


def _print_picks(view: Json) -> None:
    counts = view["micrographs"]
    print(f"session {view['name']}: {view['picks']} picks in {counts['picked']} micrographs")


def _print_params(view: Json) -> None:
    print(f"session {view['name']}: parameters version {view['params_version']}")
    views.print_params(view)
    if view["outdated"]:
        print(
            f"  {view['outdated']} picked micrographs are outdated: drpwatch session repick {view['name']} --outdated"
        )
