"""Changes of the network: what counts as one, when it is told, and that the kernel tells it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.task import Clock
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

import srrrs
from srrrs.net import netwatch
from srrrs.net.netwatch import (
    BUFFER,
    GROUPS,
    IFF_LOOPBACK,
    READS,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_F_CLONED,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    SETTLE,
    SPACING,
    NetWatch,
    tells_change,
)
from tests.conftest import FlushLoggedErrors

UP = 0x1
KERNEL, SOMEBODY = 0, 4711


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A netlink message, padded to the next."""
    size = 16 + len(body)
    head = struct.pack("=IHHII", size if length is None else length, kind, 0, 0, 0)
    return head + body + bytes(-size % 4)


def link(kind: int = RTM_NEWLINK, flags: int = UP) -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, 2, flags, 0))


def address(kind: int = RTM_NEWADDR) -> bytes:
    return message(kind, struct.pack("=BBBBI", 2, 24, 0, 0, 2))


def route(kind: int = RTM_NEWROUTE, flags: int = 0) -> bytes:
    return message(kind, struct.pack("=8BI", 2, 0, 0, 0, 254, 3, 0, 1, flags))


NEIGHBOUR = message(28, bytes(12))  # RTM_NEWNEIGH
DONE = message(3, b"")


# --- what counts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        link(),
        link(RTM_DELLINK),
        address(),
        address(RTM_DELADDR),
        route(),
        route(RTM_DELROUTE),
        NEIGHBOUR + DONE + address(),
        message(RTM_NEWADDR, b"odd"),
        message(99, b"odd") + route(),
    ],
)
def test_what_counts(data: bytes) -> None:
    """Links, addresses and routes that come or go, wherever they stand among others."""
    assert tells_change(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        NEIGHBOUR + DONE,
        link(flags=UP | IFF_LOOPBACK),
        route(flags=RTM_F_CLONED),
        message(RTM_NEWLINK, b""),
        message(RTM_NEWROUTE, bytes(11)),
        address()[:15],
        address()[:-1],
        message(3, b"", length=0) + address(),
        message(3, b"", length=15) + address(),
        message(3, b"", length=1 << 31) + address(),
    ],
)
def test_what_does_not(data: bytes) -> None:
    """Other messages, the loopback link, remembered destinations, and what is cut off."""
    assert not tells_change(data)


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    tells_change(data)


@given(
    st.lists(
        st.builds(
            message, st.integers(14, 30), st.binary(max_size=30), st.integers(0, 64) | st.none()
        ),
        max_size=5,
    ),
    st.integers(0, 200),
)
def test_likely_noise(messages: list[bytes], cut: int) -> None:
    """Messages of all lengths, true and false, cut anywhere."""
    tells_change(b"".join(messages)[:cut])


# --- when it is told --------------------------------------------------------------------------


class FakeSocket:
    """A netlink socket that holds what the test puts there."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, int] | OSError] = deque()
        self.closed = False

    def fileno(self) -> int:
        return 7

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        assert size == BUFFER
        if not self.waiting:
            raise BlockingIOError
        what = self.waiting.popleft()
        if isinstance(what, OSError):
            raise what
        return what[0], (what[1], GROUPS)

    def close(self) -> None:
        self.closed = True


class WatchingClock(Clock):
    """A clock that watches descriptors."""

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, IReactorFDSet)
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Watch:
    """A watch on a socket that the test fills."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = WatchingClock()
        self.socket = FakeSocket()
        monkeypatch.setattr(netwatch, "_open", lambda: self.socket)
        self.told: list[float] = []
        self.watch = NetWatch(self.clock, lambda: self.told.append(self.clock.seconds()))
        assert self.watch.start()

    def happens(self, data: bytes | OSError = b"", port: int = KERNEL) -> None:
        self.socket.waiting.append(data if isinstance(data, OSError) else (data or address(), port))
        self.watch.doRead()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def test_a_group_is_told_once(watch: Watch) -> None:
    watch.happens(link())
    watch.clock.advance(SETTLE / 2)
    watch.happens(address())
    watch.happens(route())
    assert watch.told == []
    watch.clock.advance(SETTLE / 2)
    assert watch.told == [SETTLE]
    watch.clock.advance(60)
    assert watch.told == [SETTLE]


def test_a_restless_network_is_told_of_now_and_then(watch: Watch) -> None:
    """And what comes after the telling is told of too."""
    for _ in range(100):
        watch.happens()
        watch.clock.advance(0.01)
    assert 1 / SPACING <= len(watch.told) <= 1 / SPACING + 1
    count = len(watch.told)
    watch.clock.advance(SPACING)
    assert len(watch.told) == count + 1


def test_other_processes_are_not_believed(watch: Watch) -> None:
    watch.happens(address(), SOMEBODY)
    assert watch.clock.getDelayedCalls() == []


def test_more_than_there_was_room_for(watch: Watch) -> None:
    """What the kernel had to drop may have mattered."""
    watch.happens(OSError(errno.ENOBUFS, "no room"))
    watch.clock.advance(SETTLE)
    assert watch.told == [SETTLE]
    assert watch.clock.readers == [watch.watch]


def test_a_broken_socket_ends_it(watch: Watch) -> None:
    watch.happens(OSError(errno.EBADF, "bad"))
    assert watch.clock.readers == []
    assert watch.socket.closed


def test_a_flood_leaves_the_reactor_its_turn(watch: Watch) -> None:
    watch.socket.waiting.extend([(NEIGHBOUR, KERNEL)] * (READS + 3))
    watch.watch.doRead()
    assert len(watch.socket.waiting) == 3


def test_stopping(watch: Watch) -> None:
    """Nothing is left behind, and nothing is told; it can begin again."""
    verifyObject(IReadDescriptor, watch.watch)
    assert watch.watch.start()
    assert watch.clock.readers == [watch.watch]
    assert watch.watch.fileno() == 7
    watch.happens()
    watch.watch.stop()
    watch.watch.stop()
    assert watch.clock.readers == []
    assert watch.clock.getDelayedCalls() == []
    assert watch.socket.closed
    assert watch.watch.fileno() == -1
    watch.watch.doRead()
    assert watch.watch.start()
    assert watch.clock.readers == [watch.watch]


def test_a_fault_of_who_is_told(
    monkeypatch: pytest.MonkeyPatch, flush_logged_errors: FlushLoggedErrors
) -> None:
    """It is logged, and the next change told all the same."""
    watch = Watch(monkeypatch)
    watch.watch._changed = lambda: 1 // 0  # type: ignore[assignment]
    for _ in range(2):
        watch.happens()
        watch.clock.advance(SPACING)
    assert len(flush_logged_errors(ZeroDivisionError)) == 2


def test_without_descriptors() -> None:
    """A reactor that watches none is told nothing by, which is no error."""
    watch = NetWatch(Clock(), lambda: None)
    assert not watch.start()
    watch.stop()


@pytest.mark.parametrize("where", ["socket", "bind", "module"])
def test_where_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """No such system, no such family (systemd's RestrictAddressFamilies=), no permission."""

    class Refused(FakeSocket):
        def __init__(self, *_: object) -> None:
            super().__init__()
            if where == "socket":
                raise OSError(errno.EAFNOSUPPORT, "not here")

        def setblocking(self, flag: bool) -> None:
            assert not flag

        def bind(self, where: object) -> None:
            raise PermissionError(errno.EPERM, "not you")

    if where == "module":
        monkeypatch.delattr(socket, "AF_NETLINK", raising=False)
    else:
        monkeypatch.setattr(socket, "AF_NETLINK", 16, raising=False)
        monkeypatch.setattr(socket, "socket", Refused)
    clock = WatchingClock()
    assert not NetWatch(clock, lambda: None).start()
    assert clock.readers == []


# --- the kernel -------------------------------------------------------------------------------

SCRIPT = """
import socket, subprocess, sys
if sys.argv[1] == "fast":
    from srrrs.net.reactor.install import install
    install()
from twisted.internet import reactor
from srrrs.net.netwatch import NetWatch
from srrrs.net.sockets import is_stranded

steps = ["addr add 192.0.2.7/32 dev lo", "addr del 192.0.2.7/32 dev lo",
         "addr add 2001:db8::7/128 dev lo nodad", "addr del 2001:db8::7/128 dev lo",
         "addr add 192.0.2.7/32 dev lo"]
verdicts = []

class Transport:
    socket = None

def changed():
    if Transport.socket is None:
        with socket.create_server(("192.0.2.7", 0)) as server:
            Transport.socket = socket.create_connection(server.getsockname())
    verdicts.append(is_stranded(Transport))
    if steps:
        ip(steps.pop(0))
    else:
        print(verdicts)
        watch.stop()
        reactor.stop()

def ip(step):
    subprocess.run(["ip", *step.split()], check=True)

ip("link set lo up")
watch = NetWatch(reactor, changed)
assert watch.start()
reactor.callWhenRunning(ip, steps.pop(0))
reactor.callLater(30, sys.exit, "never told")
reactor.run()
"""


def apart() -> list[str]:
    """What to put before a command to run it in a network of its own."""
    if sys.platform == "linux" and shutil.which("ip"):
        for way in (["unshare", "-n"], ["unshare", "-rn"]):
            try:
                done = subprocess.run([*way, "ip", "link"], check=False, capture_output=True)
            except OSError:
                break
            if done.returncode == 0:
                return way
    pytest.skip("no network namespace can be made here")


@pytest.mark.parametrize("kind", ["fast", "default"])
def test_the_kernel_tells(kind: str) -> None:
    """Addresses that come and go are told, and a connection whose own has gone is known by that,
    until it is back."""
    if kind == "fast":
        pytest.importorskip("uvloop")
    env = {**os.environ, "PYTHONPATH": str(Path(srrrs.__file__).parent.parent)}
    command = [*apart(), sys.executable, "-c", SCRIPT, kind]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=env)
    assert (done.stdout, done.returncode) == (
        "[False, True, True, True, False]\n",
        0,
    ), done.stderr
