"""Requests to the relay itself: agents, and people who look what is there."""

from __future__ import annotations

from typing import Final

from srrrs.protocol.handshake import PATH
from srrrs.relay.edge.head import BadHead, Head
from srrrs.relay.edge.pages import Answer, page

_ONCE: Final = (
    b"authorization",
    b"connection",
    b"origin",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"upgrade",
)
"""Fields that an agent sends at most once; a repeated one might be read in two ways."""


def answer(head: Head) -> Answer | None:
    """The page that answers a request to the control host; ``None``: it is an agent's.

    :raises BadHead: an agent's handshake is malformed or ambiguous.
    """
    if head.target == PATH.encode():
        return _agents(head)
    if head.target == b"/" and head.method in ("GET", "HEAD"):
        return page(200, "A relay", "An srrrs relay is running here.")
    return page(404, "Not found", "There is nothing here.")


def _agents(head: Head) -> Answer | None:
    if head.method != "GET":
        allow = ("Allow", "GET")
        return page(405, "For agents", "This address is for agents.", allow)
    if not head.values(b"upgrade"):
        upgrade = ("Upgrade", "websocket")
        return page(426, "For agents", "This address is for agents.", upgrade)
    if head.values(b"content-length") or head.values(b"transfer-encoding"):
        raise BadHead(400, "A handshake has no body.")
    # What splits lines is not the same for all who read them as text: ASCII only.
    if any(len(head.values(name)) > 1 for name in _ONCE) or not all(
        value.isascii() for _, value in head.fields
    ):
        raise BadHead(400, "A header field of the handshake is malformed.")
    return None
