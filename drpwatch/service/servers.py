"""The HTTP servers: uvicorn in threads, on sockets that were bound, and their rights set, before."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from drpwatch.errors import ConfigError
from drpwatch.service.peer import PeerProtocol

_BACKLOG = 128
_GRACE_S = 1
_STARTED_WITHIN_S = 10.0


def bind_unix(path: Path) -> socket.socket:
    """Return a listening socket that owner and group may use.

    Raises
    ------
    ConfigError
        The path cannot be bound.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        # Right from birth, not by a chmod after it. No other thread makes files yet.
        umask = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)  # Python's own "AF_UNIX path too long" has no strerror
        raise ConfigError(f"daemon.socket: {path} cannot be bound: {why.lower()}") from error
    return listener


def _remove_stale(path: Path) -> None:
    """Remove what a killed daemon left; this daemon holds the lock, so nobody answers there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is something else than a socket")
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, "another daemon answers there")


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises
    ------
    ConfigError
        The address is not ours, or in use.
    """
    try:
        (family, kind, protocol, _, address) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:  # ValueError: no host has such a name
        why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise ConfigError(f"daemon.http_host: {host} cannot be used: {why}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        hint = " (`ss -ltnp` shows by whom)" if error.errno == errno.EADDRINUSE else ""
        why = (error.strerror or "").lower()
        raise ConfigError(f"daemon.http_port: {host}:{port} cannot be bound: {why}{hint}") from error
    return listener


class Server:
    """One application on one listening socket, in a thread of its own."""

    def __init__(self, app: FastAPI, listener: socket.socket, name: str) -> None:
        config = uvicorn.Config(
            app,
            http=PeerProtocol,
            log_config=None,
            log_level="warning",  # its starts and stops are ours
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._listener = listener
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name=name, daemon=True
        )

    def start(self) -> None:
        """Start serving, and return when it does."""
        self._thread.start()
        deadline = time.monotonic() + _STARTED_WITHIN_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop within two seconds; open streams are cut."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_GRACE_S + 1.0)
        self._listener.close()
