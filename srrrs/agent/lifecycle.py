"""The agent's lifecycle as a table: what each input means in each state.

::

    IDLE ─start─▶ DIALLING ─welcomed─▶ CONNECTED ─lost─▶ WAITING ─due─▶ DIALLING …
                     └──────failed──────────────────────▶┘
    CONNECTED ─parked─▶ PARKED ─resumed, welcomed─▶ CONNECTED
                           └────lost─▶ WAITING
    CONNECTED ─sent away─▶ WAITING        the old tunnel's streams finish beside the new tunnel
    any ─stop─▶ DRAINING ─(no stream is left, or the limit is due)─▶ STOPPING
    STOPPING ─(the dial and the tunnels have ended, or the deadline is due)─▶ STOPPED

Pure: :class:`srrrs.agent.service.Agent` carries the actions out.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """Where the agent is."""

    IDLE = "idle"
    DIALLING = "dialling"
    CONNECTED = "connected"
    PARKED = "parked"
    WAITING = "waiting"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Input(Enum):
    """What can happen to an agent."""

    START = "told to start"
    STOP = "told to stop"
    WELCOMED = "the relay accepted the tunnel"
    RESUMED = "the relay goes on with the session"
    FAILED = "the dial failed"
    PARKED = "the tunnel's carrier broke"
    LOST = "the tunnel ended"
    SENT_AWAY = "the relay goes away, and there is another to go to"
    DRAINED = "no stream is left"
    CLOSED = "the last tunnel's carrier is gone too"
    DUE = "the timer of this state ran out"


class Action(Enum):
    """What the agent does beside taking the new state."""

    DIAL = "dial the relay"
    ATTACH = "take the tunnel into use and register the services"
    REDIAL = "dial until the session goes on"
    HALT = "give those dials up"
    GO_ON = "take the carrier into the old tunnel"
    GIVE_UP = "end the old tunnel, which the relay does not know any more"
    DISCARD = "abort a tunnel that nobody waits for any more"
    SCHEDULE = "set the timer for the next dial"
    UNSCHEDULE = "drop the timer"
    RETIRE = "let the old tunnel's streams finish beside the next tunnel"
    CANCEL_DIAL = "give the dial up"
    WITHDRAW = "withdraw the services, watch the streams end, and set the limit for that"
    CLOSE = "close the tunnels and set the deadline for stopping"
    ABORT = "end whatever is left, now"
    FINISH = "tell whoever waits for the end"
    REFUSE = "raise: starting is not possible while stopping"


_S, _I, _A = State, Input, Action
TRANSITIONS: Final[dict[tuple[State, Input], tuple[State, tuple[Action, ...]]]] = {
    (_S.IDLE, _I.START): (_S.DIALLING, (_A.DIAL,)),
    (_S.IDLE, _I.STOP): (_S.STOPPED, (_A.FINISH,)),
    (_S.IDLE, _I.WELCOMED): (_S.IDLE, (_A.DISCARD,)),
    (_S.IDLE, _I.RESUMED): (_S.IDLE, (_A.DISCARD,)),
    (_S.IDLE, _I.PARKED): (_S.IDLE, ()),
    (_S.IDLE, _I.FAILED): (_S.IDLE, ()),
    (_S.IDLE, _I.LOST): (_S.IDLE, ()),
    (_S.IDLE, _I.SENT_AWAY): (_S.IDLE, ()),
    (_S.IDLE, _I.DRAINED): (_S.IDLE, ()),
    (_S.IDLE, _I.CLOSED): (_S.IDLE, ()),
    (_S.IDLE, _I.DUE): (_S.IDLE, ()),
    (_S.DIALLING, _I.START): (_S.DIALLING, ()),
    # Streams of a tunnel that the relay has ended may run still.
    (_S.DIALLING, _I.STOP): (_S.DRAINING, (_A.CANCEL_DIAL, _A.WITHDRAW)),
    (_S.DIALLING, _I.WELCOMED): (_S.CONNECTED, (_A.ATTACH,)),
    (_S.DIALLING, _I.RESUMED): (_S.DIALLING, (_A.DISCARD,)),
    (_S.DIALLING, _I.PARKED): (_S.DIALLING, ()),
    (_S.DIALLING, _I.FAILED): (_S.WAITING, (_A.SCHEDULE,)),
    (_S.DIALLING, _I.LOST): (_S.DIALLING, ()),
    (_S.DIALLING, _I.SENT_AWAY): (_S.DIALLING, ()),
    (_S.DIALLING, _I.DRAINED): (_S.DIALLING, ()),
    (_S.DIALLING, _I.CLOSED): (_S.DIALLING, ()),
    (_S.DIALLING, _I.DUE): (_S.DIALLING, ()),
    (_S.CONNECTED, _I.START): (_S.CONNECTED, ()),
    (_S.CONNECTED, _I.STOP): (_S.DRAINING, (_A.WITHDRAW,)),
    (_S.CONNECTED, _I.WELCOMED): (_S.CONNECTED, (_A.DISCARD,)),
    (_S.CONNECTED, _I.RESUMED): (_S.CONNECTED, (_A.DISCARD,)),
    (_S.CONNECTED, _I.PARKED): (_S.PARKED, (_A.REDIAL,)),
    (_S.CONNECTED, _I.FAILED): (_S.CONNECTED, ()),
    (_S.CONNECTED, _I.LOST): (_S.WAITING, (_A.SCHEDULE,)),
    (_S.CONNECTED, _I.SENT_AWAY): (_S.WAITING, (_A.RETIRE, _A.SCHEDULE)),
    (_S.CONNECTED, _I.DRAINED): (_S.CONNECTED, ()),
    (_S.CONNECTED, _I.CLOSED): (_S.CONNECTED, ()),
    (_S.CONNECTED, _I.DUE): (_S.CONNECTED, ()),
    (_S.PARKED, _I.START): (_S.PARKED, ()),
    # Its dials go on: streams that wait may finish, too.
    (_S.PARKED, _I.STOP): (_S.DRAINING, (_A.WITHDRAW,)),
    (_S.PARKED, _I.WELCOMED): (_S.CONNECTED, (_A.HALT, _A.GIVE_UP, _A.ATTACH)),
    (_S.PARKED, _I.RESUMED): (_S.CONNECTED, (_A.HALT, _A.GO_ON)),
    (_S.PARKED, _I.PARKED): (_S.PARKED, ()),
    # Its dials go on at their own pace.
    (_S.PARKED, _I.FAILED): (_S.PARKED, ()),
    (_S.PARKED, _I.LOST): (_S.WAITING, (_A.HALT, _A.SCHEDULE)),
    (_S.PARKED, _I.SENT_AWAY): (_S.PARKED, ()),
    (_S.PARKED, _I.DRAINED): (_S.PARKED, ()),
    (_S.PARKED, _I.CLOSED): (_S.PARKED, ()),
    (_S.PARKED, _I.DUE): (_S.PARKED, ()),
    (_S.WAITING, _I.START): (_S.WAITING, ()),
    (_S.WAITING, _I.STOP): (_S.DRAINING, (_A.UNSCHEDULE, _A.WITHDRAW)),
    (_S.WAITING, _I.WELCOMED): (_S.WAITING, (_A.DISCARD,)),
    (_S.WAITING, _I.RESUMED): (_S.WAITING, (_A.DISCARD,)),
    (_S.WAITING, _I.PARKED): (_S.WAITING, ()),
    (_S.WAITING, _I.FAILED): (_S.WAITING, ()),
    (_S.WAITING, _I.LOST): (_S.WAITING, ()),
    (_S.WAITING, _I.SENT_AWAY): (_S.WAITING, ()),
    (_S.WAITING, _I.DRAINED): (_S.WAITING, ()),
    (_S.WAITING, _I.CLOSED): (_S.WAITING, ()),
    (_S.WAITING, _I.DUE): (_S.DIALLING, (_A.DIAL,)),
    (_S.DRAINING, _I.START): (_S.DRAINING, (_A.REFUSE,)),
    (_S.DRAINING, _I.STOP): (_S.DRAINING, ()),
    # A new tunnel is of no use any more, and the old one is not known there.
    (_S.DRAINING, _I.WELCOMED): (_S.DRAINING, (_A.DISCARD, _A.HALT, _A.GIVE_UP)),
    (_S.DRAINING, _I.RESUMED): (_S.DRAINING, (_A.HALT, _A.GO_ON)),
    (_S.DRAINING, _I.PARKED): (_S.DRAINING, (_A.REDIAL,)),
    (_S.DRAINING, _I.FAILED): (_S.DRAINING, ()),
    (_S.DRAINING, _I.LOST): (_S.DRAINING, (_A.HALT,)),
    (_S.DRAINING, _I.SENT_AWAY): (_S.DRAINING, ()),
    (_S.DRAINING, _I.DRAINED): (_S.STOPPING, (_A.HALT, _A.UNSCHEDULE, _A.CLOSE)),
    (_S.DRAINING, _I.CLOSED): (_S.DRAINING, ()),
    (_S.DRAINING, _I.DUE): (_S.STOPPING, (_A.HALT, _A.CLOSE)),
    (_S.STOPPING, _I.START): (_S.STOPPING, (_A.REFUSE,)),
    (_S.STOPPING, _I.STOP): (_S.STOPPING, ()),
    # The welcome won the race against the cancellation.
    (_S.STOPPING, _I.WELCOMED): (_S.STOPPING, (_A.DISCARD,)),
    (_S.STOPPING, _I.RESUMED): (_S.STOPPING, (_A.DISCARD,)),
    # Nobody is there to confirm anything.
    (_S.STOPPING, _I.PARKED): (_S.STOPPED, (_A.ABORT, _A.UNSCHEDULE, _A.FINISH)),
    (_S.STOPPING, _I.FAILED): (_S.STOPPING, ()),
    # Its carrier still has its closing handshake to do.
    (_S.STOPPING, _I.LOST): (_S.STOPPING, ()),
    (_S.STOPPING, _I.SENT_AWAY): (_S.STOPPING, ()),
    (_S.STOPPING, _I.DRAINED): (_S.STOPPING, ()),
    (_S.STOPPING, _I.CLOSED): (_S.STOPPED, (_A.UNSCHEDULE, _A.FINISH)),
    (_S.STOPPING, _I.DUE): (_S.STOPPED, (_A.ABORT, _A.FINISH)),
    (_S.STOPPED, _I.START): (_S.DIALLING, (_A.DIAL,)),
    (_S.STOPPED, _I.STOP): (_S.STOPPED, (_A.FINISH,)),
    (_S.STOPPED, _I.WELCOMED): (_S.STOPPED, (_A.DISCARD,)),
    (_S.STOPPED, _I.RESUMED): (_S.STOPPED, (_A.DISCARD,)),
    (_S.STOPPED, _I.PARKED): (_S.STOPPED, ()),
    (_S.STOPPED, _I.FAILED): (_S.STOPPED, ()),
    (_S.STOPPED, _I.LOST): (_S.STOPPED, ()),
    (_S.STOPPED, _I.SENT_AWAY): (_S.STOPPED, ()),
    (_S.STOPPED, _I.DRAINED): (_S.STOPPED, ()),
    (_S.STOPPED, _I.CLOSED): (_S.STOPPED, ()),
    (_S.STOPPED, _I.DUE): (_S.STOPPED, ()),
}
