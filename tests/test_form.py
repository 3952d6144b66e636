"""Where modules were compiled, it is these that run, and they carry bytes as their sources do."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from srrrs import _form
from tests.protocol.pair import Pair

ROOT: Final = Path(__file__).parent.parent


def compiled_modules() -> list[str]:
    """The modules that setup.py has compiled."""
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    (listed,) = (
        ast.literal_eval(each.value)
        for each in tree.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "COMPILED"
    )
    return [name.removesuffix(".py").replace("/", ".") for name in listed]


def test_the_forms_are_not_mixed() -> None:
    """All modules are compiled, or none is."""
    names = compiled_modules()
    assert names == sorted(names)
    for name in names:
        path = import_module(name).__file__
        assert path is not None
        assert path.endswith(".py") is not _form.is_compiled()


def test_a_tunnel_carries_bytes() -> None:
    """Through both ends of a session, cut at odd places."""
    pair = Pair()
    end = pair.relay.open()
    sent = os.urandom(100_000)
    end.stream.write(sent)
    end.stream.finish()
    pair.pump(piece=1001)
    other = pair.agent.ends[end.stream.id]
    assert bytes(other.data) == sent
    assert other.fin


@pytest.mark.parametrize(("asked", "words"), [("0", None), ("1", "plain Python")])
def test_plain_python_can_be_asked_for(asked: str, words: str | None) -> None:
    """By SRRRS_PURE in the environment, whatever was built."""
    done = subprocess.run(
        [sys.executable, "-c", "from srrrs import _form; print(_form.describe())"],
        cwd=ROOT,
        env={**os.environ, "SRRRS_PURE": asked},
        capture_output=True,
        text=True,
        check=True,
    )
    if words is None and "SRRRS_PURE" not in os.environ:
        words = _form.describe()
    assert words is None or done.stdout.strip() == words
