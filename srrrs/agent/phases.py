"""A service's registration as a table: what each input means in each phase.

::

    OFFLINE ─up─▶ ASKED ─registered─▶ REGISTERED ─down─▶ OFFLINE
                    ├────deferred───▶ WAITING ─due─▶ ASKED
                    └────refused────▶ REFUSED
    any ─remove─▶ WITHDRAWING ─withdrawn─▶ REMOVED

Pure: :class:`srrrs.agent.services.Services` carries the actions out.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Phase(Enum):
    """Where a service is."""

    OFFLINE = "no tunnel"
    ASKED = "asked"
    REGISTERED = "registered"
    REFUSED = "refused for good on this tunnel"
    WAITING = "refused or lost; asked again later"
    SUSPENDING = "withdrawn because the agent stops; unconfirmed"
    WITHDRAWING = "withdrawn because it was removed; unconfirmed"
    REMOVED = "removed"


class Input(Enum):
    """What can happen to a service."""

    UP = "a tunnel stands"
    DOWN = "the tunnel ended"
    REGISTERED = "the relay provides it"
    REFUSED = "the relay refuses it for good"
    DEFERRED = "the relay refuses it for now"
    WITHDRAWN = "the relay provides it no longer"
    DUE = "the timer of this phase ran out"
    SUSPEND = "the agent stops"
    REMOVE = "removed by its owner"


class Action(Enum):
    """What the registry does beside noting the new phase."""

    ASK = "send Register"
    ANNOUNCE = "tell that it is ready"
    COMPLAIN = "tell that it is refused"
    REPORT_LOSS = "tell that the relay withdrew it"
    SCHEDULE = "set the timer for asking again"
    WITHDRAW = "send Withdraw and set the deadline for its answer"
    SETTLE = "drop the timer"
    FORGET = "drop it, and tell whoever waits for that"


_P, _I, _A = Phase, Input, Action
_ANY_ANSWER = (_I.REGISTERED, _I.REFUSED, _I.DEFERRED, _I.WITHDRAWN)
TRANSITIONS: Final[dict[tuple[Phase, Input], tuple[Phase, tuple[Action, ...]]]] = {
    (_P.OFFLINE, _I.UP): (_P.ASKED, (_A.ASK,)),
    (_P.OFFLINE, _I.DOWN): (_P.OFFLINE, ()),
    **{(_P.OFFLINE, answer): (_P.OFFLINE, ()) for answer in _ANY_ANSWER},
    (_P.OFFLINE, _I.DUE): (_P.OFFLINE, ()),
    (_P.OFFLINE, _I.SUSPEND): (_P.OFFLINE, ()),
    (_P.OFFLINE, _I.REMOVE): (_P.REMOVED, (_A.FORGET,)),
    (_P.ASKED, _I.UP): (_P.ASKED, ()),
    (_P.ASKED, _I.DOWN): (_P.OFFLINE, ()),
    (_P.ASKED, _I.REGISTERED): (_P.REGISTERED, (_A.ANNOUNCE,)),
    (_P.ASKED, _I.REFUSED): (_P.REFUSED, (_A.COMPLAIN,)),
    (_P.ASKED, _I.DEFERRED): (_P.WAITING, (_A.SCHEDULE, _A.COMPLAIN)),
    (_P.ASKED, _I.WITHDRAWN): (_P.WAITING, (_A.SCHEDULE, _A.REPORT_LOSS)),
    (_P.ASKED, _I.DUE): (_P.ASKED, ()),
    (_P.ASKED, _I.SUSPEND): (_P.SUSPENDING, (_A.WITHDRAW,)),
    (_P.ASKED, _I.REMOVE): (_P.WITHDRAWING, (_A.WITHDRAW,)),
    (_P.REGISTERED, _I.UP): (_P.REGISTERED, ()),
    (_P.REGISTERED, _I.DOWN): (_P.OFFLINE, ()),
    (_P.REGISTERED, _I.REGISTERED): (_P.REGISTERED, (_A.ANNOUNCE,)),
    (_P.REGISTERED, _I.REFUSED): (_P.REFUSED, (_A.COMPLAIN,)),
    (_P.REGISTERED, _I.DEFERRED): (_P.WAITING, (_A.SCHEDULE, _A.COMPLAIN)),
    (_P.REGISTERED, _I.WITHDRAWN): (_P.WAITING, (_A.SCHEDULE, _A.REPORT_LOSS)),
    (_P.REGISTERED, _I.DUE): (_P.REGISTERED, ()),
    (_P.REGISTERED, _I.SUSPEND): (_P.SUSPENDING, (_A.WITHDRAW,)),
    (_P.REGISTERED, _I.REMOVE): (_P.WITHDRAWING, (_A.WITHDRAW,)),
    (_P.REFUSED, _I.UP): (_P.REFUSED, ()),
    (_P.REFUSED, _I.DOWN): (_P.OFFLINE, ()),
    **{(_P.REFUSED, answer): (_P.REFUSED, ()) for answer in _ANY_ANSWER},
    (_P.REFUSED, _I.DUE): (_P.REFUSED, ()),
    (_P.REFUSED, _I.SUSPEND): (_P.OFFLINE, ()),
    (_P.REFUSED, _I.REMOVE): (_P.REMOVED, (_A.FORGET,)),
    (_P.WAITING, _I.UP): (_P.WAITING, ()),
    (_P.WAITING, _I.DOWN): (_P.OFFLINE, (_A.SETTLE,)),
    **{(_P.WAITING, answer): (_P.WAITING, ()) for answer in _ANY_ANSWER},
    (_P.WAITING, _I.DUE): (_P.ASKED, (_A.ASK,)),
    (_P.WAITING, _I.SUSPEND): (_P.OFFLINE, (_A.SETTLE,)),
    (_P.WAITING, _I.REMOVE): (_P.REMOVED, (_A.SETTLE, _A.FORGET)),
    (_P.SUSPENDING, _I.UP): (_P.SUSPENDING, ()),
    (_P.SUSPENDING, _I.DOWN): (_P.OFFLINE, (_A.SETTLE,)),
    # The answer to Register may cross Withdraw.
    (_P.SUSPENDING, _I.REGISTERED): (_P.SUSPENDING, ()),
    (_P.SUSPENDING, _I.REFUSED): (_P.OFFLINE, (_A.SETTLE,)),
    (_P.SUSPENDING, _I.DEFERRED): (_P.OFFLINE, (_A.SETTLE,)),
    (_P.SUSPENDING, _I.WITHDRAWN): (_P.OFFLINE, (_A.SETTLE,)),
    (_P.SUSPENDING, _I.DUE): (_P.OFFLINE, ()),
    (_P.SUSPENDING, _I.SUSPEND): (_P.SUSPENDING, ()),
    (_P.SUSPENDING, _I.REMOVE): (_P.WITHDRAWING, ()),
    (_P.WITHDRAWING, _I.UP): (_P.WITHDRAWING, ()),
    (_P.WITHDRAWING, _I.DOWN): (_P.REMOVED, (_A.SETTLE, _A.FORGET)),
    (_P.WITHDRAWING, _I.REGISTERED): (_P.WITHDRAWING, ()),
    (_P.WITHDRAWING, _I.REFUSED): (_P.REMOVED, (_A.SETTLE, _A.FORGET)),
    (_P.WITHDRAWING, _I.DEFERRED): (_P.REMOVED, (_A.SETTLE, _A.FORGET)),
    (_P.WITHDRAWING, _I.WITHDRAWN): (_P.REMOVED, (_A.SETTLE, _A.FORGET)),
    (_P.WITHDRAWING, _I.DUE): (_P.REMOVED, (_A.FORGET,)),
    (_P.WITHDRAWING, _I.SUSPEND): (_P.WITHDRAWING, ()),
    (_P.WITHDRAWING, _I.REMOVE): (_P.WITHDRAWING, ()),
    **{(_P.REMOVED, each): (_P.REMOVED, ()) for each in Input},
}
