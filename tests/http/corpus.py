"""Malformed, ambiguous and merely unusual messages, and what must become of each.

"source" says where the verdict comes from: a section of RFC 9110 or 9112, or the name under which a
way of smuggling was published (CL.TE, TE.CL, TE.TE, CL.0, TERM.EXT …).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True)
class Refused:
    """The reader raises.

    :ivar status: of the answer to a request; of a response, always 502.
    :ivar after: how many whole messages are read before.
    """

    status: int
    after: int = 0


@dataclass(frozen=True)
class Unfinished:
    """All of it can be read, and the message is not over: when no more comes, this is an error."""

    after: int = 0


@dataclass(frozen=True)
class Taken:
    """What is read: for each message its first line as it is passed on, and its body."""

    messages: tuple[tuple[str, bytes], ...]


Verdict: TypeAlias = Refused | Unfinished | Taken


@dataclass(frozen=True)
class Case:
    """One stream of bytes.

    :ivar to: the methods of the requests that responses are to.
    :ivar upgrade: what the first of them asked to change to.
    :ivar then: what comes once the second request was sent.
    :ivar eof: the stream ends after it.
    """

    name: str
    data: bytes
    verdict: Verdict
    source: str
    to: tuple[bytes, ...] = ()
    upgrade: bytes | None = None
    then: bytes = b""
    eof: bool = False

    def __str__(self) -> str:
        return self.name


REQUESTS: Final[list[Case]] = []
RESPONSES: Final[list[Case]] = []

HOST: Final = "Host: a.example"
CHUNKED: Final = "Transfer-Encoding: chunked"
HELLO: Final = b"5\r\nhello\r\n0\r\n\r\n"
POST: Final = "POST / HTTP/1.1"
TWO: Final = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"


def lines(*each: str | bytes) -> bytes:
    """A head."""
    encoded = [line if isinstance(line, bytes) else line.encode("latin-1") for line in each]
    return b"\r\n".join([*encoded, b"", b""])


def refused(name: str, data: bytes, source: str, status: int = 400, after: int = 0) -> None:
    REQUESTS.append(Case(name, data, Refused(status, after), source))


def unfinished(name: str, data: bytes, source: str = "RFC 9112, 8", after: int = 0) -> None:
    REQUESTS.append(Case(name, data, Unfinished(after), source))


def taken(name: str, data: bytes, source: str, *messages: tuple[str, bytes]) -> None:
    REQUESTS.append(Case(name, data, Taken(messages), source))


def get(*fields: str | bytes, line: str | bytes = "GET / HTTP/1.1") -> bytes:
    """A request's head with a Host."""
    return lines(line, HOST, *fields)


def post(*fields: str | bytes, body: bytes = b"") -> bytes:
    """A request with a body."""
    return get(*fields, line=POST) + body


def chunked(body: bytes, *fields: str | bytes) -> bytes:
    """A request with these chunks."""
    return post(CHUNKED, *fields, body=body)


GET: Final = ("GET / a.example", b"")
SMUGGLED: Final = ("GET /smuggled a.example", b"")


def posted(body: bytes) -> tuple[str, bytes]:
    """What is read of a POST."""
    return ("POST / a.example", body)


# --- requests: the request line -----------------------------------------------------------------

LINE = "RFC 9112, 3"
for name, line, source, status in [
    ("two blanks in the request line", "GET  / HTTP/1.1", LINE, 400),
    ("a tab in the request line", "GET\t/ HTTP/1.1", LINE, 400),
    ("two blanks before the version", "GET /  HTTP/1.1", LINE, 400),
    ("a blank after the version", "GET / HTTP/1.1 ", LINE, 400),
    ("a blank before the method", " GET / HTTP/1.1", LINE, 400),
    ("a blank in the target", "GET /a b HTTP/1.1", "RFC 9112, 3.2", 400),
    ("a tab in the target", "GET /a\tb HTTP/1.1", "RFC 9112, 3.2", 400),
    ("a vertical tab in the request line", "GET\x0b/ HTTP/1.1", LINE, 400),
    ("a form feed in the request line", "GET /\x0c HTTP/1.1", LINE, 400),
    ("NUL in the target", "GET /\x00 HTTP/1.1", "RFC 9112, 3.2", 400),
    ("a target beyond ASCII", "GET /\xe4 HTTP/1.1", "RFC 9112, 3.2", 400),
    ("a fragment in the target", "GET /a#b HTTP/1.1", "RFC 9112, 3.2; CVE-2023-45539", 400),
    ("no target", "GET HTTP/1.1", LINE, 400),
    ("an empty target", "GET  HTTP/1.1", LINE, 400),
    ("no method", "/ HTTP/1.1", LINE, 400),
    ("a method that is no token", "G(T / HTTP/1.1", "RFC 9110, 5.6.2", 400),
    ("a method in lower case", "get / HTTP/1.1", "RFC 9110, 9.1", 400),
    ("an unknown method", "SMUGGLE / HTTP/1.1", "RFC 9110, 9.1", 501),
    ("a method that is too long", "A" * 33 + " / HTTP/1.1", LINE, 400),
    ("a colon in the method", "GET: / HTTP/1.1", LINE, 400),
    ("no version (HTTP/0.9)", "GET /", "RFC 9112, 2.3", 400),
    ("version 0.9", "GET / HTTP/0.9", "RFC 9112, 2.3", 400),
    ("version 1.2", "GET / HTTP/1.2", "RFC 9112, 2.3", 400),
    ("version 1.10", "GET / HTTP/1.10", "RFC 9112, 2.3", 400),
    ("version 2.0", "GET / HTTP/2.0", "RFC 9112, 2.3", 400),
    ("version 2", "GET / HTTP/2", "RFC 9112, 2.3", 400),
    ("version 01.1", "GET / HTTP/01.1", "RFC 9112, 2.3", 400),
    ("version +1.1", "GET / HTTP/+1.1", "RFC 9112, 2.3", 400),
    ("version 1,1", "GET / HTTP/1,1", "RFC 9112, 2.3", 400),
    ("version 1.", "GET / HTTP/1.", "RFC 9112, 2.3", 400),
    ("a version in lower case", "GET / http/1.1", "RFC 9112, 2.3", 400),
    ("a blank in the version", "GET / HTTP/ 1.1", "RFC 9112, 2.3", 400),
    ("another protocol's name", "GET / XTTP/1.1", "RFC 9112, 2.3", 400),
    ("RTSP", "DESCRIBE / RTSP/1.0", "RFC 9112, 2.3", 400),
    ("a response to a server", "HTTP/1.1 200 OK", LINE, 400),
    ("CONNECT", "CONNECT a.example:443 HTTP/1.1", "RFC 9110, 9.3.6", 400),
    ("CONNECT with a path", "CONNECT / HTTP/1.1", "RFC 9110, 9.3.6", 400),
    ("an authority alone", "GET a.example HTTP/1.1", "RFC 9112, 3.2.3", 400),
    ("a target without a slash", "GET index.html HTTP/1.1", "RFC 9112, 3.2.1", 400),
    ("a star for GET", "GET * HTTP/1.1", "RFC 9112, 3.2.4", 400),
    ("a query alone", "GET ?a HTTP/1.1", "RFC 9112, 3.2.1", 400),
    ("an absolute target of another scheme", "GET ftp://a.example/ HTTP/1.1", LINE, 400),
    ("an absolute target that disagrees", "GET http://b.example/ HTTP/1.1", "host confusion", 400),
    (
        "an absolute target whose port disagrees",
        "GET http://a.example:81/ HTTP/1.1",
        "host confusion",
        400,
    ),
    ("an absolute target with a user", "GET http://a.example@b.example/ HTTP/1.1", LINE, 400),
    ("the right host as a user", "GET http://u@a.example/ HTTP/1.1", "RFC 9110, 4.2.4", 400),
    ("an absolute target without a host", "GET http:///x HTTP/1.1", "RFC 9110, 4.2.1", 400),
    ("a backslash in an absolute target", "GET http://b.example\\@a.example/ HTTP/1.1", LINE, 400),
    ("an absolute target's fragment", "GET http://a.example#/ HTTP/1.1", "RFC 9112, 3.2", 400),
]:
    refused(name, get(line=line), source, status)
refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "RFC 9113, 3.4")
refused("TLS inside", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", LINE)
refused("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", LINE)
refused("nothing but a line end", b"\n" + get(), "RFC 9112, 2.2")
refused("two empty lines first", b"\r\n\r\n" + get(), "RFC 9112, 2.2")
refused("a target that is too long", get(line=f"GET /{'a' * 8192} HTTP/1.1"), LINE, 414)
refused("a target without an end", b"GET /" + b"a" * 9000, LINE, 414)
taken("an empty line first", b"\r\n" + get(), "RFC 9112, 2.2", GET)
taken(
    "an absolute target",
    get(line="GET http://A.example/x?y HTTP/1.1"),
    "RFC 9112, 3.2.2",
    ("GET /x?y a.example", b""),
)
taken(
    "an absolute target with the usual port",
    get(line="GET http://a.example:80/ HTTP/1.1"),
    "RFC 9110, 4.2.3",
    GET,
)
taken(
    "an absolute target without a path",
    get(line="GET HTTP://a.example HTTP/1.1"),
    "RFC 9112, 3.2.1",
    GET,
)
taken(
    "an absolute target with a query alone",
    get(line="GET http://a.example?x HTTP/1.1"),
    "RFC 9112, 3.2.1",
    ("GET /?x a.example", b""),
)
taken(
    "a star for OPTIONS",
    get(line="OPTIONS * HTTP/1.1"),
    "RFC 9112, 3.2.4",
    ("OPTIONS * a.example", b""),
)
taken(
    "a whole server's options",
    get(line="OPTIONS http://a.example HTTP/1.1"),
    "RFC 9112, 3.2.4",
    ("OPTIONS * a.example", b""),
)
taken(
    "two slashes",
    get(line="GET //b.example/ HTTP/1.1"),
    "RFC 9112, 3.2.1",
    ("GET //b.example/ a.example", b""),
)
taken(
    "a method of WebDAV",
    get(line="PROPFIND / HTTP/1.1"),
    "RFC 9110, 9.1",
    ("PROPFIND / a.example", b""),
)
taken("HTTP/1.0", get(line="GET / HTTP/1.0"), "RFC 9112, 2.3", GET)

# --- requests: lines and fields -----------------------------------------------------------------

FIELD = "RFC 9112, 5"
for name, fields, source in [
    ("a blank before the colon", ["X : 1"], "RFC 9112, 5.1"),
    ("a tab before the colon", ["X\t: 1"], "RFC 9112, 5.1"),
    ("a blank before the name", [" X: 1"], "RFC 9112, 5.2"),
    ("a folded field", ["X: 1", " 2"], "RFC 9112, 5.2"),
    ("a field folded with a tab", ["X: 1", "\t2"], "RFC 9112, 5.2"),
    ("a folded coding", ["Transfer-Encoding:", " chunked"], "TE.TE: RFC 9112, 5.2"),
    ("a blank line that is none", ["X: 1", " "], "RFC 9112, 5.2"),
    ("no colon", ["X"], FIELD),
    ("an empty name", [": 1"], FIELD),
    ("a name that is no token", ["X(Y): 1"], "RFC 9110, 5.1"),
    ("a blank in a name", ["X Y: 1"], "RFC 9110, 5.1"),
    ("a name beyond ASCII", ["X\xe4: 1"], "RFC 9110, 5.1"),
    ("NUL in a name", ["X\x00: 1"], "RFC 9110, 5.1"),
    ("NUL in a value", ["X: \x00"], "RFC 9110, 5.5"),
    ("a control in a value", ["X: \x1b[0m"], "RFC 9110, 5.5"),
    ("DEL in a value", ["X: \x7f"], "RFC 9110, 5.5"),
    ("a vertical tab in a value", ["X: \x0b1"], "RFC 9110, 5.5"),
    ("a backspace in a value", ["X: 1\x08"], "RFC 9110, 5.5"),
    ("bare CR in a value", ["X: 1\r2"], "RFC 9112, 2.2"),
    ("bare CR before the line's end", ["X: 1\r"], "RFC 9112, 2.2"),
    ("bare CR that hides a field", ["X: 1\rContent-Length: 5"], "CL.0: RFC 9112, 2.2"),
    ("bare LF in a value", ["X: 1\nY: 2"], "RFC 9112, 2.2"),
    ("bare LF that hides a coding", ["X: 1\nTransfer-Encoding: chunked"], "CL.TE: RFC 9112, 2.2"),
    ("LF and CR the wrong way round", ["X: 1\n\rY: 2"], "RFC 9112, 2.2"),
]:
    refused(name, get(*fields), source)
refused(
    "bare LF after the request line", b"GET / HTTP/1.1\nHost: a.example\r\n\r\n", "RFC 9112, 2.2"
)
refused("bare LF everywhere", b"GET / HTTP/1.1\nHost: a.example\n\n", "RFC 9112, 2.2")
refused("bare LF for the empty line", b"GET / HTTP/1.1\r\nHost: a.example\r\n\n", "RFC 9112, 2.2")
refused("bare CR everywhere", b"GET / HTTP/1.1\rHost: a.example\r\r", "RFC 9112, 2.2")
refused(
    "bare CR for the empty line",
    b"GET / HTTP/1.1\r\nHost: a.example\r\n\rX: 1\r\n\r\n",
    "RFC 9112, 2.2",
)
refused(
    "a blank after the request line's end",
    b"GET / HTTP/1.1\r\n Host: a.example\r\n\r\n",
    "RFC 9112, 2.2",
)
refused("a head that is too long", get("X: " + "a" * 33000), "RFC 6585, 5", 431)
refused("a head without an end", get("X: " + "a" * 33000)[:-4], "RFC 6585, 5", 431)
refused("101 fields", get(*["X: 1"] * 100), "RFC 6585, 5", 431)
taken("100 fields", get(*["X: 1"] * 99), "RFC 6585, 5", GET)
taken("an empty value", get("X:"), "RFC 9110, 5.5", GET)
taken("no space before the value", get("X:1"), FIELD, GET)
taken("much space around the value", get("X: \t 1 \t "), FIELD, GET)
taken("a value beyond ASCII", get("X: caf\xe9"), "RFC 9110, 5.5", GET)
taken("a name with every token character", get("!#$%&'*+-.^_`|~09azAZ: 1"), "RFC 9110, 5.6.2", GET)

# --- requests: Host -----------------------------------------------------------------------------

HOSTS = "RFC 9112, 3.2"
refused("no Host", lines("GET / HTTP/1.1"), HOSTS)
refused("no Host in HTTP/1.0", lines("GET / HTTP/1.0"), "a name is needed to route by")
refused("no Host, with an absolute target", lines("GET http://a.example/ HTTP/1.1"), HOSTS)
refused("two Hosts", get("Host: b.example"), HOSTS)
refused("the same Host twice", get(HOST), HOSTS)
refused("Host twice, written differently", get("hOST: b.example"), HOSTS)
refused("a folded Host", lines("GET / HTTP/1.1", "Host: a.example", "\tb.example"), "RFC 9112, 5.2")
for name, value in [
    ("an empty Host", ""),
    ("a Host of a dot", "."),
    ("a Host with a port alone", ":80"),
    ("a Host with an empty label", "a..example"),
    ("a Host that begins with a dot", ".a.example"),
    ("a Host with two ports", "a.example:80:81"),
    ("a Host whose port is none", "a.example:http"),
    ("a Host whose port is too large", "a.example:65536"),
    ("a Host with port 0", "a.example:0"),
    ("a Host with a user", "u@a.example"),
    ("a Host with a path", "a.example/x"),
    ("a Host with a query", "a.example?x"),
    ("a Host with a fragment", "a.example#x"),
    ("a Host with a backslash", "a.example\\b.example"),
    ("two Hosts in one", "a.example,b.example"),
    ("two Hosts with a blank", "a.example b.example"),
    ("a Host with a percent sign", "a%2eexample"),
    ("a Host beyond ASCII", "\xe4.example"),
    ("a Host with a scheme", "http://a.example"),
    ("an IPv6 address without brackets", "::1"),
    ("brackets that do not end", "[::1"),
    ("a name in brackets", "[a.example]"),
    ("an address with a zone", "[fe80::1%25eth0]"),
    ("a Host that is too long", "a" * 254),
    ("a Host in quotes", '"a.example"'),
]:
    refused(name, lines("GET / HTTP/1.1", f"Host: {value}"), "RFC 9110, 7.2")
taken(
    "a Host in capitals, with a final dot and a port",
    lines("GET / HTTP/1.1", "Host: A.EXAMPLE.:8000"),
    "RFC 9110, 4.2.3",
    GET,
)
taken(
    "an IPv6 address",
    lines("GET / HTTP/1.1", "Host: [2001:DB8::1]:80"),
    "RFC 9110, 7.2",
    ("GET / 2001:db8::1", b""),
)

# --- requests: lengths --------------------------------------------------------------------------

BOTH = "CL.TE and TE.CL: RFC 9112, 6.1"
refused("both lengths", post("Content-Length: 15", CHUNKED, body=HELLO), BOTH)
refused("both lengths, the other way round", post(CHUNKED, "Content-Length: 15", body=HELLO), BOTH)
refused("both lengths, of 0", post("Content-Length: 0", CHUNKED, body=b"0\r\n\r\n"), BOTH)
refused("both lengths, an end hidden", post("Content-Length: 6", CHUNKED, body=b"0\r\n\r\nG"), BOTH)
refused(
    "two lengths that differ",
    post("Content-Length: 5", "Content-Length: 6", body=b"hello"),
    "CL.CL: RFC 9112, 6.3",
)
refused(
    "two lengths that agree",
    post("Content-Length: 5", "Content-Length: 5", body=b"hello"),
    "CL.CL: RFC 9112, 6.3",
)
refused(
    "two lengths written differently",
    post("Content-Length: 5", "content-length: 5", body=b"hello"),
    "CL.CL: RFC 9112, 6.3",
)
for name, value in [
    ("a list of lengths", "5, 5"),
    ("a list of different lengths", "5, 6"),
    ("a length with a plus", "+5"),
    ("a negative length", "-5"),
    ("a hexadecimal length", "0x5"),
    ("an octal length", "05"),
    ("a length of many zeros", "00"),
    ("a length with a fraction", "5.0"),
    ("a length with an exponent", "5e0"),
    ("a length with an underscore", "1_0"),
    ("a length with a blank inside", "1 0"),
    ("an empty length", ""),
    ("a length in words", "five"),
    ("a length in other digits", "\xb2"),
    ("a length beyond 64 bits", "18446744073709551621"),
    ("a length beyond 63 bits", "9223372036854775808"),
    ("a length with a parameter", "5;x"),
    ("a length in quotes", '"5"'),
]:
    refused(name, post(f"Content-Length: {value}", body=b"hello"), "RFC 9110, 8.6")
TETE = "TE.TE: RFC 9112, 6.1"
for name, value in [
    ("a coding that is not known", "xchunked"),
    ("identity", "identity"),
    ("gzip alone", "gzip"),
    ("gzip before chunked", "gzip, chunked"),
    ("chunked, then identity", "chunked, identity"),
    ("identity, then chunked", "identity, chunked"),
    ("chunked twice in one", "chunked, chunked"),
    ("an empty coding", ""),
    ("a comma before chunked", ", chunked"),
    ("a comma after chunked", "chunked,"),
    ("chunked in quotes", '"chunked"'),
    ("chunked with a parameter", "chunked;q=1"),
    ("a vertical tab before chunked", "\x0bchunked"),
    ("chunked and something", "chunked x"),
    ("chunked cut short", "chunke"),
    ("a soft hyphen in chunked", "chun\xadked"),
    ("chunked with a NUL", "chunked\x00"),
]:
    refused(name, post(f"Transfer-Encoding: {value}", body=HELLO), TETE)
refused("chunked twice", post(CHUNKED, CHUNKED, body=HELLO), TETE)
refused("chunked, then another", post(CHUNKED, "Transfer-Encoding: cow", body=HELLO), TETE)
refused("another, then chunked", post("Transfer-Encoding: identity", CHUNKED, body=HELLO), TETE)
refused(
    "a coding with a blank before the colon", post("Transfer-Encoding : chunked", body=HELLO), TETE
)
refused(
    "a coding after a folded line", post("X: 1", " Transfer-Encoding: chunked", body=HELLO), TETE
)
refused("chunked in HTTP/1.0", get(CHUNKED, line="POST / HTTP/1.0") + HELLO, "RFC 9112, 6.1")
refused(
    "both lengths in HTTP/1.0",
    get(CHUNKED, "Content-Length: 15", line="POST / HTTP/1.0") + HELLO,
    "RFC 9112, 6.1",
)
taken(
    "chunked in capitals",
    post("Transfer-Encoding: CHUNKED", body=HELLO),
    "RFC 9112, 7",
    posted(b"hello"),
)
taken(
    "a coding that only looks like one",
    post("Transfer_Encoding: chunked", "Content-Length: 5", body=b"hello"),
    "TE.TE, dropped with its underscore",
    posted(b"hello"),
)
taken(
    "a length that only looks like one",
    post("Content_Length: 50", "Content-Length: 5", body=b"hello"),
    "CL.CL, dropped with its underscore",
    posted(b"hello"),
)
taken(
    "a length that Connection names",
    post("Content-Length: 5", "Connection: content-length", body=b"hello"),
    "RFC 9110, 7.6.1",
    posted(b"hello"),
)
taken("no length", post(), "RFC 9112, 6.3", posted(b""))
taken("a length of 0", post("Content-Length: 0"), "RFC 9112, 6.3", posted(b""))
taken(
    "a GET with a body",
    get("Content-Length: 5") + b"hello",
    "RFC 9110, 9.3.1",
    ("GET / a.example", b"hello"),
)
taken(
    "a body that looks like a request",
    post(f"Content-Length: {len(TWO)}", body=TWO),
    "CL.0",
    posted(TWO),
)
taken(
    "a GET's body that looks like a request",
    get(f"Content-Length: {len(TWO)}") + TWO,
    "CL.0",
    ("GET / a.example", TWO),
)
taken(
    "chunks that look like a request",
    chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(TWO), TWO)),
    "TE.0",
    posted(TWO),
)
taken("a request after one with no body", get() + TWO, "RFC 9112, 9.3.2", GET, SMUGGLED)
taken(
    "a request after one with a length",
    post("Content-Length: 5", body=b"hello") + TWO,
    "RFC 9112, 9.3.2",
    posted(b"hello"),
    SMUGGLED,
)
taken(
    "a request after one with chunks",
    chunked(HELLO) + TWO,
    "RFC 9112, 9.3.2",
    posted(b"hello"),
    SMUGGLED,
)
taken("an empty line between requests", get() + b"\r\n" + TWO, "RFC 9112, 2.2", GET, SMUGGLED)
refused("a body without a length", post(body=b"hello"), "RFC 9112, 6.3", after=1)
refused(
    "a body longer than its length",
    post("Content-Length: 5", body=b"hello world"),
    "RFC 9112, 6.3",
    after=1,
)
taken(
    "a body with Upgrade",
    get("Connection: upgrade", "Upgrade: websocket", "Content-Length: 5", line=POST)
    + b"hello"
    + TWO,
    "httptools ends it at once",
    posted(b"hello"),
    SMUGGLED,
)
taken(
    "chunks with Upgrade",
    get("Connection: upgrade", "Upgrade: websocket", CHUNKED, line=POST) + HELLO + TWO,
    "httptools ends it at once",
    posted(b"hello"),
    SMUGGLED,
)
taken(
    "Upgrade that Connection does not name",
    get("Upgrade: websocket") + TWO,
    "RFC 9110, 7.8",
    GET,
    SMUGGLED,
)
taken(
    "Upgrade to h2c",
    get("Connection: upgrade, http2-settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    + TWO,
    "h2c smuggling",
    GET,
    SMUGGLED,
)

# --- requests: chunks ---------------------------------------------------------------------------

CHUNK = "RFC 9112, 7.1"
TERM = "TERM.EXT and EXT.TERM: RFC 9112, 7.1.1"
for name, body, source in [
    ("a chunk's size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk's size with a plus", b"+5\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a negative chunk", b"-5\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk's size with an underscore", b"0_5\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk's size that is none", b"G\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk without a size", b"\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk's size of an extension alone", b";x\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a blank before a chunk's size", b" 5\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a blank after a chunk's size", b"5 \r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a tab after a chunk's size", b"5\t\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a blank before an extension", b"5 ;x\r\nhello\r\n0\r\n\r\n", TERM),
    ("a chunk's size beyond 64 bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk's size of 16 digits", b"8000000000000005\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk's size of many zeros", b"0" * 300 + b"5\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("a chunk's size in two", b"5, 5\r\nhello\r\n0\r\n\r\n", CHUNK),
    ("bare LF after a chunk's size", b"5\nhello\r\n0\r\n\r\n", TERM),
    ("bare CR after a chunk's size", b"5\rhello\r\n0\r\n\r\n", TERM),
    ("bare LF in an extension", b"5;x\nhello\r\n0\r\n\r\n", TERM),
    ("bare CR in an extension", b"5;\rx\r\nhello\r\n0\r\n\r\n", TERM),
    ("NUL in an extension", b"5;x\x00\r\nhello\r\n0\r\n\r\n", TERM),
    ("an extension without a name", b"5;\r\nhello\r\n0\r\n\r\n", TERM),
    ("an extension without a value", b"5;x=\r\nhello\r\n0\r\n\r\n", TERM),
    ("an extension whose quote does not end", b'5;x="y\r\nhello\r\n0\r\n\r\n', TERM),
    ("an extension that holds a line's end", b'5;x="\r\n"\r\nhello\r\n0\r\n\r\n', TERM),
    ("an extension that is too long", b"5;x=" + b"y" * 300 + b"\r\nhello\r\n0\r\n\r\n", TERM),
    ("a chunk that is too long", b"5\r\nhello!\r\n0\r\n\r\n", CHUNK),
    ("a chunk that is too short", b"5\r\nhell\r\n0\r\n\r\n", CHUNK),
    ("bare LF after a chunk", b"5\r\nhello\n0\r\n\r\n", "SPILL.TERM: RFC 9112, 7.1"),
    ("bare CR after a chunk", b"5\r\nhello\r0\r\n\r\n", "SPILL.TERM: RFC 9112, 7.1"),
    ("two bytes after a chunk", b"5\r\nhelloXX0\r\n\r\n", "SPILL.TERM: RFC 9112, 7.1"),
    ("no line's end after a chunk", b"5\r\nhello0\r\n\r\n", "ONE.TWO: RFC 9112, 7.1"),
    ("bare LF after the last chunk", b"0\n\r\n", CHUNK),
    ("bare LF for the empty line of chunks", b"0\r\n\n", CHUNK),
    ("a blank after the last chunk", b"0 \r\n\r\n", CHUNK),
    ("a trailer without a colon", b"0\r\nX\r\n\r\n", "RFC 9112, 7.1.2"),
    ("a trailer without a name", b"0\r\n: 1\r\n\r\n", "RFC 9112, 7.1.2"),
    ("a trailer with a blank before the colon", b"0\r\nX : 1\r\n\r\n", "RFC 9112, 7.1.2"),
    ("a folded trailer", b"0\r\nX: 1\r\n 2\r\n\r\n", "RFC 9112, 7.1.2"),
    ("a trailer that begins with a blank", b"0\r\n X: 1\r\n\r\n", "RFC 9112, 7.1.2"),
    ("bare LF in a trailer", b"0\r\nX: 1\nY: 2\r\n\r\n", "RFC 9112, 7.1.2"),
    ("bare CR in a trailer", b"0\r\nX: 1\rY: 2\r\n\r\n", "RFC 9112, 7.1.2"),
    ("NUL in a trailer", b"0\r\nX: \x00\r\n\r\n", "RFC 9112, 7.1.2"),
    ("a request instead of the empty line", b"0\r\n" + TWO, "TE.CL: RFC 9112, 7.1.2"),
]:
    refused(name, chunked(body), source)
refused(
    "trailers that are too long",
    chunked(b"0\r\nX: " + b"a" * 33000 + b"\r\n\r\n"),
    "RFC 6585, 5",
    431,
)
refused("101 trailers", chunked(b"0\r\n" + b"X: 1\r\n" * 101 + b"\r\n"), "RFC 6585, 5", 431)
taken("chunks", chunked(HELLO), CHUNK, posted(b"hello"))
taken("several chunks", chunked(b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n"), CHUNK, posted(b"hello"))
taken(
    "hexadecimal sizes",
    chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    CHUNK,
    posted(b"0123456789" * 2),
)
taken(
    "zeros before a chunk's size", chunked(b"0005\r\nhello\r\n000\r\n\r\n"), CHUNK, posted(b"hello")
)
taken(
    "extensions",
    chunked(b'5;x;y=z;q="\\"; "\r\nhello\r\n0;end\r\n\r\n'),
    "RFC 9112, 7.1.1",
    posted(b"hello"),
)
taken(
    "line ends in a chunk",
    chunked(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"),
    CHUNK,
    posted(b"\r\n0\r\n\r\n"),
)
taken("trailers", chunked(b"0\r\nX: 1\r\nY:\r\n\r\n"), "RFC 9112, 7.1.2", posted(b""))
taken(
    "a trailer that would frame",
    chunked(b"0\r\nContent-Length: 5\r\n\r\n") + TWO,
    "RFC 9110, 6.5.1",
    posted(b""),
    SMUGGLED,
)
taken(
    "a trailer that would route",
    chunked(b"0\r\nHost: b.example\r\n\r\n") + TWO,
    "RFC 9110, 6.5.1",
    posted(b""),
    SMUGGLED,
)

# --- requests: what else the head says ------------------------------------------------------------

refused(
    "another expectation",
    post("Expect: payment", "Content-Length: 5", body=b"hello"),
    "RFC 9110, 10.1.1",
    417,
)
refused(
    "two expectations",
    post("Expect: 100-continue", "Expect: 100-continue", "Content-Length: 5", body=b"hello"),
    "0.CL by Expect: RFC 9110, 10.1.1",
    417,
)
refused(
    "an expectation with a blank",
    post("Expect: y 100-continue", "Content-Length: 5", body=b"hello"),
    "0.CL by Expect: RFC 9110, 10.1.1",
    417,
)
refused("a Connection that is no list", get("Connection: close;x"), "RFC 9110, 7.6.1")
refused(
    "an Upgrade that is none", get("Connection: upgrade", "Upgrade: web socket"), "RFC 9110, 7.8"
)
taken(
    "an expectation",
    post("Expect: 100-Continue", "Content-Length: 5", body=b"hello"),
    "RFC 9110, 10.1.1",
    posted(b"hello"),
)
taken("an expectation without a body", get("Expect: 100-continue"), "0.CL by Expect", GET)
taken(
    "an unknown expectation in HTTP/1.0",
    get("Expect: x", line="GET / HTTP/1.0"),
    "RFC 9110, 10.1.1",
    GET,
)
taken("a Connection with empty members", get("Connection: , close,, "), "RFC 9110, 5.6.1", GET)
taken("a Connection that names Host", get("Connection: host"), "RFC 9110, 7.6.1", GET)

unfinished("nothing but a CR", b"\r")
unfinished("half a method", b"GE")
unfinished("half a head", get()[:-2])
unfinished("half a body", post("Content-Length: 6", body=b"hello"))
unfinished("half a chunk's size", chunked(b"1"))
unfinished("half a chunk", chunked(b"5\r\nhell"))
unfinished("no last chunk", chunked(b"5\r\nhello\r\n"))
unfinished("no empty line after the last chunk", chunked(b"0\r\n"))
unfinished("half of the empty line", chunked(b"0\r\n\r"))
unfinished("half a second request", get() + b"GET / HT", after=1)

# --- responses ----------------------------------------------------------------------------------

OK: Final = "HTTP/1.1 200 OK"
FIVE: Final = "Content-Length: 5"
NEXT: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


def broken(
    name: str,
    data: bytes,
    source: str,
    *,
    after: int = 0,
    to: tuple[bytes, ...] = (b"GET",),
    upgrade: bytes | None = None,
) -> None:
    RESPONSES.append(Case(name, data, Refused(502, after), source, to, upgrade))


def cut(
    name: str,
    data: bytes,
    *,
    after: int = 0,
    to: tuple[bytes, ...] = (b"GET",),
    then: bytes = b"",
) -> None:
    RESPONSES.append(Case(name, data, Unfinished(after), "RFC 9112, 8", to, then=then, eof=True))


def given(
    name: str,
    data: bytes,
    source: str,
    *messages: tuple[str, bytes],
    to: tuple[bytes, ...] = (b"GET",),
    upgrade: bytes | None = None,
    then: bytes = b"",
    eof: bool = False,
) -> None:
    RESPONSES.append(Case(name, data, Taken(messages), source, to, upgrade, then, eof))


def ok(*fields: str | bytes, body: bytes = b"", line: str | bytes = OK) -> bytes:
    """A response."""
    return lines(line, *fields) + body


STATUS = "RFC 9112, 4"
for name, line in [
    ("a status line of HTTP/0.9", "hello"),
    ("a status of two digits", "HTTP/1.1 20 OK"),
    ("a status of four digits", "HTTP/1.1 2000 OK"),
    ("a status of 0", "HTTP/1.1 000 OK"),
    ("a status below 100", "HTTP/1.1 099 OK"),
    ("a status above 599", "HTTP/1.1 600 OK"),
    ("a status that is no number", "HTTP/1.1 OK"),
    ("two blanks before the status", "HTTP/1.1  200 OK"),
    ("a tab before the status", "HTTP/1.1\t200 OK"),
    ("a blank before the status line", " HTTP/1.1 200 OK"),
    ("a response of version 0.9", "HTTP/0.9 200 OK"),
    ("a response of version 2", "HTTP/2.0 200 OK"),
    ("a response of version 2, short", "HTTP/2 200"),
    ("a response of version 1.2", "HTTP/1.2 200 OK"),
    ("another protocol's status line", "ICY 200 OK"),
    ("a version in small letters", "http/1.1 200 OK"),
    ("NUL in a reason", "HTTP/1.1 200 \x00"),
    ("a bare CR in a reason", "HTTP/1.1 200 OK\rX: 1"),
    ("a request to a client", "GET / HTTP/1.1"),
]:
    broken(name, ok(FIVE, line=line, body=b"hello"), STATUS)
broken("an empty line before a response", b"\r\n" + NEXT, STATUS)
for name, fields, source in [
    ("a response's field folded", ["X: 1", " 2"], "RFC 9112, 5.2"),
    ("a response's blank before the colon", ["X : 1"], "RFC 9112, 5.1"),
    ("a response's blank before the name", [" X: 1"], "RFC 9112, 5.2"),
    ("a response's field without a colon", ["X"], "RFC 9112, 5"),
    ("a response's field without a name", [": 1"], "RFC 9112, 5"),
    ("a response's name that is no token", ["X@: 1"], "RFC 9110, 5.1"),
    ("a response's NUL", ["X: \x00"], "RFC 9110, 5.5"),
    ("a response's control", ["X: \x01"], "RFC 9110, 5.5"),
    ("a response's bare LF", ["X: 1\nSet-Cookie: a=b"], "response splitting"),
    ("a response's bare CR", ["X: 1\rSet-Cookie: a=b"], "response splitting"),
    ("a response's bare CR at a line's end", ["X: 1\r"], "response splitting"),
    ("a response's two lengths", ["Content-Length: 5"], "RFC 9112, 6.3"),
    ("a response's two different lengths", ["Content-Length: 4"], "RFC 9112, 6.3"),
    ("a response's both lengths", [CHUNKED], "RFC 9112, 6.3"),
    ("a response's empty coding", ["Transfer-Encoding:"], "RFC 9112, 6.3"),
    ("a response's Connection that is no list", ["Connection: a b"], "RFC 9110, 7.6.1"),
]:
    broken(name, ok(FIVE, *fields, body=b"hello"), source)
for name, value in [
    ("a response's list of lengths", "5, 5"),
    ("a response's length with a plus", "+5"),
    ("a response's negative length", "-5"),
    ("a response's hexadecimal length", "0x5"),
    ("a response's empty length", ""),
    ("a response's octal length", "05"),
    ("a response's length beyond 64 bits", "18446744073709551621"),
]:
    broken(name, ok(f"Content-Length: {value}", body=b"hello"), "RFC 9110, 8.6")
for name, value in [
    ("a response's gzip", "gzip"),
    ("a response's gzip and chunked", "gzip, chunked"),
    ("a response's chunked twice", "chunked, chunked"),
    ("a response's identity", "identity"),
    ("a response's unknown coding", "xchunked"),
]:
    broken(name, ok(f"Transfer-Encoding: {value}", body=HELLO), "RFC 9112, 6.1")
broken("a response's chunked in two lines", ok(CHUNKED, CHUNKED, body=HELLO), "RFC 9112, 6.1")
broken(
    "a response's chunked in HTTP/1.0",
    ok(CHUNKED, line="HTTP/1.0 200 OK", body=HELLO),
    "RFC 9112, 6.1",
)
broken("a response with LF alone", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "RFC 9112, 2.2")
broken("a response's LF for the empty line", b"HTTP/1.1 200 OK\r\nX: 1\r\n\nhello", "RFC 9112, 2.2")
broken("a response's head that is too long", ok("X: " + "a" * 33000), "our limit")
broken("a response's head without an end", ok("X: " + "a" * 33000)[:-4], "our limit")
broken("a response with 101 fields", ok(*["X: 1"] * 101), "our limit")
for name, body in [
    ("a response's chunk's size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("a response's chunk's size with a blank", b"5 \r\nhello\r\n0\r\n\r\n"),
    ("a response's chunk's size beyond 64 bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a response's bare LF after a size", b"5\nhello\r\n0\r\n\r\n"),
    ("a response's bare LF after a chunk", b"5\r\nhello\n0\r\n\r\n"),
    ("a response's chunk that is too long", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("a response's broken trailer", b"0\r\nX\r\n\r\n"),
    ("a response's trailer with a bare LF", b"0\r\nX: 1\nY: 2\r\n\r\n"),
]:
    broken(name, ok(CHUNKED, body=body), "RFC 9112, 7.1")
QUEUE = "response queue poisoning"
broken("a response to nobody", NEXT, QUEUE, to=())
broken("a second response to nobody", NEXT + NEXT, QUEUE, after=1)
broken("a body longer than a response says", NEXT + b"!", QUEUE, after=1)
broken("a body to HEAD", NEXT, QUEUE, after=1, to=(b"HEAD",))
broken("a body with 204", ok("X: 1", line="HTTP/1.1 204 No Content", body=b"hello"), QUEUE, after=1)
broken("a body with 304", ok(FIVE, line="HTTP/1.1 304 Not Modified", body=b"hello"), QUEUE, after=1)
broken(
    "an interim response after the final one",
    NEXT + b"HTTP/1.1 100 Continue\r\n\r\n",
    QUEUE,
    after=1,
)
broken(
    "an interim response with a length",
    ok(FIVE, line="HTTP/1.1 100 Continue", body=b"hello"),
    "RFC 9110, 8.6",
)
broken(
    "an interim response with chunks",
    ok(CHUNKED, line="HTTP/1.1 103 Early Hints", body=HELLO),
    "RFC 9112, 6.1",
)
broken("an interim response in HTTP/1.0", b"HTTP/1.0 100 Continue\r\n\r\n" + NEXT, "RFC 9110, 15.2")
SWITCH = "RFC 9110, 15.2.2"
broken("101 that nobody asked for", ok("Upgrade: websocket", line="HTTP/1.1 101 Switching"), SWITCH)
broken(
    "101 to another protocol",
    ok("Upgrade: h2c", line="HTTP/1.1 101 Switching"),
    SWITCH,
    upgrade=b"websocket",
)
broken("101 without Upgrade", ok(line="HTTP/1.1 101 Switching"), SWITCH, upgrade=b"websocket")
broken(
    "101 with two Upgrades",
    ok("Upgrade: websocket", "Upgrade: h2c", line="HTTP/1.1 101 Switching"),
    SWITCH,
    upgrade=b"websocket",
)
broken(
    "101 in HTTP/1.0",
    ok("Upgrade: websocket", line="HTTP/1.0 101 Switching"),
    SWITCH,
    upgrade=b"websocket",
)
cut("no response", b"")
cut("half a status line", b"HTTP/1.1 2")
cut("half a response's head", NEXT[:30])
cut("half a response's body", NEXT[:-1])
cut("only an interim response", b"HTTP/1.1 100 Continue\r\n\r\n")
cut("half a response's chunk", ok(CHUNKED, body=b"5\r\nhel"))
cut("a response's chunks without the last", ok(CHUNKED, body=b"5\r\nhello\r\n"))
cut("a response's last chunk without the empty line", ok(CHUNKED, body=b"0\r\n"))
cut("one response of two", NEXT, then=NEXT[:10], after=1, to=(b"GET", b"GET"))
given("a response", NEXT, "RFC 9112, 6.3", ("200 OK", b"next"))
given(
    "two responses",
    NEXT,
    "RFC 9112, 9.3.2",
    ("200 OK", b"next"),
    ("200 OK", b"next"),
    to=(b"GET", b"POST"),
    then=NEXT,
)
given(
    "a response without a reason",
    ok(FIVE, line="HTTP/1.1 200 ", body=b"hello"),
    STATUS,
    ("200 ", b"hello"),
)
given(
    "a response without a blank for a reason",
    ok(FIVE, line="HTTP/1.1 200", body=b"hello"),
    "seen in the wild",
    ("200 ", b"hello"),
)
given(
    "a reason beyond ASCII",
    ok(FIVE, line="HTTP/1.1 200 caf\xe9", body=b"hello"),
    STATUS,
    ("200 caf\xe9", b"hello"),
)
given(
    "a response to HEAD with a length",
    ok(FIVE),
    "httptools reads a body",
    ("200 OK", b""),
    ("200 OK", b"next"),
    to=(b"HEAD", b"GET"),
    then=NEXT,
)
given(
    "a response to HEAD with chunks",
    ok(CHUNKED),
    "httptools reads a body",
    ("200 OK", b""),
    ("200 OK", b"next"),
    to=(b"HEAD", b"GET"),
    then=NEXT,
)
given(
    "a response to HEAD without a length",
    ok(),
    "RFC 9112, 6.3",
    ("200 OK", b""),
    ("200 OK", b"next"),
    to=(b"HEAD", b"GET"),
    then=NEXT,
)
given(
    "204",
    ok(line="HTTP/1.1 204 No Content"),
    "RFC 9112, 6.3",
    ("204 No Content", b""),
    ("200 OK", b"next"),
    to=(b"GET", b"GET"),
    then=NEXT,
)
given(
    "304 with a length",
    ok(FIVE, line="HTTP/1.1 304 Not Modified"),
    "RFC 9112, 6.3",
    ("304 Not Modified", b""),
    ("200 OK", b"next"),
    to=(b"GET", b"GET"),
    then=NEXT,
)
given(
    "interim responses",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + NEXT,
    "RFC 9110, 15.2",
    ("100 Continue", b""),
    ("103 Early Hints", b""),
    ("200 OK", b"next"),
)
given(
    "an interim response to HEAD",
    b"HTTP/1.1 100 Continue\r\n\r\n" + ok(FIVE),
    "RFC 9110, 15.2",
    ("100 Continue", b""),
    ("200 OK", b""),
    ("200 OK", b"next"),
    to=(b"HEAD", b"GET"),
    then=NEXT,
)
given(
    "101",
    ok(
        "Upgrade: WebSocket", "Connection: Upgrade", line="HTTP/1.1 101 Switching", body=b"\x81\x00"
    ),
    SWITCH,
    ("101 Switching", b"\x81\x00"),
    upgrade=b"websocket",
)
given("an upgrade refused", NEXT, "RFC 9110, 7.8", ("200 OK", b"next"), upgrade=b"websocket")
given("a body until close", ok(body=b"hello"), "RFC 9112, 6.3", ("200 OK", b"hello"), eof=True)
given(
    "a body until close in HTTP/1.0",
    ok(line="HTTP/1.0 200 OK", body=b"hello"),
    "RFC 9112, 6.3",
    ("200 OK", b"hello"),
    eof=True,
)
given("an empty body until close", ok(), "RFC 9112, 6.3", ("200 OK", b""), eof=True)
given(
    "a second response in a body until close",
    ok(body=NEXT),
    "RFC 9112, 6.3",
    ("200 OK", NEXT),
    eof=True,
)
given(
    "chunks of a response",
    ok(CHUNKED, body=HELLO),
    "RFC 9112, 7.1",
    ("200 OK", b"hello"),
    ("200 OK", b"next"),
    to=(b"GET", b"GET"),
    then=NEXT,
)
given(
    "trailers of a response",
    ok(CHUNKED, body=b"0\r\nX: 1\r\n\r\n"),
    "RFC 9112, 7.1.2",
    ("200 OK", b""),
)
given(
    "a response with Upgrade and a length",
    ok("Connection: upgrade", "Upgrade: h2c", FIVE, body=b"hello"),
    "httptools ends it at once",
    ("200 OK", b"hello"),
)
