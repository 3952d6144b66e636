"""The relay's own short answers to visitors: complete in themselves, and telling nothing inner."""

from __future__ import annotations

from email.utils import formatdate
from html import escape
from typing import Final

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
}

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


def page(status: int, title: str, text: str, *headers: tuple[str, str], body: bool = True) -> bytes:
    """A whole HTTP/1.1 response, after which the connection closes.

    :param body: False for the answer to HEAD.
    """
    content = _PAGE.format(title=escape(title), text=escape(text), status=status).encode()
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Date: {formatdate(usegmt=True)}",
        "Content-Type: text/html; charset=utf-8",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
        "Referrer-Policy: no-referrer",
        *(f"{name}: {value}" for name, value in headers),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (content if body else b"")
