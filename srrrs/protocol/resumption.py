"""Who may go on with a session: the proof that a new carrier comes from its owner.

The relay gives a session's key once, inside the first handshake. Each resume proves, without
showing it, that its sender has it: HMAC-SHA256 (RFC 2104) over the session, a nonce of each side
(so that no proof can be used twice) and the number of the carrier, which rises strictly (so that
an old dial cannot push a newer one out). Nothing rotates: a carrier that is cut after any message
of the handshake leaves both sides with what they need for the next.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

KEY_SIZE: Final = 32
"""Bytes of a session's key (RFC 2104, 3: no less than the hash's output)."""
NONCE_SIZE: Final = 16
"""Bytes of a nonce."""
MAX_CARRIER: Final = (1 << 53) - 1
"""The greatest carrier number: what every JSON reader takes for a whole number (RFC 8259, 6)."""


class Prover(StrEnum):
    """Whose proof it is; neither can be taken for the other's."""

    AGENT = "agent"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What both ends know of a session. Its representation does not show the key.

    :ivar session: the session's id, which is no secret.
    :ivar key: ``KEY_SIZE`` random bytes.
    """

    session: str
    key: bytes

    def __repr__(self) -> str:
        return f"Ticket({self.session!r})"

    @classmethod
    def new(cls) -> Ticket:
        """A session's, from the system's random source."""
        return cls(secrets.token_hex(16), secrets.token_bytes(KEY_SIZE))

    def prove(self, prover: Prover, relay_nonce: str, agent_nonce: str, carrier: int) -> str:
        """The proof, in hexadecimal."""
        said = "\n".join(
            ("srrrs.v1 resume", prover, self.session, relay_nonce, agent_nonce, str(carrier))
        )
        return hmac.new(self.key, said.encode(), hashlib.sha256).hexdigest()

    def proves(
        self, proof: str, prover: Prover, relay_nonce: str, agent_nonce: str, carrier: int
    ) -> bool:
        """Whether a proof is right, in a time that does not tell how wrong it is."""
        right = self.prove(prover, relay_nonce, agent_nonce, carrier)
        return hmac.compare_digest(right.encode(), proof.encode())


def new_nonce() -> str:
    """A nonce, in hexadecimal."""
    return secrets.token_hex(NONCE_SIZE)
