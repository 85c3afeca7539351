"""A real uvicorn on a Unix socket, in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from drpwatch.service.peer import PeerProtocol
from tests.support import PATIENCE, eventually


@contextmanager
def serving(app: FastAPI, path: Path) -> Iterator[Path]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    config = uvicorn.Config(
        app, http=PeerProtocol, log_config=None, lifespan="off", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    eventually(lambda: server.started, 10, "uvicorn answers")
    try:
        yield path
    finally:
        server.should_exit = True
        thread.join(PATIENCE * 10)
        assert not thread.is_alive()
