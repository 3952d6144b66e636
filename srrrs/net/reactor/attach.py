"""Giving a connected socket to the event loop without a task."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any


def attach(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: Any
) -> Coroutine[Any, Any, Any]:
    """Have the loop own a connected stream socket.

    In its next turn the loop calls `protocol.connection_made(transport)`, starts reading, and
    then, before it polls, calls what was given to `loop.call_soon` right after this function: that
    is to call `finish`.

    :return: what `finish` needs.
    :raises Exception: what the loop raises for a socket that it cannot take.
    """
    # The coroutine does its work up to its only await at once: a task would put that off by a
    # turn, and cost twice as much.
    coroutine = loop.connect_accepted_socket(lambda: protocol, sock)
    coroutine.send(None)
    return coroutine


def finish(coroutine: Coroutine[Any, Any, Any]) -> None:
    """End what `attach` began.

    :raises Exception: the loop could not take the socket.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        pass
