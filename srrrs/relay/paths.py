"""Which of the services of one host a request's path leads to.

Programs disagree on what a path means: whether ``%2e%2e`` climbs, whether ``;x`` belongs to a
segment, whether a backslash or an encoded slash ends one. Where two services share a host, a path
that one reader takes to lead to the first and another to the second may get past what guards one of
them, so no reading is preferred: they must agree.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

_UNPLAIN: Final = re.compile(rb"[%;\\]|//|/\.")


def readings(target: bytes) -> list[bytes]:
    """The paths that programs in use may read in the target of a request, one of them as it stands.

    :param target: in origin form, query and all.
    """
    path = target.partition(b"?")[0]
    if not _UNPLAIN.search(path):
        return [path]
    decoded = unquote_to_bytes(path)
    found = [decoded, _resolved(decoded), _resolved(_without_parameters(decoded))]
    if b"%" in decoded:
        found.append(_resolved(unquote_to_bytes(decoded)))
    return found


def _without_parameters(path: bytes) -> bytes:
    """Each segment without what follows a ``;`` (RFC 3986, 3.3)."""
    return b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))


def _resolved(path: bytes) -> bytes:
    """Without empty and dot segments, as :rfc:`3986`, 5.2.4, has it; backslashes are slashes."""
    segments: list[bytes] = []
    for segment in path.replace(b"\\", b"/").split(b"/"):
        if segment == b"..":
            if segments:
                segments.pop()
        elif segment not in (b"", b"."):
            segments.append(segment)
    return b"/" + b"/".join(segments)
