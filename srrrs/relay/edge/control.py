"""Requests to the relay itself: agents, and people who look what is there."""

from __future__ import annotations

from typing import Final

from srrrs.http.errors import BadRequest
from srrrs.http.head import RequestHead
from srrrs.protocol.handshake import PATH
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


def answer(head: RequestHead) -> Answer | None:
    """The page that answers a request to the control host; ``None``: it is an agent's.

    :raises BadRequest: an agent's handshake is malformed or ambiguous.
    """
    if head.target == PATH.encode():
        return _agents(head)
    if head.target == b"/" and head.method in (b"GET", b"HEAD"):
        return page(200, "A relay", "An srrrs relay is running here.")
    return page(404, "Not found", "There is nothing here.")


def answer_late(head: RequestHead) -> Answer:
    """The same where no agent can come: after a connection's first request, and by HTTP/2.

    What is wrong with a handshake is not looked at either.
    """
    if head.target == PATH.encode() and head.method == b"GET":
        text = "An agent comes with a connection's first request."
        return page(421, "Misdirected", text)
    found = answer(head)
    assert found is not None
    return found


def _agents(head: RequestHead) -> Answer | None:
    if head.method != b"GET":
        allow = ("Allow", "GET")
        return page(405, "For agents", "This address is for agents.", allow)
    if not head.values(b"upgrade"):
        upgrade = ("Upgrade", "websocket")
        return page(426, "For agents", "This address is for agents.", upgrade)
    if head.values(b"content-length") or head.values(b"transfer-encoding"):
        raise BadRequest(400, "A handshake has no body.")
    # What splits lines is not the same for all who read them as text: ASCII only.
    if any(len(head.values(name)) > 1 for name in _ONCE) or not all(
        value.isascii() for _, value in head.fields
    ):
        raise BadRequest(400, "A header field of the handshake is malformed.")
    return None
