"""The relay owner's pages in place of the relay's own, for visitors of services."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.logger import Logger

from srrrs.relay.edge.pages import Answer, Pages, page

MAX_PAGE: Final = 64 * 1024
"""Bytes of one page: it is kept in memory, and sent whole."""

_NAMES: Final = (*(f"{status}.html" for status in range(400, 600)), "4xx.html", "5xx.html")
# A page shows under the name of somebody else's site: it runs nothing there, and fetches nothing.
_FIELDS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:",
    ),
    (b"referrer-policy", b"no-referrer"),
)


class OwnPages(Pages):
    """Pages from a folder: ``404.html`` for one status, ``5xx.html`` for all others of its kind.
    They are sent as they are.

    :raises OSError: the folder cannot be read.
    :raises ValueError: a page is too long.
    """

    _log = Logger()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contents = self._read()

    def page(self, status: int, title: str, text: str, *headers: tuple[str, str]) -> Answer:
        contents = self._contents
        content = contents.get(f"{status}.html") or contents.get(f"{status // 100}xx.html")
        if content is None:
            return page(status, title, text, *headers)
        added = tuple((name.lower().encode(), value.encode()) for name, value in headers)
        return Answer(status, (*_FIELDS, *added), content)

    def reload(self) -> None:
        """Read them again; what cannot be read leaves all as it was."""
        try:
            self._contents = self._read()
        except (OSError, ValueError) as error:
            self._log.error("the error pages stay as they were: {error}", error=error)
        else:
            self._log.info("{count} error pages were read", count=len(self._contents))

    def _read(self) -> dict[str, bytes]:
        found = {}
        names = {each.name for each in self._folder.iterdir()}
        for name in names.intersection(_NAMES):
            path = self._folder / name
            with path.open("rb") as file:
                content = file.read(MAX_PAGE + 1)
            if len(content) > MAX_PAGE:
                raise ValueError(f"{path} is longer than {MAX_PAGE} bytes")
            found[name] = content
        return found
