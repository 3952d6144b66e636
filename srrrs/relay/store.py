"""The relay's SQLite database: `relay.db` in the data folder.

The relay reads and writes it from its reactor thread while `srrrs-tunnel token` commands, often
run as root, write beside it. That decides three things:

* The journal is a rollback journal (TRUNCATE), never a write-ahead log: a WAL needs two more
  files, and those outlive a process that was killed.
* Nothing here may belong to root when the relay does not run as root. A new database is given
  to the owner of the data folder; SQLite gives the journal to the owner of the database
  (`robustFchown` in its os_unix.c).
* Every statement is read to its end at once: a half-read SELECT would keep a shared lock, and
  no other process could commit.

A connection must not cross a fork: open the store after daemonizing and after dropping
privileges (in `startService`).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

DATABASE_NAME: Final = "relay.db"

#: Seconds a statement waits for another process's lock. It is also the longest that a `token`
#: command which is stopped in the middle of a commit can hold up the relay's reactor.
BUSY_TIMEOUT: Final = 2.0

#: `PRAGMA application_id` ("srrs"), so that file(1) and we know the file for ours.
APPLICATION_ID: Final = 0x73727273

#: One tuple of statements for each version of the schema; `PRAGMA user_version` counts them.
#: Append only: a released entry never changes.
MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        """
        CREATE TABLE tokens (
            id      TEXT PRIMARY KEY,
            name    TEXT NOT NULL,
            created REAL NOT NULL,
            expires REAL,
            revoked REAL,
            used    REAL
        ) WITHOUT ROWID
        """,
        "CREATE UNIQUE INDEX tokens_name ON tokens (name) WHERE revoked IS NULL",
        """
        CREATE TABLE secrets (
            number   INTEGER PRIMARY KEY,
            token_id TEXT NOT NULL,
            digest   BLOB NOT NULL,
            until    REAL
        )
        """,
        "CREATE INDEX secrets_token ON secrets (token_id)",
        """
        CREATE TABLE reservations (
            token_id TEXT NOT NULL,
            instance TEXT NOT NULL,
            service  TEXT NOT NULL,
            kind     TEXT NOT NULL,
            label    TEXT UNIQUE,
            port     INTEGER UNIQUE,
            created  REAL NOT NULL,
            used     REAL NOT NULL,
            PRIMARY KEY (token_id, instance, service),
            CHECK ((label IS NULL) <> (port IS NULL))
        ) WITHOUT ROWID
        """,
        "CREATE INDEX reservations_used ON reservations (used)",
    ),
    (
        # What a token may publish: words with a space between, or NULL for the default.
        "ALTER TABLE tokens ADD COLUMN hosts TEXT",
        "ALTER TABLE tokens ADD COLUMN ports TEXT",
        """
        CREATE TABLE reservations_2 (
            token_id TEXT NOT NULL,
            instance TEXT NOT NULL,
            service  TEXT NOT NULL,
            kind     TEXT NOT NULL,
            name     TEXT,
            path     TEXT NOT NULL,
            port     INTEGER UNIQUE,
            created  REAL NOT NULL,
            used     REAL NOT NULL,
            PRIMARY KEY (token_id, instance, service),
            CHECK ((name IS NULL) <> (port IS NULL))
        ) WITHOUT ROWID
        """,
        """
        INSERT INTO reservations_2
            SELECT token_id, instance, service, kind, label, '', port, created, used
            FROM reservations
        """,
        "DROP TABLE reservations",
        "ALTER TABLE reservations_2 RENAME TO reservations",
        "CREATE INDEX reservations_used ON reservations (used)",
        "CREATE UNIQUE INDEX reservations_name ON reservations (name, kind = 'tls', path)",
        """
        CREATE TABLE kept_names (
            name     TEXT NOT NULL PRIMARY KEY,
            token_id TEXT NOT NULL,
            since    REAL NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX kept_names_token ON kept_names (token_id, since)",
    ),
)

Row = tuple[Any, ...]


class StoreError(Exception):
    """The database cannot be opened, read or written now; one line that says why."""


class StoreMissing(StoreError):
    """There is no database yet, and none was to be made."""


class Store:
    """An open database. Not for use from several threads, nor in a forked child.

    :param data_dir: the data folder; a missing one is made with mode 0700.
    :param create: whether a missing database may be made; if not, :exc:`StoreMissing`.
    :param busy: seconds to wait for another process's lock.
    :raises StoreError: for whatever stands in the way.
    """

    def __init__(self, data_dir: Path, *, create: bool = True, busy: float = BUSY_TIMEOUT) -> None:
        self.path = data_dir / DATABASE_NAME
        self._depth = 0
        self._pid = os.getpid()
        try:
            _prepare(data_dir, self.path, create)
        except OSError as error:
            name = error.filename if error.filename is not None else self.path
            raise StoreError(f"cannot use {name}: {error.strerror}") from None
        with self._errors("open"):
            # autocommit: transactions are ours alone (see transaction()).
            self._db = sqlite3.connect(self.path, timeout=busy, isolation_level=None)
        try:
            with self._errors("open"):
                self._set_up()
                self._version = self._data_version()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of a SELECT.

        :raises StoreError: when they cannot be read.
        """
        self._check_process()
        with self._errors("read"):
            return self._db.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """The first row of a SELECT, or None.

        :raises StoreError: when it cannot be read.
        """
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def run(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Change rows, inside :meth:`transaction`; the number of rows changed.

        :raises StoreError: when they cannot be written.
        """
        self._check_transaction()
        with self._errors("write"):
            return self._db.execute(sql, parameters).rowcount

    def run_many(self, sql: str, parameters: Iterable[Sequence[object]]) -> None:
        """Run one statement with each of many parameters, inside :meth:`transaction`.

        :raises StoreError: when they cannot be written.
        """
        self._check_transaction()
        with self._errors("write"):
            self._db.executemany(sql, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside takes effect together, on disk when the block ends.

        An exception takes everything in the block back. Blocks nest: an inner one that fails
        takes back its own part only, and the outermost one commits. So many reservations can
        share one commit; nothing of them may be promised to anybody before the block has ended.

        :raises StoreError: when it cannot begin or be committed; nothing was written then.
        """
        self._check_process()
        nested = self._depth > 0
        if nested:
            self._check_transaction()
        with self._errors("write"):
            # IMMEDIATE: what is read inside stays true until the commit.
            self._db.execute(f"SAVEPOINT s{self._depth}" if nested else "BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            self._roll_back()
            raise
        self._depth -= 1
        try:
            # A full disk, among others, makes SQLite roll back everything by itself.
            self._check_transaction()
            with self._errors("write"):
                self._db.execute(f"RELEASE s{self._depth}" if nested else "COMMIT")
        except StoreError:
            self._roll_back()
            raise

    def changed(self) -> bool:
        """Whether another connection has committed since the last call (or since opening).

        Cheap enough for every second: two locks and a counter read from the file's head. What
        this store wrote itself does not count.

        :raises StoreError: when the file cannot be read.
        """
        self._check_process()
        with self._errors("read"):
            version = self._data_version()
        changed = version != self._version
        self._version = version
        return changed

    # -- private

    def _set_up(self) -> None:
        self._db.execute("PRAGMA journal_mode = TRUNCATE").fetchall()
        self._db.execute("PRAGMA synchronous = FULL")
        version = self._user_version()
        if version < len(MIGRATIONS):
            with self.transaction():
                self._migrate()
        elif version > len(MIGRATIONS):
            raise StoreError(f"{self.path} was written by a newer version of srrrs")

    def _migrate(self) -> None:
        application: int = self._db.execute("PRAGMA application_id").fetchall()[0][0]
        tables: int = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
        if application != APPLICATION_ID and tables:
            raise StoreError(f"{self.path} is a database of another program")
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        # Read again: another process may have migrated while we waited for the lock.
        for statements in MIGRATIONS[self._user_version() :]:
            for statement in statements:
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _user_version(self) -> int:
        version: int = self._db.execute("PRAGMA user_version").fetchall()[0][0]
        return version

    def _data_version(self) -> int:
        version: int = self._db.execute("PRAGMA data_version").fetchall()[0][0]
        return version

    def _roll_back(self) -> None:
        if not self._db.in_transaction:
            return
        with self._errors("write"):
            if self._depth:
                self._db.execute(f"ROLLBACK TO s{self._depth}")
                self._db.execute(f"RELEASE s{self._depth}")
            else:
                self._db.execute("ROLLBACK")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError(f"{self.path} was opened by another process")

    def _check_transaction(self) -> None:
        if not self._db.in_transaction:
            raise StoreError(f"cannot write {self.path}: no transaction")

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot {what} {self.path}: {error}") from error


def _prepare(data_dir: Path, path: Path, create: bool) -> None:
    """Make folder and file where missing, private, and owned by who will use them."""
    if not create and not path.exists():
        raise StoreMissing(f"there is no {path}: no relay has run here and no token was made")
    _make_folder(data_dir)
    owner = data_dir.stat()
    if not path.exists():
        _make_file(path)
    if sys.platform != "win32" and os.geteuid() == 0 and owner.st_uid != 0:
        for file in (path, Path(f"{path}-journal")):
            _give(file, owner)
    elif not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(f"cannot use {path}: this user may not read and write it")


def _make_folder(path: Path, mode: int = 0o700) -> None:
    if path.is_dir():
        return
    parent = path.parent
    if parent != path:
        _make_folder(parent, 0o755)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if path.is_dir():
            return  # somebody else made it just now
        raise
    if sys.platform != "win32" and os.geteuid() == 0:
        # Made by root in somebody's home: it is theirs.
        owner = parent.stat()
        if owner.st_uid != 0:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _make_file(path: Path) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        pass  # somebody else made it just now


def _give(path: Path, owner: os.stat_result) -> None:
    """Give root's file in somebody's folder to them; refuse what they may have planted there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise StoreError(f"cannot use {path}: it is not a plain file")
    if status.st_uid == 0:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
