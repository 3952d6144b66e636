"""What visitors are told where a service gave no answer."""

from __future__ import annotations

from typing import Final, TypeAlias

from srrrs.protocol.errors import ResetCode

Outcome: TypeAlias = tuple[int, str, str]
"""Status, title and text of a page."""

AWAY: Final[Outcome] = (
    503,
    "Not connected",
    "The device that serves this site is not connected at the moment.",
)
BUSY: Final[Outcome] = (503, "Too busy", "This site has too many visitors at the moment.")
NO_ANSWER: Final[Outcome] = (502, "No answer", "The site closed the connection without an answer.")
PAGES: Final[dict[int | None, Outcome]] = {
    ResetCode.REFUSED: (502, "No answer", "The device is connected, but its site is not up."),
    ResetCode.TIMEOUT: (502, "No answer", "The device's site did not answer in time."),
    ResetCode.OVERLOAD: BUSY,
    ResetCode.UNKNOWN_SERVICE: AWAY,
    ResetCode.WITHDRAWN: AWAY,
    ResetCode.GONE: AWAY,
}
UNREACHED: Final = frozenset(PAGES)
"""Codes with which a service cannot be reached."""
