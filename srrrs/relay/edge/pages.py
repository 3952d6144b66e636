"""The relay's own short answers to visitors: complete in themselves, and telling nothing inner."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from html import escape
from http import HTTPStatus
from typing import Final

from srrrs.http.head import NO_BODY, Framing, Kind, ResponseHead
from srrrs.http.writing import encode_response

RETRY_AFTER: Final = ("Retry-After", "5")
"""Seconds after which a visitor may try again (RFC 9110, 10.2.3)."""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto;
  padding: 0 1rem; color: #223; background: #fafafa }}
h1 {{ font-size: 1.5rem }} p {{ color: #556 }} small {{ color: #99a }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #dde; background: #181a20 }} p {{ color: #aab }} }}
</style></head><body><h1>{title}</h1><p>{text}</p><small>{status} · srrrs</small></body></html>
"""


def reason_of(status: int) -> bytes:
    """The reason phrase of a status; empty where there is no registered one."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the relay's own.

    :ivar fields: names in lower case, without framing, Date and Connection.
    :ivar body: also for HEAD, to which it is not sent.
    """

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @staticmethod
    def date() -> bytes:
        """The value of Date now (RFC 9110, 6.6.1)."""
        return formatdate(usegmt=True).encode()

    def response(self, method: bytes = b"GET") -> tuple[ResponseHead, bytes]:
        """The head, and what is sent as the body, in answer to a request of that method."""
        fields = [(b"date", self.date()), *self.fields]
        body, framing = self.body, Framing(Kind.LENGTH, len(self.body))
        if method == b"HEAD":
            fields.append((b"content-length", b"%d" % len(body)))
            body, framing = b"", NO_BODY
        return ResponseHead(self.status, reason_of(self.status), (1, 1), fields, framing), body

    def encode(self, method: bytes = b"GET") -> bytes:
        """The same as a whole HTTP/1.1 response, after which the connection closes."""
        head, body = self.response(method)
        return encode_response(head.status, head.reason, head.fields, head.framing, False) + body


_FIELDS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"referrer-policy", b"no-referrer"),
)


def page(status: int, title: str, text: str, *headers: tuple[str, str]) -> Answer:
    """A page of a title and a line."""
    content = _PAGE.format(title=escape(title), text=escape(text), status=status).encode()
    added = tuple((name.lower().encode(), value.encode()) for name, value in headers)
    return Answer(status, (*_FIELDS, *added), content)


class Pages:
    """Makes the pages that visitors of services see."""

    def page(self, status: int, title: str, text: str, *headers: tuple[str, str]) -> Answer:
        """As :func:`page`, or the relay owner's page of that status."""
        return page(status, title, text, *headers)
