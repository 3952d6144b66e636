"""The owner's certificates: a folder of them, one chosen for each connection by the name asked for.

A pair is ``NAME.crt`` and ``NAME.key``, or ``fullchain.pem`` and ``privkey.pem``, in the folder or
in a folder in it (as certbot's ``live``). The names that a certificate is for are those that it
says (SubjectAltName), whatever its file is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from srrrs.net.selfsigned import ServerIdentity
from srrrs.net.tls import ALPN, ServerContext

LOOK_EVERY: Final = 5.0
"""Seconds between looks at whether files have changed."""
MAX_FILE: Final = 256 * 1024
"""Bytes of one file."""
MAX_PAIRS: Final = 4096
"""Pairs in a folder."""
DEFAULT: Final = "default"
"""What a pair, or its folder, is called to be shown to who asks for no name, or for one that no
certificate is for."""

Version: TypeAlias = tuple[tuple[int, int, int], ...]
_CHAIN, _KEY = "fullchain.pem", "privkey.pem"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate that is in use.

    :ivar version: of its files.
    :ivar names: lower-case; of wildcards, what stands behind the first dot with that dot.
    """

    path: Path
    version: Version
    names: frozenset[str]
    ends: datetime
    context: ServerContext


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """Makes the server's end of TLS connections, each with the certificate for its name.

    A name that two are for gets the one that is valid longer; the whole name counts more than a
    wildcard. A name that none is for gets the relay's own, where it has one, else the default.

    :param folder: of the owner's pairs, or ``None``.
    :param wall: seconds since the epoch.
    :param protocols: what is spoken inside (ALPN), the favourite first.
    :param domain: whose certificate is the default where none is called so.
    """

    _log = Logger()

    def __init__(
        self,
        folder: Path | None,
        wall: Callable[[], float],
        protocols: Sequence[bytes] = (ALPN,),
        domain: str = "",
    ) -> None:
        self._domain = domain
        self._folder = folder
        self._wall = wall
        self._protocols = tuple(protocols)
        self._session_id = os.urandom(32)
        self._own: ServerContext | None = None
        self._own_hosts: frozenset[str] = frozenset()
        self._pairs: dict[Path, _Pair] = {}
        # What of each file could not be used, so that it is said once.
        self._broken: dict[Path, Version] = {}
        self._by_name: dict[str, _Pair] = {}
        self._default: ServerContext | None = None
        self._full = False
        if folder is not None:
            self.look()

    def add_own(self, identity: ServerIdentity, hosts: frozenset[str]) -> None:
        """The relay's own certificate, for names that no other is for.

        :param hosts: to which it is shown in any case: agents know it there by its pin.
        """
        self._own = self._context(identity.key, [identity.certificate])
        self._own_hosts = hosts
        self._index()

    # --- for the listener ---------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether there is any certificate at all."""
        return self._default is not None

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        assert self._default is not None
        return self._default.serverConnectionForTLS(tlsProtocol)

    def covers(self, host: str) -> bool:
        """Whether the owner has a certificate for a host (lower-case, no port)."""
        return self._find(host) is not None

    def same(self, named: str | None, host: str) -> bool:
        """Whether who asked for the first name was shown what the second is served with."""
        return named is None or self._pick(named) is self._pick(host)

    def _choose(self, connection: SSL.Connection) -> None:
        try:
            name = connection.get_servername()
            if name:
                found = self._pick(name.decode("latin-1").lower().removesuffix("."))
                if found is not None and found is not self._default:
                    found.take_over(connection)
        except Exception:  # It would be lost in OpenSSL.
            self._log.failure("no certificate could be chosen")

    def _pick(self, host: str) -> ServerContext | None:
        if self._own is not None and host in self._own_hosts:
            return self._own
        pair = self._find(host)
        return self._default if pair is None else pair.context

    def _find(self, host: str) -> _Pair | None:
        found = self._by_name.get(host)
        if found is None:
            # A wildcard stands for one label (RFC 6125, 6.4.3).
            _, dot, rest = host.partition(".")
            found = self._by_name.get(dot + rest) if dot else None
        return found

    # --- the folder ---------------------------------------------------------------------

    def look(self) -> None:
        """Take what is new in the folder. What cannot be used is said once, and changes nothing:
        of a pair that was in use, the last good state stays."""
        if self._folder is None:
            return
        found: dict[Path, _Pair] = {}
        files = 0
        try:
            for chain, key in self._files(self._folder):
                files += 1
                if files > MAX_PAIRS:
                    break
                pair = self._load(chain, key)
                if pair is not None:
                    found[chain] = pair
        except OSError as error:
            self._say_once(self._folder, (), f"the folder cannot be read: {error.strerror}")
            return
        self._broken.pop(self._folder, None)
        if (files > MAX_PAIRS) is not self._full:
            self._full = files > MAX_PAIRS
            if self._full:
                self._log.error("only {most} certificates are taken", most=MAX_PAIRS)
        for path in self._pairs.keys() - found.keys():
            self._log.info("the certificate {path} is used no more", path=str(path))
        if found != self._pairs:
            self._pairs = found
            self._index()

    def _files(self, folder: Path, deeper: bool = True) -> Iterator[tuple[Path, Path]]:
        """Pairs of files, in the order of their names."""
        with os.scandir(folder) as entries:
            names = {each.name for each in entries}
        for name in sorted(names):
            path = folder / name
            if name.endswith(".crt") and (key := path.with_suffix(".key")).name in names:
                yield path, key
            elif name == _CHAIN and _KEY in names:
                yield path, folder / _KEY
            elif deeper and not name.startswith(".") and path.is_dir():
                yield from self._files(path, deeper=False)

    def _load(self, chain: Path, key: Path) -> _Pair | None:
        used = self._pairs.get(chain)
        version: Version = ()
        try:
            version = (_version(chain), _version(key))
            if used is not None and used.version == version:
                return used
            if self._broken.get(chain) == version:
                return used
            pair = self._read(chain, key, version)
        except OSError as error:
            self._say_once(chain, version, error.strerror or str(error))
            return used
        except (ValueError, TypeError, SSL.Error, x509.ExtensionNotFound) as error:
            self._say_once(chain, version, str(error) or "the key is not that of the certificate")
            return used
        self._broken.pop(chain, None)
        state = "expired on" if pair.ends.timestamp() < self._wall() else "valid until"
        self._log.info(
            "certificate {path}, {state} {ends}, for {names}",
            path=str(chain),
            state=state,
            ends=f"{pair.ends:%Y-%m-%d}",
            names=", ".join(sorted(_shown(name) for name in pair.names)),
        )
        return pair

    def _say_once(self, path: Path, version: Version, why: str) -> None:
        if self._broken.get(path) != version or path not in self._broken:
            self._broken[path] = version
            kept = "; the one before is used further" if path in self._pairs else ""
            self._log.error(
                "the certificate {path} cannot be used: {why}{kept}",
                path=str(path),
                why=why,
                kept=kept,
            )

    def _read(self, chain_path: Path, key_path: Path, version: Version) -> _Pair:
        chain = x509.load_pem_x509_certificates(_content(chain_path))
        try:
            key = load_pem_private_key(_content(key_path), None)
        except (ValueError, TypeError):
            raise ValueError(f"{key_path.name} holds no private key without a password") from None
        if key.public_key() != chain[0].public_key():
            raise ValueError("the key is not that of the certificate")
        names = _names(chain[0])
        if not names:
            raise ValueError("it is for no DNS name")
        ends = chain[0].not_valid_after_utc
        return _Pair(chain_path, version, names, ends, self._context(key, chain))

    def _context(self, key: object, chain: Sequence[x509.Certificate]) -> ServerContext:
        return ServerContext(
            key,  # type: ignore[arg-type]
            chain,
            self._protocols,
            self._choose,
            self._session_id,
        )

    def _index(self) -> None:
        by_name: dict[str, _Pair] = {}
        for pair in self._pairs.values():
            for name in pair.names:
                other = by_name.get(name)
                if other is None or other.ends < pair.ends:
                    by_name[name] = pair
        self._by_name = by_name
        self._default = self._own
        if self._own is None and self._pairs:
            named = [pair for path, pair in self._pairs.items() if _is_default(path)]
            first = self._find(self._domain) or next(iter(self._pairs.values()))
            self._default = (named[0] if named else first).context


def _is_default(path: Path) -> bool:
    return path.stem == DEFAULT or (path.name == _CHAIN and path.parent.name == DEFAULT)


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"{path.name} is too long")
    return content


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    names = (name.lower() for name in shown.get_values_for_type(x509.DNSName))
    return frozenset(name.removeprefix("*") for name in names)


def _shown(name: str) -> str:
    return f"*{name}" if name.startswith(".") else name
