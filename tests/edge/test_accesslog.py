"""Lines of the access log."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from srrrs.relay.edge.accesslog import AccessLog, ConnectionEntry, RequestEntry

NOW = 1_780_000_000.75  # 2026-05-28T20:26:40.75Z
SECRET_FIELDS = [
    (b"authorization", b"Basic c2VjcmV0"),
    (b"cookie", b"session=c2VjcmV0"),
    (b"proxy-authorization", b"Basic c2VjcmV0"),
]
COMBINED = re.compile(
    rb'\S+ - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "[^"\n]*" \d+ (?:\d+|-) '
    rb'"[^"\n]*" "[^"\n]*"\n'
)


def line(entry: RequestEntry | ConnectionEntry, form: Any = "json") -> bytes:
    """The line that is written of an entry."""
    lines: list[bytes] = []
    log = AccessLog(lambda: NOW, lines.append, form)
    if isinstance(entry, RequestEntry):
        log.request(entry)
    else:
        log.connection(entry)
    (found,) = lines
    return found


REQUEST = RequestEntry(
    id="51c6a9b0d2f4-1",
    service="blog",
    token="laptop",
    visitor="192.0.2.1",
    method="POST",
    host="blog.example.com",
    target=b"/a?b=c",
    status=200,
    received=5,
    sent=1234,
    first_byte=0.0125,
    duration=0.5,
    fields=[(b"referer", b"https://example.com/"), (b"user-agent", b"curl/8"), *SECRET_FIELDS],
)
CONNECTION = ConnectionEntry(
    id="51c6a9b0d2f4",
    kind="ssh",
    service="ssh",
    token="laptop",
    visitor="2001:db8::1",
    port=20000,
    received=5,
    sent=7,
    duration=60.0,
    closed="the visitor went away",
)


def test_a_request_as_json() -> None:
    """Its time is that of its beginning."""
    assert json.loads(line(REQUEST)) == {
        "time": "2026-05-28T20:26:40.250Z",
        "kind": "request",
        "id": "51c6a9b0d2f4-1",
        "service": "blog",
        "token": "laptop",
        "visitor": "192.0.2.1",
        "method": "POST",
        "host": "blog.example.com",
        "path": "/a?b=c",
        "version": "1.1",
        "status": 200,
        "received": 5,
        "sent": 1234,
        "first_byte": 0.0125,
        "duration": 0.5,
        "closed": "done",
    }


def test_a_connection_as_json() -> None:
    assert json.loads(line(CONNECTION)) == {
        "time": "2026-05-28T20:25:40.750Z",
        "kind": "ssh",
        "id": "51c6a9b0d2f4",
        "service": "ssh",
        "token": "laptop",
        "visitor": "2001:db8::1",
        "host": "",
        "port": 20000,
        "received": 5,
        "sent": 7,
        "first_byte": None,
        "duration": 60.0,
        "closed": "the visitor went away",
    }


def test_combined() -> None:
    """As Apache's manual has it, and a connection in the same columns."""
    assert line(REQUEST, "combined") == (
        b'192.0.2.1 - - [28/May/2026:20:26:40 +0000] "POST /a?b=c HTTP/1.1" 200 1234 '
        b'"https://example.com/" "curl/8"\n'
    )
    assert line(CONNECTION, "combined") == (
        b'2001:db8::1 - - [28/May/2026:20:25:40 +0000] "CONNECT ssh:20000 SSH" 0 7 "-" "-"\n'
    )


def test_secrets_are_not_written() -> None:
    for form in ("json", "combined"):
        assert b"c2VjcmV0" not in line(REQUEST, form)


@given(st.text(max_size=20), st.binary(max_size=20), st.binary(max_size=20), st.text(max_size=20))
def test_whatever_comes_is_one_line(host: str, target: bytes, agent: bytes, method: str) -> None:
    """Nothing that a visitor sends ends the line, or looks like a part of it that it is not."""
    entry = RequestEntry(
        host=host, target=target, method=method, fields=[(b"user-agent", agent)], visitor="::1"
    )
    text = line(entry)
    assert text.count(b"\n") == 1
    assert text.isascii()
    told = json.loads(text)
    assert (told["host"], told["path"]) == (host, target.decode("latin-1"))
    text = line(entry, "combined")
    assert COMBINED.fullmatch(text), text
    assert text.isascii()


def test_a_long_path_is_cut() -> None:
    for form in ("json", "combined"):
        assert len(line(RequestEntry(target=b"/" * 100_000), form)) < 9000
