"""Who is at the other end of a Unix socket connection.

The kernel notes the caller's process and user when it connects, so they cannot be forged. They reach
request handlers as `request.state.peer` when uvicorn serves with `http=PeerProtocol`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 200
"""Of one server at a time; a process may open 1024 files, unless it is allowed more."""

_UCRED = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that opened a connection, as it was when it did."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer | None:
    """Return the caller of a Unix socket connection; None for any other socket."""
    if connection.family != socket.AF_UNIX:
        return None
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which puts the connection's `Peer` into each request's state.

    It also takes no more connections than leave the daemon enough files to open.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the caller once for the connection, or hang up."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        # asyncio hands out a TransportSocket, which has `family` and `getsockopt` of the real one.
        self.app_state = {**self.app_state, "peer": peer_of(transport.get_extra_info("socket"))}
