"""The rooms of docs/architecture.md: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import srrrs

ROOT = Path(srrrs.__file__).parent
MAY: dict[str, set[str]] = {
    "protocol": set(),
    "http": set(),
    "config": {"protocol", "http", "net"},
    "net": {"protocol"},
    "relay": {"protocol", "http", "net", "config"},
    "agent": {"protocol", "http", "net", "config"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_those_below_it(room: str) -> None:
    """So relay and agent never import each other, and the protocol nothing of ours."""
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()}
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / room).rglob("*.py")
        for name in imports(path)
        if name.startswith("srrrs.")
        and (other := name.split(".")[1]) in rooms
        and other not in MAY[room] | {room}
    }
    assert not wrong


def test_autobahn_is_imported_in_one_room_alone() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for name in imports(path)
        if name.partition(".")[0] in {"autobahn", "txaio"}
    }
    assert users
    assert all(user.startswith("net/websocket/") for user in users)


def test_no_module_imports_the_global_reactor_at_its_top() -> None:
    """It is an argument; only the entry points look it up, inside functions."""
    wrong = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                wrong |= {str(path) for alias in node.names if alias.name == "reactor"}
    assert not wrong
