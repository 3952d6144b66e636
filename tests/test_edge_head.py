"""Which request heads are served, and which host they name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.relay.edge.head import BadHead, Head, check_beginning, parse_head, parse_host


def head(*lines: str | bytes, line: str | bytes = "GET / HTTP/1.1") -> bytes:
    encoded = [each.encode() if isinstance(each, str) else each for each in (line, *lines)]
    return b"\r\n".join([*encoded, b"", b""])


def test_what_is_read() -> None:
    """Method, target, version, host, and every field, its name in lower case."""
    parsed = parse_head(
        head("Host: A.Example:8000", "X-One: 1", "x-one: 2", line="POST /p?q=1 HTTP/1.1")
    )
    assert (parsed.method, parsed.target, parsed.version) == ("POST", b"/p?q=1", "1.1")
    assert parsed.host == "a.example"
    assert parsed.values(b"x-one") == [b"1", b"2"]


def test_secrets_do_not_show() -> None:
    """A head's repr, which may end up in a log, holds no field."""
    parsed = parse_head(head("Host: a.example", "Authorization: Bearer s3cret"))
    assert "s3cret" not in repr(parsed)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"a.example", "a.example"),
        (b"A.EXAMPLE", "a.example"),
        (b"a.example.", "a.example"),
        (b"a.example:8000", "a.example"),
        (b"a.example.:8000", "a.example"),
        (b"a.example:", "a.example"),
        (b" a.example\t", "a.example"),
        (b"a_b.example", "a_b.example"),
        (b"192.0.2.1:80", "192.0.2.1"),
        (b"[2001:DB8::1]", "2001:db8::1"),
        (b"[::1]:8000", "::1"),
    ],
)
def test_hosts(value: bytes, host: str) -> None:
    """A host is taken without port, brackets, final dot and capitals."""
    assert parse_host(value) == host


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b".",
        b":80",
        b"a..example",
        b"a.example..",
        b".a.example",
        b"a.example:80:80",
        b"a.example:port",
        b"a.example:123456",
        b"user@a.example",
        b"a.example/",
        b"a.example,b.example",
        b"a.example b.example",
        b"a%2eexample",
        b"[::1",
        b"::1",
        b"[a.example]",
        b"[fe80::1%25eth0]",
        b"\xc3\xa4.example",
        b"a" * 254,
    ],
)
def test_no_hosts(value: bytes) -> None:
    """What is no host, or more than one, is refused."""
    with pytest.raises(BadHead) as caught:
        parse_host(value)
    assert caught.value.status == 400


GOOD = [
    head("Host: a.example"),
    head("Host: a.example", line="GET / HTTP/1.0"),
    head("Host: a.example", line="OPTIONS * HTTP/1.1"),
    head("Host: a.example", line="GET http://A.example:80/x HTTP/1.1"),
    head("Host: a.example", b"X: caf\xe9 \t end"),
    head("Host: a.example", "X:", "Y: ", "Z:z"),
    head("Host: a.example", "Content-Length: 10", line="POST / HTTP/1.1"),
    head("Host: a.example", "Transfer-Encoding: chunked", line="POST / HTTP/1.1"),
    head("Host: a.example", "Transfer-Encoding: Chunked ", line="PATCH / HTTP/1.1"),
    head("Host: a.example", "Connection: Upgrade", "Upgrade: websocket"),
    head("Host: a.example", line="PROPFIND /x HTTP/1.1"),
]

BAD = {
    "no host": head(),
    "no host in 1.0": head(line="GET / HTTP/1.0"),
    "two hosts": head("Host: a.example", "Host: a.example"),
    "two hosts, differently written": head("Host: a.example", "hOST: b.example"),
    "an absolute target that disagrees": head(
        "Host: a.example", line="GET http://b.example/ HTTP/1.1"
    ),
    "an absolute target with a user": head(
        "Host: a.example", line="GET http://u@a.example/ HTTP/1.1"
    ),
    "connect": head("Host: a.example:443", line="CONNECT a.example:443 HTTP/1.1"),
    "a target without a slash": head("Host: a.example", line="GET x HTTP/1.1"),
    "another scheme": head("Host: a.example", line="GET ftp://a.example/ HTTP/1.1"),
    "version 0.9": b"GET /\r\n\r\n",
    "version 2": head("Host: a.example", line="GET / HTTP/2.0"),
    "version 1.2": head("Host: a.example", line="GET / HTTP/1.2"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "another protocol's name": head("Host: a.example", line="GET / XTTP/1.1"),
    "two blanks": head("Host: a.example", line="GET  / HTTP/1.1"),
    "a blank in the target": head("Host: a.example", line="GET /a b HTTP/1.1"),
    "a tab in the request line": head("Host: a.example", line="GET\t/ HTTP/1.1"),
    "no method": head("Host: a.example", line=" / HTTP/1.1"),
    "a method that is none": head("Host: a.example", line="G(T / HTTP/1.1"),
    "an empty line first": b"\r\n" + head("Host: a.example"),
    "a blank before the colon": head("Host : a.example"),
    "a blank before the name": head(" Host: a.example"),
    "a folded line": head("Host: a.example", "X: 1", " 2"),
    "a folded line at once": head(" X: 1", "Host: a.example"),
    "no colon": head("Host: a.example", "X"),
    "an empty name": head("Host: a.example", ": x"),
    "a name that is none": head("Host: a.example", "X(Y): x"),
    "bare LF after the request line": b"GET / HTTP/1.1\nHost: a.example\r\n\r\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nHost: a.example\nX: 1\r\n\r\n",
    "bare CR in a value": head("Host: a.example", b"X: 1\r2"),
    "NUL": head("Host: a.example", b"X: \x00"),
    "another control": head("Host: a.example", b"X: \x1b[0m"),
    "DEL": head("Host: a.example", b"X: \x7f"),
    "a target that is not ASCII": head("Host: a.example", line=b"GET /\xc3\xa4 HTTP/1.1"),
    "NUL in the target": head("Host: a.example", line=b"GET /\x00 HTTP/1.1"),
    "both lengths": head("Host: a.example", "Content-Length: 1", "Transfer-Encoding: chunked"),
    "two lengths": head("Host: a.example", "Content-Length: 1", "Content-Length: 1"),
    "a list of lengths": head("Host: a.example", "Content-Length: 1, 1"),
    "a signed length": head("Host: a.example", "Content-Length: +1"),
    "a hexadecimal length": head("Host: a.example", "Content-Length: 0x1"),
    "an empty length": head("Host: a.example", "Content-Length:"),
    "a coding that is not chunked": head("Host: a.example", "Transfer-Encoding: identity"),
    "chunked twice": head(
        "Host: a.example", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"
    ),
    "chunked and more": head("Host: a.example", "Transfer-Encoding: chunked, identity"),
    "chunked in 1.0": head("Host: a.example", "Transfer-Encoding: chunked", line="POST / HTTP/1.0"),
    "a shell's banner": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
}


@pytest.mark.parametrize("data", GOOD)
def test_good_heads(data: bytes) -> None:
    """What every reader takes for the same is served, and is good at every byte before."""
    assert parse_head(data).host == "a.example"
    for size in range(1, len(data)):
        check_beginning(data[:size], size - 1)
        check_beginning(data[:size], 0)


@pytest.mark.parametrize("name", BAD)
def test_bad_heads(name: str) -> None:
    """What is malformed or could be read in two ways is refused."""
    with pytest.raises(BadHead) as caught:
        parse_head(BAD[name])
    assert caught.value.status == 400


@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    """Any bytes at all are either served or refused."""
    for each in (data, b"GET / HTTP/1.1\r\nHost: a.example\r\n" + data):
        try:
            assert isinstance(parse_head(each + b"\r\n\r\n"), Head)
        except BadHead:
            pass


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-x\r\n", b"\x00", b"GET / HTTP/1.1\n", b"\xff\xfb", b"{"]
)
def test_others_are_noticed_early(data: bytes) -> None:
    """Whoever speaks something else is not kept waiting until the deadline."""
    with pytest.raises(BadHead):
        check_beginning(data, 0)
