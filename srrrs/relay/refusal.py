"""Why a service is not published."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

#: Seconds after which a refusal for want of room is worth another try.
RETRY_EXHAUSTED: Final = 600.0
#: Seconds after which a refusal for a failing database is worth another try.
RETRY_UNAVAILABLE: Final = 30.0


class RefusalCode(StrEnum):
    """The word for people and programs (``SPEC.md``, *Services*)."""

    NAME_INVALID = "name-invalid"
    NAME_RESERVED = "name-reserved"
    NAME_TAKEN = "name-taken"
    NAME_KEPT = "name-kept"
    NAMES_EXHAUSTED = "names-exhausted"
    PORTS_EXHAUSTED = "ports-exhausted"
    TOO_MANY_SERVICES = "too-many-services"
    UNAVAILABLE = "unavailable"
    SCOPE = "scope"
    POLICY = "policy"
    HELD = "held"
    DUPLICATE = "duplicate"
    PORT_BUSY = "port-busy"


class Refusal(Exception):
    """No reservation, and why.

    :ivar retry: seconds after which asking again may help; None: it cannot heal by itself.
    """

    def __init__(self, code: RefusalCode, message: str, retry: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry


def unavailable() -> Refusal:
    """The database cannot be used."""
    return Refusal(
        RefusalCode.UNAVAILABLE, "the relay cannot reserve anything now", RETRY_UNAVAILABLE
    )
