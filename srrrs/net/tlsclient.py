"""TLS at the agent: how it knows its relay.

Without a pin the chain, the dates and the name are checked, always. With one, the pin (RFC 7469,
2.4: SHA-256 of the SubjectPublicKeyInfo) stands in for the chain alone: the name and the dates are
still checked.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.address import is_ip_address
from srrrs.net.pins import format_pin, parse_pin, spki_hash
from srrrs.net.tls import ALPN, new_context

CONTEXTS_KEPT: Final = 8
"""Clients' contexts, each for a relay."""


class CertificateProblem(SSL.Error):
    """The relay's certificate is not accepted; ``str()`` is one line that says why."""

    def __init__(self, why: str) -> None:
        # As OpenSSL's own errors look, for those who handle both.
        super().__init__([("srrrs", "", why)])
        self.why = why

    def __str__(self) -> str:
        return self.why


def client_connection_creator(
    host: str, ca_file: Path | str | None = None, pin: str | None = None
) -> IOpenSSLClientConnectionCreator:
    """Makes the agent's end of TLS connections to ``host``, which has to prove who it is.

    :param host: a DNS name or an IP address, as the user wrote it.
    :param ca_file: PEM file of the authorities to trust instead of the system's.
    :param pin: what stands in for the chain: see :func:`parse_pin`.
    :raises OSError: the file cannot be read.
    :raises ValueError: it holds no certificate, or the pin is none.
    """
    if pin is not None:
        return _kept_context(host, None, None, parse_pin(pin))
    if ca_file is not None:
        status = Path(ca_file).stat()
        return _kept_context(
            host, ca_file, (status.st_ino, status.st_size, status.st_mtime_ns), None
        )
    # The system's authorities lie in many places, and may change: they are read each time.
    return ClientContext(host, None, None)


@lru_cache(maxsize=CONTEXTS_KEPT)
def _kept_context(
    host: str, ca_file: Path | str | None, version: tuple[int, ...] | None, pin: bytes | None
) -> ClientContext:
    """A context costs a third of what a handshake does. An agent that dials again, and another one
    to the same relay, get the same; ``version`` tells of a new file."""
    return ClientContext(host, ca_file, pin)


@implementer(IOpenSSLClientConnectionCreator)
class ClientContext:
    """See :func:`client_connection_creator`.

    The chain is judged by OpenSSL during the handshake; name, pin and a pinned certificate's dates
    when the handshake is done and before any byte of the application has left.
    """

    def __init__(self, host: str, ca_file: Path | str | None, pin: bytes | None) -> None:
        self._host = host.strip("[]").rstrip(".")
        self._pin = pin
        self._is_address = is_ip_address(self._host)
        context = new_context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos([ALPN])
        context.set_verify(SSL.VERIFY_PEER, _judge if pin is None else _leave_to_pin)
        if pin is None:
            _trust(context, ca_file)
        context.set_info_callback(self._progress)
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if not self._is_address:  # RFC 6066, 3: no literals.
            connection.set_tlsext_host_name(_ascii(self._host).encode())
        return connection

    def _progress(self, connection: SSL.Connection, where: int, _: int) -> None:
        if not where & SSL.SSL_CB_HANDSHAKE_DONE:
            return
        try:
            self._check(connection)
        except Exception:
            # An exception from here is lost in OpenSSL: whatever it is, the connection ends.
            protocol = cast(TLSMemoryBIOProtocol, connection.get_app_data())
            protocol.failVerification(Failure())

    def _check(self, connection: SSL.Connection) -> None:
        shown = connection.get_peer_certificate()
        if shown is None:
            raise CertificateProblem("the relay showed no certificate")
        certificate = shown.to_cryptography()
        if self._pin is not None:
            actual = spki_hash(certificate)
            if actual != self._pin:
                raise CertificateProblem(
                    f"the relay's key has the pin {format_pin(actual)}, "
                    f"not {format_pin(self._pin)} as expected"
                )
            _check_dates(certificate, datetime.now(UTC))
        try:
            if self._is_address:
                verify_ip_address(connection, self._host)
            else:
                verify_hostname(connection, _ascii(self._host))
        except (VerificationError, CertificateError):
            raise CertificateProblem(
                f"the relay's certificate is for {_names_of(certificate)}, not for {self._host}"
            ) from None


def _trust(context: SSL.Context, ca_file: Path | str | None) -> None:
    if ca_file is None:
        context.set_default_verify_paths()
        return
    try:
        certificates = x509.load_pem_x509_certificates(Path(ca_file).read_bytes())
    except ValueError:
        raise ValueError(f"{ca_file} holds no PEM certificates") from None
    store = context.get_cert_store()
    assert store is not None
    for certificate in certificates:
        store.add_cert(crypto.X509.from_cryptography(certificate))


def _judge(_: SSL.Connection, shown: crypto.X509, error: int, depth: int, good: int) -> bool:
    """OpenSSL's verdict on a certificate of the chain, in words where it is a bad one."""
    if good:
        return True
    if error in (_NOT_YET_VALID, _EXPIRED) and depth == 0:
        _check_dates(shown.to_cryptography(), datetime.now(UTC))
    raise CertificateProblem(_VERDICTS.get(error, f"the relay's certificate is refused ({error})"))


def _leave_to_pin(_: SSL.Connection, _c: crypto.X509, _e: int, _d: int, _g: int) -> bool:
    return True


def _check_dates(certificate: x509.Certificate, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        raise CertificateProblem(f"the relay's certificate expired on {ends:%Y-%m-%d}")
    if now < begins:
        raise CertificateProblem(
            f"the relay's certificate is valid from {begins:%Y-%m-%d} on: is the clock right?"
        )


_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNTRUSTED: Final = "the relay's certificate is not signed by an authority that is trusted here"
_VERDICTS: Final = {
    # X509_V_ERR_…, x509_vfy.h.
    2: _UNTRUSTED,
    7: _UNTRUSTED,
    _NOT_YET_VALID: "a certificate of the relay's chain is not valid yet: is the clock right?",
    _EXPIRED: "a certificate of the relay's chain has expired",
    18: f"{_UNTRUSTED}: it is self-signed, and no pin was given",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    23: "the relay's certificate was revoked",
    24: "the relay's certificate is signed by one that may not sign others",
    26: "the relay's certificate is not one for servers",
}


def _ascii(host: str) -> str:
    """A DNS name in its ASCII form (RFC 5890); one that has none stays as it is."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host.encode("ascii", "replace").decode()


def _names_of(certificate: x509.Certificate) -> str:
    try:
        shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "no name at all"
    names = [str(name.value) for name in shown if isinstance(name, x509.DNSName | x509.IPAddress)]
    names = [name for name in names if name.isprintable()]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "no name at all"


_NO_COMMON: Final = "the two sides have no version or cipher of TLS in common"
_NOT_TLS: Final = "what answers there does not speak TLS"
_REASONS: Final = {
    "unsupported protocol": _NO_COMMON,
    "no protocols available": _NO_COMMON,
    "no shared cipher": _NO_COMMON,
    "alert protocol version": _NO_COMMON,
    "alert handshake failure": _NO_COMMON,
    "alert insufficient security": _NO_COMMON,
    "alert no application protocol": _NO_COMMON,
    "no application protocol": _NO_COMMON,
    "wrong version number": _NOT_TLS,
    "packet length too long": _NOT_TLS,
    "record layer failure": _NOT_TLS,
    "http request": _NOT_TLS,
    "unrecognized name": "the relay does not know the name that was asked for",
    "certificate required": "the relay asks for a client certificate",
    "dh key too small": "the relay's TLS is too weak",
    "ee key too small": "the relay's key is too short",
    "ca md too weak": "the relay's certificate is signed by a hash that is out of use",
}


def explain_tls_failure(failure: Failure) -> str | None:
    """One line that says why TLS failed; ``None`` where something else did."""
    problem = failure.value
    if isinstance(problem, CertificateProblem):
        return problem.why
    if not isinstance(problem, SSL.Error):
        return None
    queue = problem.args[0] if problem.args else None
    reason = str(queue[-1][-1]) if isinstance(queue, list) and queue else ""
    for key, words in _REASONS.items():
        if key in reason.lower():
            return words
    return f"TLS failed: {reason or 'for no reason that OpenSSL gives'}"
