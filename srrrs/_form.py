"""The two forms of the modules on a byte's way: compiled, or the same sources as plain Python.

``setup.py`` says which these are. A compiled module stands beside its source, and comes first when
it is imported, unless ``SRRRS_PURE=1`` in the environment asks for the source.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType


class SourceFinder:
    """Finds our modules' sources only."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.startswith("srrrs."):
            for folder in path or ():
                finder = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
                spec = finder.find_spec(name)
                if spec is not None and spec.loader is not None:
                    return spec
        return None


def prefer_sources() -> None:
    """Have modules of ours that are imported from now on be plain Python."""
    sys.meta_path.insert(0, SourceFinder)


def is_compiled() -> bool:
    """Whether it is the compiled form that runs."""
    from srrrs.protocol import flow

    return flow.__file__.endswith(tuple(EXTENSION_SUFFIXES))


def describe() -> str:
    """The form in a word or two, for people."""
    return "compiled" if is_compiled() else "plain Python"


def outdated() -> list[str]:
    """The sources that were changed since they were compiled, where the compiled form runs."""
    if not is_compiled():
        return []
    late = []
    for source in Path(__file__).parent.rglob("*.py"):
        for suffix in EXTENSION_SUFFIXES:
            made = source.with_name(source.stem + suffix)
            if made.exists() and made.stat().st_mtime < source.stat().st_mtime:
                late.append(str(source))
    return late
