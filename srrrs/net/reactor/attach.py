"""Giving a connected socket to the event loop without a task."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from functools import partial
from typing import Any

from twisted.logger import Logger

log = Logger()


def attach_socket(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol
) -> None:
    """Have the loop own a connected stream socket.

    In its next turn the loop calls `protocol.connection_made(transport)`, starts reading, and
    calls what was given to `loop.call_soon` right after this function, before it polls.

    :raises Exception: what the loop raises for a socket that it cannot take.
    """
    # The coroutine does its work up to its only await at once: a task would put that off by a
    # turn, and cost twice as much.
    coroutine = loop.connect_accepted_socket(lambda: protocol, sock)
    waiter: asyncio.Future[Any] = coroutine.send(None)
    waiter.add_done_callback(partial(_finish, coroutine))


def _finish(coroutine: Coroutine[Any, Any, Any], waiter: asyncio.Future[Any]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    except Exception:
        log.failure("The event loop could not take a connection")
