"""TLS: what both ends have in common, and the server's."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

ALPN: Final = b"http/1.1"
"""The protocol that is always spoken inside TLS (RFC 7301, 6)."""

_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325, 4.2). TLS 1.3 has no
others."""

_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""For TLS 1.3: all that OpenSSL has by default, in the order of RFC 8446, 9.1, instead of by key
size."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """Makes the server's end of TLS connections: TLS 1.2 or later, nothing that is out of use.

    :param chain: the certificate first, then those that vouch for it.
    :param protocols: what is spoken inside (ALPN), the favourite first.
    :param choose: called with each connection, once the client's name for the server is known; may
        have another context :meth:`take_over`.
    :param session_id: the same for contexts that take over from each other: else no session that
        one of them began is resumed.
    """

    def __init__(
        self,
        key: PrivateKeyTypes,
        chain: Sequence[x509.Certificate],
        protocols: Sequence[bytes] = (ALPN,),
        choose: Callable[[SSL.Connection], None] | None = None,
        session_id: bytes | None = None,
    ) -> None:
        context = new_context(SSL.TLS_SERVER_METHOD)
        context.use_privatekey(key)  # type: ignore[arg-type]
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.check_privatekey()
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_session_id(os.urandom(32) if session_id is None else session_id)
        context.set_alpn_select_callback(_selector(tuple(protocols)))
        if choose is not None:
            context.set_tlsext_servername_callback(choose)
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def take_over(self, connection: SSL.Connection) -> None:
        """Have a connection, of which the client has said hello, go on with this certificate."""
        connection.set_context(self._context)


def _selector(protocols: tuple[bytes, ...]) -> Callable[[SSL.Connection, list[bytes]], Any]:
    def select(_: SSL.Connection, offered: list[bytes]) -> Any:
        for each in protocols:
            if each in offered:
                return each
        return SSL.NO_OVERLAPPING_PROTOCOLS

    return select


def new_context(method: int) -> SSL.Context:
    """What either end begins with: safe versions and ciphers."""
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_cipher_list(_CIPHERS)
    prefer_fast_ciphers(context)
    # Thousands of idle connections: their buffers are given back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def prefer_fast_ciphers(context: SSL.Context) -> None:
    """Put the fastest of TLS 1.3's ciphers, all of which are safe, first.

    Before pyOpenSSL 25.2 OpenSSL's own order stays.
    """
    choose = getattr(context, "set_tls13_ciphersuites", None)
    if choose is not None:
        choose(_SUITES)
