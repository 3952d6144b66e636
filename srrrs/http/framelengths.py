"""The lengths of HTTP/2 frames, checked before a frame is collected.

hyper-h2 looks at a frame's length once all of the frame is there: up to 16 MiB, whatever it allows.
"""

from __future__ import annotations

from typing import Final

HEADER: Final = 9
"""Bytes before a frame's payload, the first three of them its length (RFC 9113, 4.1)."""
PREFACE: Final = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
"""Bytes before a client's first frame (RFC 9113, 3.4)."""


class FrameLengths:
    """Follows the frames that a client sends.

    :param most: bytes of a payload that are allowed.
    """

    __slots__ = ("_header", "_most", "_skip")

    def __init__(self, most: int) -> None:
        self._most = most
        # Bytes until the next header; what has come of that, where it is cut.
        self._skip = PREFACE
        self._header = b""

    def check(self, data: bytes) -> bool:
        """Whether every frame that begins in ``data``, the next bytes, may be so long."""
        at, end = self._skip, len(data)
        if self._header:
            data = self._header + data
            self._header = b""
            end = len(data)
        while at < end:
            if end - at < HEADER:
                self._header = data[at:]
                at = end
                break
            length = int.from_bytes(data[at : at + 3], "big")
            if length > self._most:
                return False
            at += HEADER + length
        self._skip = at - end
        return True
