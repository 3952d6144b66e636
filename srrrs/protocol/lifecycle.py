"""A tunnel's lifecycle as a table: what each input means in each state.

::

    NEW ─attached─▶ CONNECTED ─broken─▶ PARKED ─resumed─▶ CONNECTED …
                        │                  └──expired──▶ ENDED
                        └──────closed, ended───────────▶ ENDED

Pure: :class:`srrrs.net.tunnel.Tunnel` carries the actions out.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """Where a tunnel is."""

    NEW = "new"
    CONNECTED = "connected"
    PARKED = "parked"
    ENDED = "ended"


class Input(Enum):
    """What can happen to a tunnel."""

    ATTACHED = "its first carrier is there"
    RESUMED = "a carrier is there that goes on with the session"
    BROKEN = "the carrier ended, and nobody said that it should"
    CLOSED = "the peer ended the tunnel, or broke the protocol"
    EXPIRED = "the grace time ran out, or the memory was needed"
    END = "this end ends the tunnel"


class Action(Enum):
    """What the tunnel does beside taking the new state."""

    START = "begin on the carrier"
    DROP = "give the old carrier up, which nobody has missed yet"
    REPLAY = "send again what the peer has not got, and go on"
    PARK = "wait for a carrier, with a deadline"
    FINISH = "reset the streams and tell whoever waits"
    REFUSE = "raise: this carrier cannot be taken"


_S, _I, _A = State, Input, Action
TRANSITIONS: Final[dict[tuple[State, Input], tuple[State, tuple[Action, ...]]]] = {
    (_S.NEW, _I.ATTACHED): (_S.CONNECTED, (_A.START,)),
    (_S.NEW, _I.RESUMED): (_S.NEW, (_A.REFUSE,)),
    (_S.NEW, _I.BROKEN): (_S.NEW, ()),
    (_S.NEW, _I.CLOSED): (_S.ENDED, (_A.FINISH,)),
    (_S.NEW, _I.EXPIRED): (_S.ENDED, (_A.FINISH,)),
    (_S.NEW, _I.END): (_S.ENDED, (_A.FINISH,)),
    (_S.CONNECTED, _I.ATTACHED): (_S.CONNECTED, (_A.REFUSE,)),
    (_S.CONNECTED, _I.RESUMED): (_S.CONNECTED, (_A.DROP, _A.REPLAY)),
    (_S.CONNECTED, _I.BROKEN): (_S.PARKED, (_A.PARK,)),
    (_S.CONNECTED, _I.CLOSED): (_S.ENDED, (_A.FINISH,)),
    # The deadline of a time when it was parked.
    (_S.CONNECTED, _I.EXPIRED): (_S.CONNECTED, ()),
    (_S.CONNECTED, _I.END): (_S.ENDED, (_A.FINISH,)),
    (_S.PARKED, _I.ATTACHED): (_S.PARKED, (_A.REFUSE,)),
    (_S.PARKED, _I.RESUMED): (_S.CONNECTED, (_A.REPLAY,)),
    # A carrier that was given up already.
    (_S.PARKED, _I.BROKEN): (_S.PARKED, ()),
    (_S.PARKED, _I.CLOSED): (_S.ENDED, (_A.FINISH,)),
    (_S.PARKED, _I.EXPIRED): (_S.ENDED, (_A.FINISH,)),
    (_S.PARKED, _I.END): (_S.ENDED, (_A.FINISH,)),
    (_S.ENDED, _I.ATTACHED): (_S.ENDED, (_A.REFUSE,)),
    (_S.ENDED, _I.RESUMED): (_S.ENDED, (_A.REFUSE,)),
    (_S.ENDED, _I.BROKEN): (_S.ENDED, ()),
    (_S.ENDED, _I.CLOSED): (_S.ENDED, ()),
    (_S.ENDED, _I.EXPIRED): (_S.ENDED, ()),
    (_S.ENDED, _I.END): (_S.ENDED, ()),
}
