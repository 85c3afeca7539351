"""Sessions as text: the list, one session in full, and what was understood at its start."""

from __future__ import annotations

from drpwatch.cli.client import Json
from drpwatch.cli.tables import ago, clock, print_fields, print_table
from drpwatch.report.handover import Handover
from drpwatch.text import printable

LIST_HEADER = (
    *("NAME", "STATE", "PICKED", "READY", "WAITING", "FAILED", "PICKS"),
    *("PER HOUR", "LAST", "WATCHES"),
)
LIST_NUMBERS = LIST_HEADER[2:8]
_GB = 1e9


def print_list(views: list[Json]) -> None:
    """Print one line for each session."""
    if not views:
        print("no sessions yet: drpwatch session start NAME --watch DIR --diameter-angstrom D")
        return
    print_table(LIST_HEADER, [list_row(view) for view in views], right=LIST_NUMBERS)
    for view in views:
        print_problems(view, f"{view['name']}: ")


def list_row(view: Json) -> tuple[str, ...]:
    """Return one session under `LIST_HEADER`."""
    return (
        view["name"],
        view["state"],
        *(str(view["micrographs"][state]) for state in ("picked", "ready", "waiting", "failed")),
        str(view["picks"]),
        rate(view["micrographs_per_hour"]),
        ago(view["last_recorded_at"]),
        view["watch_root"],
    )


def device_line(device: Json) -> str:
    """Return a picking device in one line; why it is not ready is told by whoever tells reasons."""
    state = (
        "not ready" if device["not_ready"] else "released, nothing to pick" if device["released"] else "ready"
    )
    memory, tile_px = device["memory_bytes"], device["tile_px"]
    parts = [f"{printable(device['name'] or 'no device yet')}: {state}"]
    if memory and not device["released"]:
        used = memory["total"] - memory["free"]
        parts.append(
            f"{used / _GB:.1f} of {memory['total'] / _GB:.1f} GB used, {memory['reserved'] / _GB:.1f} of it by drpwatch"
        )
    if tile_px:
        parts.append(f"tiles of {tile_px} px")
    return ", ".join(parts)


def print_daemon(daemon: Json) -> None:
    """Print what picks, and where the page is."""
    if fields := _of_daemon(daemon):
        print_fields(fields)


def _of_daemon(daemon: Json) -> list[tuple[str, str]]:
    fields = [("device", device_line(device)) for device in daemon["devices"]]
    return fields if daemon["page"] is None else [*fields, ("page", daemon["page"])]


def print_notices(notices: list[str]) -> None:
    """Print what somebody should know about the daemon itself."""
    for notice in notices:
        print(f"  ! {printable(notice)}")


def print_understood(view: Json, daemon: Json | None = None) -> None:
    """Print what the session watches, looks for and writes, and what picks it."""
    print(f"session {view['name']}: {view['state']}")
    outputs = view["outputs"] or [view["out_dir"]]
    print_fields(
        [
            ("watches", f"{view['watch_root']}, files {view['glob']}{_backfill(view)}"),
            *_params(view),
            ("names", f"{view['micrograph_prefix']}PATH below the watched directory"),
            *(("writes" if i == 0 else "", path) for i, path in enumerate(outputs)),
            *([] if daemon is None else _of_daemon(daemon)),
        ]
    )
    print_problems(view)


def handover(view: Json) -> Handover:
    """Return what commands for other programs follow from."""
    return Handover(
        out_dir=view["out_dir"],
        watch_root=view["watch_root"],
        micrograph_prefix=view["micrograph_prefix"],
        diameter_angstrom=view["params"]["diameter_angstrom"],
        pixel_size_angstrom=view["pixel_size_angstrom"],
        negative_stain=view["params"]["negative_stain"],
    )


def print_params(view: Json) -> None:
    """Print the parameters in force."""
    print_fields(_params(view))


def _params(view: Json) -> list[tuple[str, str]]:
    """Return the parameters in force as fields."""
    params = view["params"]
    given, threshold = params["pixel_size_angstrom"], params["threshold"]
    found = view["pixel_size_angstrom"]
    read = "read from each micrograph's header" + ("" if found is None else f" ({found:g} Å)")
    fields = [
        ("diameter", f"{params['diameter_angstrom']:g} Å{_seen_diameter(view)}"),
        ("pixel size", read if given is None else f"{given:g} Å, whatever the headers say"),
        (
            "contrast",
            "negative stain: bright particles" if params["negative_stain"] else "ice: dark particles",
        ),
        ("threshold", "the default of the weights" if threshold is None else f"{threshold:g}"),
        ("model", f"{params['model']}{_sha256(view['weights_sha256'])}"),
    ]
    if view["expected_end_at"] is not None:
        fields.append(("expected end", clock(view["expected_end_at"])))
    return fields


def _seen_diameter(view: Json) -> str:
    """Return what the newest micrographs tell of the diameter, where it is more than what was given."""
    seen_angstrom = view["seen_diameter_angstrom"]
    if seen_angstrom is None:
        return ""
    return f"; rings in the newest power spectra tell of {seen_angstrom:.0f} Å, and so they are picked"


def print_session(view: Json) -> None:
    """Print all that is known of a session."""
    print_understood(view)
    counts = view["micrographs"]
    print_fields(
        [
            ("started", ago(view["created_at"])),
            ("state since", ago(view["changed_at"])),
            ("micrographs", ", ".join(f"{counts[state]} {state}" for state in counts)),
            ("parameters", f"version {view['params_version']}{_outdated(view)}"),
            ("picks", f"{view['picks']}{per_micrograph(view)}"),
            *_missing(view),
            *_found_by(view),
            ("per hour", rate(view["micrographs_per_hour"])),
            ("last recorded", ago(view["last_recorded_at"]) + (", idle" if view["idle"] else "")),
        ]
    )
    _print_micrographs("newest", view["newest"], counts["picked"] + counts["failed"], "recorded_at", limit=10)
    _print_micrographs("waiting", view["waiting"], counts["waiting"], "first_seen_at")
    _print_micrographs("failed", view["failed"], counts["failed"], "recorded_at")


def _print_micrographs(title: str, micrographs: list[Json], total: int, when: str, limit: int = 200) -> None:
    shown = micrographs[:limit]
    if not shown:
        return
    more = f" (the last {len(shown)} of {total})" if len(shown) < total else ""
    print(f"\n{title}{more}:")
    rows = [
        (one["name"], one["state"], _picks(one), ago(one[when]), _picked_with(one), _reason(one))
        for one in shown
    ]
    print_table(("MICROGRAPH", "STATE", "PICKS", "WHEN", "WITH", "REASON"), rows, right=("PICKS",))


def print_failed(name: str, micrographs: list[Json]) -> None:
    """Print the micrographs that failed, each with its reason."""
    if not micrographs:
        print(f"session {name}: no micrograph failed")
        return
    rows = [(one["name"], ago(one["recorded_at"]), one["reason"] or "") for one in micrographs]
    print_table(("MICROGRAPH", "WHEN", "REASON"), rows)


def print_problems(view: Json, prefix: str = "") -> None:
    """Print what holds a session up."""
    for problem in view["problems"]:
        print(f"  ! {prefix}{printable(problem)}")


def _picks(micrograph: Json) -> str:
    return "-" if micrograph["picks"] is None else str(micrograph["picks"])


def _picked_with(micrograph: Json) -> str:
    """Return version of the parameters, threshold and weights of what was picked."""
    if micrograph["picks"] is None:
        return "-"
    outdated = ", outdated" if micrograph["outdated"] else ""
    threshold, weights = micrograph["threshold"], micrograph["weights_sha256"]
    return f"v{micrograph['params_version']}, {threshold:g}, {weights[:8]}{outdated}"


def _reason(micrograph: Json) -> str:
    """Return why it waits or failed, and whether its file is still there."""
    missing = "source missing" if micrograph["source_missing"] else None
    return "; ".join(text for text in (micrograph["reason"], missing) if text)


def _missing(view: Json) -> list[tuple[str, str]]:
    """Return a field, if there are micrographs whose file is not there any more."""
    if not view["sources_missing"]:
        return []
    return [("source missing", f"{view['sources_missing']} micrographs; what was picked of them stays")]


def _found_by(view: Json) -> list[tuple[str, str]]:
    """Return a field about how new files are found, if not as usual."""
    return [] if view["no_events"] is None else [("found by", f"scans alone: {view['no_events']}")]


def _sha256(weights: str | None) -> str:
    return "" if weights is None else f" (SHA-256 {weights[:12]})"


def _backfill(view: Json) -> str:
    return "" if view["backfill"] == "all" else f", of those there at the start: {view['backfill']}"


def _outdated(view: Json) -> str:
    return f"; {view['outdated']} micrographs were picked with others" if view["outdated"] else ""


def rate(per_hour: float | None) -> str:
    """Return micrographs per hour."""
    return "-" if per_hour is None else f"{per_hour:.0f}"


def per_micrograph(view: Json) -> str:
    """Return the mean of the picks, as what follows their number."""
    picked = view["micrographs"]["picked"]
    return f", {view['picks'] / picked:.0f} per micrograph" if picked else ""
