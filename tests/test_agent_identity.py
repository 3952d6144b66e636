"""Instances are stable, differ between machines and users, and give neither away."""

from __future__ import annotations

from pathlib import Path

from srrrs.agent.identity import default_instance, machine_id, new_run
from srrrs.protocol.handshake import INSTANCE, RUN

MACHINE = "0123456789abcdef0123456789abcdef"


def test_the_default_is_stable_and_tells_machines_and_users_apart() -> None:
    one = default_instance(lambda: MACHINE, lambda: "1000")
    assert one == default_instance(lambda: MACHINE, lambda: "1000")
    assert one != default_instance(lambda: MACHINE, lambda: "1001")
    assert one != default_instance(lambda: MACHINE[::-1], lambda: "1000")
    assert MACHINE not in one
    assert INSTANCE.fullmatch(one)


def test_this_machine_has_one() -> None:
    assert default_instance() == default_instance()


def test_the_machine_id_is_read_where_systems_keep_it(tmp_path: Path) -> None:
    dbus, systemd = tmp_path / "dbus", tmp_path / "machine-id"
    dbus.write_text(MACHINE + "\n")
    assert machine_id((systemd, dbus)) == MACHINE
    systemd.write_text("f" * 32 + "\n")
    assert machine_id((systemd, dbus)) == "f" * 32


def test_what_is_no_machine_id_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    for text in ("uninitialized\n", "", "0" * 32, "not hexadecimal at all, is it?...\n"):
        path.write_text(text)
        assert machine_id((path,)) == machine_id(())
    assert machine_id(()) != ""


def test_runs_are_random() -> None:
    runs = {new_run() for _ in range(100)}
    assert len(runs) == 100
    assert all(RUN.fullmatch(run) for run in runs)
