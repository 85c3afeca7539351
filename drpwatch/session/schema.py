"""The journal's tables, and opening a database that fits them.

Every released schema stays here as one migration; `PRAGMA user_version` says how many have run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drpwatch.errors import JournalDamaged, JournalError, OutputError
from drpwatch.session import disk

MIGRATIONS = (
    """
    CREATE TABLE session (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        watch_root TEXT NOT NULL,
        out_dir TEXT NOT NULL,
        glob TEXT NOT NULL,
        micrograph_prefix TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        params_id INTEGER REFERENCES params(id),
        pixel_size_angstrom REAL,
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE transition (
        id INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL REFERENCES session(id),
        verb TEXT NOT NULL,
        from_state TEXT NOT NULL,
        to_state TEXT NOT NULL,
        reason TEXT,
        at REAL NOT NULL
    ) STRICT;
    CREATE TABLE params (
        id INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL REFERENCES session(id),
        version INTEGER NOT NULL,
        json TEXT NOT NULL,
        created_at REAL NOT NULL,
        UNIQUE (session_id, version)
    ) STRICT;
    CREATE TABLE micrograph (
        id INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL REFERENCES session(id),
        name TEXT NOT NULL,
        generation INTEGER NOT NULL,
        latest INTEGER NOT NULL DEFAULT 1,       -- the newest generation of this name
        published INTEGER NOT NULL DEFAULT 0,    -- the outputs hold the rows of this generation
        state TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'picked', 'failed')),
        reason TEXT,
        size_bytes INTEGER, mtime_ns INTEGER, inode INTEGER,
        height_px INTEGER, width_px INTEGER, dtype TEXT, data_offset_bytes INTEGER, compressed INTEGER,
        pixel_y_angstrom REAL, pixel_x_angstrom REAL,
        params_id INTEGER REFERENCES params(id),
        weights_sha256 TEXT, code_version TEXT,
        n_picks INTEGER, n_candidates INTEGER,
        threshold REAL,
        record_seq INTEGER,                      -- order of the rows in the outputs
        seconds TEXT,                            -- JSON, per stage
        first_seen_at REAL NOT NULL, ready_at REAL, recorded_at REAL,
        UNIQUE (session_id, name, generation)
    ) STRICT;
    CREATE INDEX micrograph_by_state ON micrograph (session_id, latest, state, ready_at, recorded_at);
    CREATE INDEX micrograph_by_record ON micrograph (session_id, record_seq);
    CREATE INDEX micrograph_by_publication ON micrograph (session_id, published, n_picks, recorded_at);
    CREATE TABLE candidates (                    -- apart, so that counting micrographs stays cheap
        micrograph_id INTEGER PRIMARY KEY REFERENCES micrograph(id),
        yx_score BLOB NOT NULL                   -- float32 little-endian (n, 3): y, x, score; best first
    ) STRICT;
    CREATE TABLE output (
        session_id INTEGER NOT NULL REFERENCES session(id),
        file TEXT NOT NULL,
        length_bytes INTEGER NOT NULL,
        dirty INTEGER NOT NULL,
        PRIMARY KEY (session_id, file)
    ) STRICT;
    """,
    """
    ALTER TABLE params ADD COLUMN weights_sha256 TEXT;       -- what the model's name stood for; NULL: not known
    ALTER TABLE params ADD COLUMN default_threshold REAL;    -- that these weights carry
    ALTER TABLE session ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;  -- changes of what outputs should hold
    ALTER TABLE session ADD COLUMN expected_end_at REAL;
    ALTER TABLE session ADD COLUMN backfill TEXT NOT NULL DEFAULT 'all';
    ALTER TABLE micrograph ADD COLUMN file_dirty INTEGER NOT NULL DEFAULT 0;  -- its picks file is to be written
    CREATE INDEX micrograph_by_file ON micrograph (session_id) WHERE file_dirty = 1;
    CREATE INDEX micrograph_by_sight ON micrograph (session_id, first_seen_at);
    CREATE TABLE passed_over (                   -- there before the session, and not wanted by it
        session_id INTEGER NOT NULL REFERENCES session(id),
        name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        PRIMARY KEY (session_id, name)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE crash (                         -- ends of the daemon that nobody asked for
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,                        -- when the next one started
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        micrograph_id INTEGER REFERENCES micrograph(id)  -- that was on the device
    ) STRICT;
    CREATE INDEX crash_by_micrograph ON crash (micrograph_id);
    """,
    """
    ALTER TABLE micrograph ADD COLUMN content TEXT;  -- checksum of what was picked; NULL: from before there was one
    ALTER TABLE micrograph ADD COLUMN source_missing INTEGER NOT NULL DEFAULT 0;  -- the file is not there any more
    ALTER TABLE micrograph ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;  -- somebody wants it picked again
    CREATE INDEX micrograph_by_content ON micrograph (session_id, content) WHERE content IS NOT NULL;
    CREATE INDEX micrograph_by_absence ON micrograph (session_id) WHERE source_missing = 1;
    """,
    """
    ALTER TABLE crash ADD COLUMN number INTEGER NOT NULL DEFAULT 0;  -- the same for all micrographs of one crash
    UPDATE crash SET number = id;
    """,
    """
    ALTER TABLE micrograph ADD COLUMN enlargement REAL;  -- of the diameter given, as picked; NULL: not known
    """,
)


_WAITS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
"""What SQLite says of a disk that may be well again later."""
_PLACE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY}
"""What it says of where the file lies, and of who has it open."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal at `path`, create it if absent, and bring it to the newest schema.

    Raises
    ------
    JournalDamaged
        It is damaged, or a part of it is missing. Nothing was changed.
    JournalError
        It cannot be opened, or was written by a newer drpwatch. Nothing was changed.
    OutputError
        Its disk is full or failing: try again.
    """
    with _explained(path):
        if _is_absent(path):
            _create(path)
        _check(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def check(path: Path) -> None:
    """Look whether `connect` would take a journal that is there, and change nothing; raises what it raises."""
    with _explained(path):
        if not _is_absent(path):
            _check(path)


def output_directories(path: Path) -> list[Path]:
    """Return the output directories of the sessions that a damaged journal still tells; none if it does not."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return [Path(row[0]) for row in connection.execute("SELECT out_dir FROM session ORDER BY id")]
        finally:
            connection.close()
    except sqlite3.Error:
        return []


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into a sentence."""
    try:
        yield
    except sqlite3.Error as error:
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells kinds of a kind
        if kind in _WAITS:
            raise OutputError(f"journal {path}: cannot be opened ({error})") from error
        if kind in _PLACE:
            raise JournalError(f"journal {path}: cannot be opened ({error})") from error
        raise _damaged(path, str(error)) from error


def _is_absent(path: Path) -> bool:
    """Tell whether there is no journal yet; a journal of which a part was lost is no such case."""
    if path.exists():
        if path.stat().st_size == 0:  # one is only put in place when it has its tables
            raise _damaged(path, "the file is empty")
        return False
    if path.with_name(f"{path.name}-wal").exists():
        # A new database beside it would take in what was meant for the old one.
        raise _damaged(path, "the file is gone, and what it had not taken in yet is still there")
    return True


def _create(path: Path) -> None:
    """Make a journal without sessions, which is there at once."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    connection = sqlite3.connect(beside, isolation_level=None)
    try:
        _migrate(connection, 0)
    finally:
        connection.close()
    disk.move(beside, path)


def _check(path: Path) -> None:
    """Refuse a journal that is damaged, or not for us, without writing to it or to what lies beside it."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        findings = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        if findings != ["ok"]:
            raise _damaged(path, "; ".join(findings))
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    finally:
        connection.close()
    if version > len(MIGRATIONS):
        raise JournalError(
            f"journal {path}: written by a newer drpwatch (schema {version}, this one knows"
            f" {len(MIGRATIONS)}); it was left as it is: install that version again"
        )


def _damaged(path: Path, findings: str) -> JournalDamaged:
    return JournalDamaged(f"journal {path}: damaged ({' '.join(findings.split())}); it was left as it is")


def _prepare(connection: sqlite3.Connection) -> None:
    """Set the durability that exactly-once rests on, and run the migrations that are missing."""
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: a committed outcome must survive a pulled plug, for output files are cut to what it says.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    _migrate(connection, version)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables of a version to the newest, each step wholly or not at all."""
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        )
