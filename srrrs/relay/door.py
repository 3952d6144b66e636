"""How the relay is reached: its certificates, and what visitors meet before anything else."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from twisted.logger import Logger

from srrrs.config import RelayConfig
from srrrs.net.loopback import is_loopback
from srrrs.net.selfsigned import KEY_FILE, ServerIdentity
from srrrs.relay.edge.certificates import Certificates
from srrrs.relay.edge.front import Front
from srrrs.relay.edge.listener import PROTOCOLS
from srrrs.relay.urls import PublicNames


class Door:
    """Made once, at the start.

    :ivar front: what is answered before a request is routed; ``None``: nothing.
    :ivar certificates: end TLS; ``None``: there are none, and never will be.
    :ivar pin: what agents know the relay by; ``None``: by its certificate's chain, or not at all.
    :ivar https: whether all that the first listener speaks is TLS, by a certificate of the owner's.
    :ivar tls: whether agents dial by TLS.
    :raises OSError: the relay's own certificate cannot be read or written.
    :raises ValueError: it is none.
    """

    _log = Logger()

    def __init__(self, config: RelayConfig, wall: Callable[[], float]) -> None:
        self.front: Front | None = None
        if config.acme_webroot is not None or config.https_redirect or config.hsts is not None:
            self.front = Front(config.acme_webroot, config.https_redirect, config.hsts)
        self.https = config.listen[0].startswith("ssl:")
        self.pin: str | None = None
        self.certificates: Certificates | None = None
        found = Certificates(config.tls, wall, PROTOCOLS, config.domain)
        own = not self.https and config.public_url is None and not is_loopback(config.domain)
        covered = found.covers(config.domain)
        pinned = (config.data_dir / KEY_FILE).exists()
        if own and (pinned or not covered):
            identity = ServerIdentity.self_signed(config.data_dir, config.domain)
            self.pin = identity.pin
            # Where agents may know the relay by its pin already, it stays what it is.
            found.add_own(identity, PublicNames(config.domain, None, True).control_hosts)
            if covered:
                self._log.info(
                    "agents know {domain} by its pin: its own certificate is shown there, and the "
                    "one in {folder} nowhere; to have it shown, remove {key}",
                    domain=config.domain,
                    folder=str(config.tls),
                    key=str(config.data_dir / KEY_FILE),
                )
        if config.tls is not None or self.pin is not None:
            self.certificates = found
        self.tls = self.https or self.pin is not None or (covered and own)
        self._public_url = config.public_url

    def covers(self, host: str) -> bool:
        """Whether visitors of a host get a certificate of the owner's."""
        return self.certificates is not None and self.certificates.covers(host)

    def opened(self, port: int | None) -> None:
        """The first listener has its port."""
        url = None if self._public_url is None else urlsplit(self._public_url)
        if self.front is not None:
            self.front.https_port = url.port if url is not None and url.scheme == "https" else port

    def look(self) -> None:
        """Take certificates that are new."""
        if self.certificates is not None:
            self.certificates.look()
