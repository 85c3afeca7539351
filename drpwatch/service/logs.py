"""The log: structlog's events and other libraries' records, as one stream.

JSON lines where a machine reads (systemd, a pipe), a console layout where a person does. Nothing
that looks like a secret leaves through it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from drpwatch.text import printable

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

HIDDEN = "[hidden]"

_SECRET_KEY = re.compile(r"passw|secret|token|credential|authorization|cookie|api_?key|private_?key", re.I)
_SECRET_TEXT = re.compile(
    r"(?P<url>://[^/\s:@]*:)[^@\s/]+(?=@)"
    r"|(?P<scheme>\b(?:bearer|authorization:\s*\w+)\s+)[A-Za-z0-9+/._~=-]{6,}"
    r"|(?P<pair>\b\w*(?:password|passwd|secret|token|api_?key)\w*\s*[=:]\s*)[^\s,;&\"']+",
    re.I,
)

_IN_LINES = ("exception", "stack")  # keys whose text has several lines

_QUIET = {
    "uvicorn.access": logging.WARNING,  # each scrape and each health check
    "watchdog": logging.WARNING,  # each inotify event
    "asyncio": logging.WARNING,
}


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Send all logging of this process to one stream.

    Parameters
    ----------
    log_format
        "auto" is "console" on a terminal outside systemd, else "json".
    level
        The least level that is written.
    stream
        None is standard output.
    """
    stream = sys.stdout if stream is None else stream
    # A file name that is no valid text must not cost its log line.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=_rendering(log_format, stream),
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=False,  # modules take their logger before this runs
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, threshold))
    logging.captureWarnings(True)


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what looks like a secret, by its key or within a text."""
    return {
        key: HIDDEN if _SECRET_KEY.search(key) else _without_secrets(value) for key, value in event.items()
    }


def _without_secrets(value: Any) -> Any:
    """Return a value with its secrets replaced, at any depth."""
    if isinstance(value, str):
        return _SECRET_TEXT.sub(
            lambda found: (found["url"] or found["scheme"] or found["pair"] or "") + HIDDEN, value
        )
    if isinstance(value, Mapping):
        return hide_secrets(None, "", {str(key): inner for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return [_without_secrets(inner) for inner in value]
    return value


def _rendering(log_format: LogFormat, stream: TextIO) -> list[Processor]:
    """Return the last steps: from an event to its line."""
    terminal = stream.isatty()
    under_systemd = "JOURNAL_STREAM" in os.environ or "INVOCATION_ID" in os.environ
    rendering: list[Processor] = [structlog.processors.JSONRenderer(serializer=_to_json)]  # all in ASCII
    if log_format == "console" or (log_format == "auto" and terminal and not under_systemd):
        rendering = [
            _all_printable,
            structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback),
        ]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,  # before secrets are hidden: tracebacks have some
        hide_secrets,
        *rendering,
    ]


def _all_printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write out what would steer the terminal; values that are no text are shown by their `repr`, which does."""
    return {
        key: printable(str(value), keep="\n\t" if key in _IN_LINES else "")
        if isinstance(value, str | Path)
        else value
        for key, value in event.items()
    }


def _to_json(event: EventDict, **_options: Any) -> str:
    """Return one line of JSON, the keys that every event has first."""
    order = ("timestamp", "level", "logger", "event")
    ordered = {key: event[key] for key in order if key in event} | dict(event)
    return json.dumps(ordered, default=_plain)


def _plain(value: object) -> object:
    """Return a JSON value for what JSON does not know."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return repr(value)
