"""A file server that fails on request: a mount whose requests the kernel hands to this process.

It mirrors a directory, read-only, through the kernel's FUSE device, without any library. While a fault is
set, every request is answered with its error, or not at all, as NFS does with a server that is gone. So the
daemon under test meets the real error in the real system call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import threading
from collections import Counter
from pathlib import Path

DEVICE = Path("/dev/fuse")
MNT_DETACH = 2
MS_BIND = 4096
ROOT_NODE = 1

# What the kernel may ask, by number; see linux/fuse.h.
LOOKUP, FORGET, GETATTR, READLINK = 1, 2, 3, 5
OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 27, 28, 29, 36, 38, 42
UNANSWERED = (FORGET, BATCH_FORGET)
HARMLESS = (INIT, DESTROY, RELEASE, RELEASEDIR, FLUSH)

_IN = struct.Struct("<IIQQIIIHH")  # length, operation, unique, node, uid, gid, pid
_OUT = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_LOOK_S = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


def can_mount() -> bool:
    """Whether this process may mount."""
    capabilities = Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0]
    return DEVICE.exists() and bool(int(capabilities, 16) >> 21 & 1)  # CAP_SYS_ADMIN


def mount(source: str, target: Path, kind: str, options: str = "") -> None:
    flags = MS_BIND if kind == "bind" else 0
    if _libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def unmount(target: Path) -> None:
    _libc.umount2(str(target).encode(), MNT_DETACH)


class FileServer:
    """Serves `backing` at `target`, as a file system of type `kind`."""

    def __init__(self, backing: Path, target: Path, kind: str = "fuse.sshfs", *, hangs: bool = False) -> None:
        self.backing, self.target, self._kind = backing, target, kind
        self.asked: Counter[int] = Counter()
        """How often the kernel asked what."""
        self._lock = threading.Lock()
        self._error = 0
        self._hangs = hangs
        self._held: list[bytes] = []
        self._nodes: dict[int, str] = {ROOT_NODE: ""}  # node -> path below `backing`
        self._numbers: dict[tuple[str, int], int] = {}  # path, inode -> node
        self._device = -1
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._closing = threading.Event()

    def __enter__(self) -> FileServer:
        self._device = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK)
        options = f"fd={self._device},rootmode=40755,user_id=0,group_id=0,allow_other"
        mount("test", self.target, self._kind, options)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mend()
        unmount(self.target)
        self._closing.set()
        self._server.join()  # before the number of its descriptor can be another file's
        os.close(self._device)

    # ---- faults ---------------------------------------------------------------------------------

    def fail(self, error: int) -> None:
        """Answer every request with an error from now on."""
        self._error = error

    def hang(self) -> None:
        """Answer nothing any more."""
        self._hangs = True

    def mend(self) -> None:
        """Serve again, first what was asked meanwhile."""
        with self._lock:
            self._error, self._hangs = 0, False
            held, self._held = self._held, []
        for request in held:
            self._answer(request)

    # ---- requests -------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                if not select.select([self._device], [], [], _LOOK_S)[0]:
                    continue
                request = os.read(self._device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue  # the request was taken back
                return  # unmounted
            if _IN.unpack_from(request)[1] == INTERRUPT:
                self._let_go(struct.unpack_from("<Q", request, _IN.size)[0])
                continue
            with self._lock:
                if self._hangs and _IN.unpack_from(request)[1] not in UNANSWERED:
                    self._held.append(request)
                    continue
            self._answer(request)

    def _let_go(self, unique: int) -> None:
        """End a request whose process was killed, as NFS does."""
        with self._lock:
            held = [request for request in self._held if _IN.unpack_from(request)[2] == unique]
            self._held = [request for request in self._held if request not in held]
        if held:
            os.write(self._device, _OUT.pack(_OUT.size, -errno.EINTR, unique))

    def _answer(self, request: bytes) -> None:
        _, operation, unique, node, *_ = _IN.unpack_from(request)
        self.asked[operation] += 1
        if operation in UNANSWERED:
            return
        error, body = 0, b""
        try:
            if self._error and operation not in HARMLESS:
                raise OSError(self._error, "as the test wants it")
            body = self._do(operation, node, request[_IN.size :])
        except OSError as problem:
            error = problem.errno or errno.EIO
        try:
            os.write(self._device, _OUT.pack(_OUT.size + len(body), -error, unique) + body)
        except OSError:
            return  # whoever asked was killed, or the mount is gone

    def _do(self, operation: int, node: int, body: bytes) -> bytes:
        if operation == INIT:
            return struct.pack("<4I2H2I2H8I", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 32, 0, *[0] * 8)
        path = self._nodes[node]
        if operation == LOOKUP:
            return self._entry(f"{path}/{os.fsdecode(body.rstrip(bytes(1)))}")
        if operation == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self._attributes(path)
        if operation == READLINK:
            return os.fsencode(os.readlink(self._real(path)))
        if operation in (OPEN, OPENDIR):
            os.stat(self._real(path))
            return struct.pack("<QII", 0, 1 if operation == OPEN else 0, 0)  # 1: do not cache
        if operation == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return self._read(path, offset, size)
        if operation == READDIR:
            _, offset, size = struct.unpack_from("<QQI", body)
            return self._list(path, offset, size)
        if operation == STATFS:
            return struct.pack("<5Q4I24x", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096, 0)
        if operation in HARMLESS:
            return b""
        raise OSError(errno.ENOSYS, "not served")

    def _real(self, path: str) -> str:
        return f"{self.backing}{path}"

    def _entry(self, path: str) -> bytes:
        attributes, inode = self._attributes(path), os.lstat(self._real(path)).st_ino
        node = self._numbers.setdefault((path, inode), len(self._numbers) + ROOT_NODE + 1)
        self._nodes[node] = path
        return struct.pack("<4Q2I", node, 0, 0, 0, 0, 0) + attributes

    def _attributes(self, path: str) -> bytes:
        status = os.lstat(self._real(path))
        times_ns = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        return _ATTRIBUTES.pack(
            status.st_ino,
            status.st_size,
            status.st_blocks,
            *(time_ns // 10**9 for time_ns in times_ns),
            *(time_ns % 10**9 for time_ns in times_ns),
            status.st_mode,
            status.st_nlink,
            status.st_uid,
            status.st_gid,
            0,
            4096,
            0,
        )

    def _read(self, path: str, offset: int, size: int) -> bytes:
        with open(self._real(path), "rb") as file:
            return os.pread(file.fileno(), size, offset)

    def _list(self, path: str, offset: int, size: int) -> bytes:
        listed = b""
        with os.scandir(self._real(path)) as entries:
            for number, entry in enumerate(sorted(entries, key=lambda one: one.name), start=1):
                if number <= offset:
                    continue
                name = os.fsencode(entry.name)
                kind = stat.S_IFMT(os.lstat(entry.path).st_mode) >> 12
                record = struct.pack("<QQII", entry.inode(), number, len(name), kind) + name
                record += bytes(-len(record) % 8)
                if len(listed) + len(record) > size:
                    break
                listed += record
        return listed
