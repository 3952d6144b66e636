"""The relay's database: private, shared safely between processes and users, whole after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import srrrs
from srrrs.relay.directory import Directory
from srrrs.relay.reservation import Key
from srrrs.relay.scope import UNSCOPED
from srrrs.relay.store import MIGRATIONS, Store, StoreError, StoreMissing
from srrrs.relay.tokens import Tokens

SOURCE = Path(srrrs.__file__).parent.parent
OTHER_UID, OTHER_GID = 54321, 54322

as_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can act for another user"
)


def add_token(store: Store, name: str) -> None:
    with store.transaction():
        store.run("INSERT INTO tokens (id, name, created) VALUES (?, ?, 0)", (name, name))


def add_token_and_fail(store: Store, name: str) -> None:
    with store.transaction():
        add_token(store, name)
        raise ZeroDivisionError


def fill_the_disk(store: Store) -> None:
    with store.transaction():
        add_token(store, "b")
        with pytest.raises(StoreError, match="full"):
            add_token(store, "x" * 100_000)
        # SQLite may have taken back everything by itself; what follows must not pretend.
        add_token(store, "y" * 100_000)


def names(store: Store) -> list[str]:
    return [row[0] for row in store.rows("SELECT name FROM tokens ORDER BY name")]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- opening


def test_a_new_database_and_its_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "data"
    old = os.umask(0)
    try:
        with Store(folder) as store:
            add_token(store, "x")
    finally:
        os.umask(old)
    assert mode(folder) == 0o700
    for file in folder.iterdir():
        assert mode(file) == 0o600, file


def test_no_write_ahead_log_is_left_nor_needed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        add_token(store, "x")
        assert {file.name for file in tmp_path.iterdir()} <= {"relay.db", "relay.db-journal"}
        assert store.row("PRAGMA journal_mode") == ("truncate",)
        assert store.row("PRAGMA synchronous") == (2,)


def test_a_database_that_must_exist_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    with pytest.raises(StoreMissing, match="no relay has run here"):
        Store(folder, create=False)
    assert not folder.exists()
    Store(folder).close()
    Store(folder, create=False).close()


def one_line(caught: pytest.ExceptionInfo[StoreError], path: Path) -> None:
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_cannot_be_a_database_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(StoreError) as caught:
        Store(file / "data")
    one_line(caught, file)
    (tmp_path / "relay.db").write_text("this is text and no database" * 100)
    with pytest.raises(StoreError, match="not a database") as caught:
        Store(tmp_path)
    one_line(caught, tmp_path / "relay.db")


def test_a_folder_in_place_of_the_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "relay.db").mkdir()
    with pytest.raises(StoreError) as caught:
        Store(tmp_path)
    one_line(caught, tmp_path / "relay.db")


def test_a_database_of_a_newer_version_or_another_program_is_left_alone(tmp_path: Path) -> None:
    with Store(tmp_path / "new") as store:
        path = store.path
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    newer.close()
    with pytest.raises(StoreError, match="newer version"):
        Store(tmp_path / "new")

    (tmp_path / "other").mkdir()
    other = sqlite3.connect(tmp_path / "other" / "relay.db")
    other.execute("CREATE TABLE photographs (x)")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        Store(tmp_path / "other")


def test_every_older_version_is_brought_up_to_date_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        add_token(store, "kept")
    later = (*MIGRATIONS, ("ALTER TABLE tokens ADD COLUMN later TEXT",), ("not sql",))
    monkeypatch.setattr("srrrs.relay.store.MIGRATIONS", later)
    with pytest.raises(StoreError, match="syntax error"):
        Store(tmp_path)
    monkeypatch.setattr("srrrs.relay.store.MIGRATIONS", later[:-1])
    with Store(tmp_path) as store:
        assert store.rows("SELECT name, later FROM tokens") == [("kept", None)]
        assert store.row("PRAGMA user_version") == (len(MIGRATIONS) + 1,)


def test_what_the_first_version_wrote_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names and ports belong to the same services, and its tokens have no scope."""
    with monkeypatch.context() as patch:
        patch.setattr("srrrs.relay.store.MIGRATIONS", MIGRATIONS[:1])
        with Store(tmp_path) as store, store.transaction():
            store.run("INSERT INTO tokens (id, name, created) VALUES ('t', 'old', 1)")
            store.run(
                "INSERT INTO reservations (token_id, instance, service, kind, label, port, created,"
                " used) VALUES ('t', 'i', 'blog', 'http', 'blog', NULL, 1, 2),"
                " ('t', 'i', 'db', 'tcp', NULL, 20000, 1, 2)"
            )
    with Store(tmp_path) as store:
        (token,) = Tokens(store).list()
        assert token.scope == UNSCOPED
        directory = Directory(store, per_token=5)
        kept = directory.reserve_name(Key("t", "i", "blog"), "http", None, "", 3)
        assert (kept.name, kept.path, kept.created, kept.new) == ("blog", "", 1, False)
        port = directory.reserve_port(Key("t", "i", "db"), "tcp", [(20000, 20001)], 3)
        assert (port.port, port.new) == (20000, False)


# -- transactions


def test_an_exception_takes_back_its_own_block_only(tmp_path: Path) -> None:
    with Store(tmp_path) as store, store.transaction():
        add_token(store, "a")
        with pytest.raises(ZeroDivisionError):
            add_token_and_fail(store, "b")
        add_token(store, "c")
    with Store(tmp_path) as store:
        assert names(store) == ["a", "c"]
        with pytest.raises(ZeroDivisionError):
            add_token_and_fail(store, "d")
        assert names(store) == ["a", "c"]
        add_token(store, "e")
        assert names(store) == ["a", "c", "e"]


def test_nothing_is_written_outside_a_transaction(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        with pytest.raises(StoreError, match="no transaction"):
            store.run("DELETE FROM tokens")
        with pytest.raises(StoreError, match="no transaction"):
            store.run_many("DELETE FROM tokens WHERE id = ?", [("x",)])


def test_a_full_disk_is_an_error_and_leaves_the_store_usable(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        add_token(store, "a")
        assert store.rows("PRAGMA max_page_count = 1")  # as if the disk were full
        with pytest.raises(StoreError, match="full"):
            fill_the_disk(store)
        store.rows("PRAGMA max_page_count = 100000")
        add_token(store, "c")
        assert names(store) == ["a", "c"]


def test_a_locked_database_is_an_error_after_the_time_given(tmp_path: Path) -> None:
    with Store(tmp_path) as holder, Store(tmp_path, busy=0.0) as waiter:
        with holder.transaction():
            assert names(waiter) == [], "reading goes on beside a writer"
            with pytest.raises(StoreError, match="locked"):
                add_token(waiter, "x")
        add_token(waiter, "x")
        assert names(holder) == ["x"]


def test_reading_never_keeps_others_from_writing(tmp_path: Path) -> None:
    with Store(tmp_path) as reader, Store(tmp_path, busy=0.0) as writer:
        for name in "abc":
            add_token(writer, name)
            assert reader.row("SELECT name FROM tokens ORDER BY name") == ("a",)
            assert len(reader.rows("SELECT name FROM tokens")) == len(names(writer))
            reader.changed()


def test_changed_tells_of_others_commits_once_and_not_of_ones_own(tmp_path: Path) -> None:
    with Store(tmp_path) as one, Store(tmp_path) as two:
        assert not one.changed()
        add_token(one, "a")
        assert not one.changed()
        assert two.changed()
        assert not two.changed()
        with pytest.raises(ZeroDivisionError):
            add_token_and_fail(two, "b")
        assert not one.changed(), "what was taken back is no change"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_may_not_use_the_connection(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.rows("SELECT 1")
            except StoreError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- other processes and users

PRELUDE = """
import os, sys
from pathlib import Path
from srrrs.relay.store import Store
folder = Path(sys.argv[1])
def add(store, name):
    with store.transaction():
        store.run("INSERT INTO tokens (id, name, created) VALUES (?, ?, 0)", (name, name))
"""


def python(code: str, folder: Path, *, uid: int | None = None) -> subprocess.Popen[str]:
    """A process of its own running `code`; as user `uid` when one is given."""
    drop = f"os.setgroups([]); os.setgid({OTHER_GID}); os.setuid({uid})\n" if uid else ""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + drop + code, str(folder)],
        cwd=SOURCE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


MID_COMMIT = """
store = Store(folder)
add(store, "before")
with store.transaction():
    # A cache of one page makes SQLite write to the file in the middle of the transaction.
    store.rows("PRAGMA cache_size = 1")
    for n in range(500):
        store.run("INSERT INTO tokens (id, name, created) VALUES (?, ?, 0)", (str(n) * 100,) * 2)
    print("half-way", flush=True)
    sys.stdin.read()
"""


def kill_mid_commit(folder: Path, uid: int | None = None) -> None:
    process = python(MID_COMMIT, folder, uid=uid)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half-way\n"
        process.send_signal(signal.SIGKILL)
    journal = folder / "relay.db-journal"
    assert journal.stat().st_size > 0, "there is something to roll back"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_writer_killed_half_way_leaves_what_was_before(tmp_path: Path) -> None:
    kill_mid_commit(tmp_path)
    with Store(tmp_path) as store:
        assert names(store) == ["before"]
        assert store.row("PRAGMA integrity_check") == ("ok",)


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A data folder of another user, who can reach it."""
    outer = Path(tempfile.mkdtemp(prefix="srrrs-store-"))
    outer.chmod(0o755)
    folder = outer / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, OTHER_UID, OTHER_GID)
    yield folder
    shutil.rmtree(outer)


def assert_theirs(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (OTHER_UID, OTHER_GID), path
    for path in folder.iterdir():
        assert mode(path) == 0o600, path


@as_root
def test_a_database_made_by_root_belongs_to_the_folders_owner(others_folder: Path) -> None:
    with Store(others_folder) as store:
        add_token(store, "root")
        assert_theirs(others_folder)
        with store.transaction():
            store.run("DELETE FROM tokens")
            assert_theirs(others_folder)  # with the journal in use
    assert_theirs(others_folder)
    finish(python("add(Store(folder), 'relay')", others_folder, uid=OTHER_UID))
    with Store(others_folder) as store:
        assert names(store) == ["relay"]


@as_root
def test_root_beside_a_live_relay_of_another_user_leaves_everything_usable(
    others_folder: Path,
) -> None:
    relay = python(
        """
store = Store(folder)
for line in sys.stdin:
    print(store.changed(), len(store.rows("SELECT 1 FROM tokens")), flush=True)
    add(store, line.strip())
""",
        others_folder,
        uid=OTHER_UID,
    )
    with relay:
        assert relay.stdin is not None
        assert relay.stdout is not None

        def turn(name: str) -> str:
            assert relay.stdin is not None
            assert relay.stdout is not None
            relay.stdin.write(name + "\n")
            relay.stdin.flush()
            return relay.stdout.readline()

        assert turn("a") == "False 0\n"
        with Store(others_folder) as store:
            add_token(store, "root")
            assert_theirs(others_folder)
            assert turn("b") == "True 2\n"
            add_token(store, "root2")
        assert_theirs(others_folder)
        assert turn("c") == "True 4\n"
        relay.stdin.close()
        assert relay.wait(60) == 0
    with Store(others_folder) as store:
        assert names(store) == ["a", "b", "c", "root", "root2"]


@as_root
def test_root_killed_half_way_leaves_a_journal_that_the_relay_can_roll_back(
    others_folder: Path,
) -> None:
    kill_mid_commit(others_folder)
    assert_theirs(others_folder)
    code = "print([row[0] for row in Store(folder).rows('SELECT name FROM tokens')])"
    assert finish(python(code, others_folder, uid=OTHER_UID)) == "['before']\n"


@as_root
def test_roots_files_of_an_earlier_time_are_handed_over(others_folder: Path) -> None:
    with Store(others_folder) as store:
        add_token(store, "x")
    for file in others_folder.iterdir():
        os.chown(file, 0, 0)
    failing = "Store(folder)"
    process = python(f"try:\n    {failing}\nexcept Exception as e:\n    print(e)",
                     others_folder, uid=OTHER_UID)  # fmt: skip
    assert "may not read and write it" in finish(process)
    Store(others_folder).close()
    assert_theirs(others_folder)


@as_root
def test_a_folder_that_root_makes_in_a_users_folder_is_that_users(others_folder: Path) -> None:
    with Store(others_folder / "state" / "srrrs") as store:
        add_token(store, "x")
    for path in others_folder.rglob("*"):
        assert path.stat().st_uid == OTHER_UID, path


@as_root
@pytest.mark.parametrize("how", ["symlink", "hard link"])
def test_root_follows_no_link_planted_in_a_users_folder(
    others_folder: Path, tmp_path: Path, how: str
) -> None:
    target = others_folder.parent / "precious"
    target.touch(0o600)
    link = others_folder / "relay.db"
    if how == "symlink":
        link.symlink_to(target)
    else:
        link.hardlink_to(target)
    with pytest.raises(StoreError, match="not a plain file"):
        Store(others_folder)
    assert target.stat().st_uid == 0
    assert target.stat().st_size == 0
