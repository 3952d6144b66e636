"""What an edge sends a service for a visitor's bytes, and bytes that no decent visitor sends."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from srrrs.http.errors import BadRequest
from srrrs.http.forwarding import Forwarder, trailer_fields
from srrrs.http.head import CHUNKED, End, HeadLimits, RequestHead
from srrrs.http.request import RequestReader
from srrrs.http.writing import encode_chunk, encode_last_chunk, encode_request

PARTS = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"0", b"\x00", b"\x0b", b"\xff"]
PARTS += [b"chunked", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"]


@dataclass
class Passed:
    """What goes to a service.

    :ivar data: of all messages, one after another.
    :ivar requests: method and target of each whose head went on.
    :ivar complete: how many of them went on to their end.
    """

    data: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    complete: int = 0


def pass_on(data: bytes, limits: HeadLimits | None = None) -> Passed:
    """Read as many requests as there are, and write each anew, as the edge does."""
    reader = RequestReader(limits or HeadLimits())
    forwarder = Forwarder("192.0.2.1", False, False)
    reader.feed(data)
    passed = Passed()
    out: list[bytes] = []
    chunks = False
    try:
        while (item := reader.next()) is not None:
            if isinstance(item, RequestHead):
                chunks = item.framing is CHUNKED
                fields = forwarder.request_fields(item, b"id")
                out.append(encode_request(item.method, item.target, fields, item.framing))
                passed.requests.append(item.method + b" " + item.target)
            elif isinstance(item, End):
                if chunks:
                    out.append(encode_last_chunk(trailer_fields(item.trailers)))
                passed.complete += 1
                reader.next_message()
            else:
                out += encode_chunk(item) if chunks else [item]
    except BadRequest:
        pass
    passed.data = b"".join(out)
    return passed


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """With a few bytes put in, or taken out."""
    data = data[:2000]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 2))
        part = draw(st.one_of(st.sampled_from(PARTS), st.binary(max_size=2)))
        data = data[:at] + part + data[at + gone :]
    return data
