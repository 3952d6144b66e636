"""What is answered before a request is routed: the challenges of certificates, the way to HTTPS."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from srrrs.http.head import RequestHead
from srrrs.relay.edge.pages import Answer, page

ACME: Final = b"/.well-known/acme-challenge/"
"""Where an authority looks for what it asked for (RFC 8555, 8.3)."""
MAX_CHALLENGE: Final = 4096
"""Bytes of an answer to a challenge; it has about 90."""
HSTS: Final = b"strict-transport-security"

# No pipe is waited for, and no link followed.
_PLAINLY: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]{1,128}")
_FIELDS: Final = (
    (b"content-type", b"application/octet-stream"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class Front:
    """What the relay's owner wants of every visitor's request.

    :param webroot: the folder that a client of ACME writes its answers to, or ``None``.
    :param https_redirect: whether visitors are sent from HTTP to HTTPS.
    :param hsts: seconds for which browsers are to use HTTPS alone, or ``None`` to say nothing.
    :ivar https_port: where HTTPS is; ``None``: at its usual port.
    :ivar hsts: the value of the field that says so.
    """

    def __init__(
        self, webroot: Path | None = None, https_redirect: bool = False, hsts: int | None = None
    ) -> None:
        self.https_port: int | None = None
        self.hsts = None if hsts is None else b"max-age=%d" % hsts
        self._folder = None if webroot is None else webroot / os.fsdecode(ACME.strip(b"/"))
        self._redirects = https_redirect

    def answer(self, head: RequestHead, secure: bool) -> Answer | None:
        """What a request gets instead of being routed; ``None``: nothing.

        :param secure: whether the visitor came by TLS.
        """
        if head.target.startswith(ACME):
            # Where there is no file, a service may have asked for a certificate by itself.
            return self._challenge(head)
        if secure or not self._redirects or not head.target.startswith(b"/"):
            return None
        host = f"[{head.host}]" if ":" in head.host else head.host
        port = "" if self.https_port in (None, 443) else f":{self.https_port}"
        where = f"https://{host}{port}{head.target.decode('latin-1')}"
        # Unlike 301 it keeps the method (RFC 9110, 15.4.9).
        return page(308, "By HTTPS", "This site is reached by HTTPS.", ("Location", where))

    def add_hsts(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Say it in a response that goes out by TLS, unless the service does."""
        if self.hsts is not None and not any(name == HSTS for name, _ in fields):
            fields.append((HSTS, self.hsts))

    def _challenge(self, head: RequestHead) -> Answer | None:
        token = head.target[len(ACME) :].partition(b"?")[0]
        if (
            self._folder is None
            or head.method not in (b"GET", b"HEAD")
            or not _TOKEN.fullmatch(token)
        ):
            return None
        body = _read(self._folder / token.decode())
        return None if body is None else Answer(200, _FIELDS, body)


def _read(path: Path) -> bytes | None:
    """A small plain file; ``None``: there is none."""
    try:
        number = os.open(path, _PLAINLY)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return None
        body = os.read(number, MAX_CHALLENGE + 1)
    except OSError:
        return None
    finally:
        os.close(number)
    return body if len(body) <= MAX_CHALLENGE else None
