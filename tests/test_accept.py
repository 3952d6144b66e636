"""Accept pauses before anything runs out, and goes on; nobody is refused."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from srrrs.net import accept
from srrrs.net.accept import (
    LOOK_AGAIN,
    AcceptGate,
    Turnstile,
    address_key,
    hung_up,
    raise_nofile_limit,
)


class Port:
    """A listening port, as far as a gate is concerned."""

    def __init__(self) -> None:
        self.reading = True
        self.calls: list[str] = []
        self.numberAccepts = 100

    def stopReading(self) -> None:
        self.reading = False
        self.calls.append("stop")

    def startReading(self) -> None:
        self.reading = True
        self.calls.append("start")


class Transport:
    def __init__(self, port: Port, number: int) -> None:
        self.server = port
        self._number = number

    def fileno(self) -> int:
        return self._number


def reads(port: Port) -> bool:
    return port.reading


def pauses(gate: AcceptGate) -> bool:
    return gate.paused


def address(last: int) -> IAddress:
    return IPv4Address("TCP", f"192.0.2.{last}", 1000)


# --- whose connection -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64"),
        (UNIXAddress("/run/x.sock"), None),
    ],
)
def test_address_keys(peer: IAddress, key: str | None) -> None:
    """IPv6 is counted by network, as one host has many addresses; UNIX sockets not at all."""
    assert address_key(peer) == key


# --- taking turns -----------------------------------------------------------------------------


def test_turns_come_in_order() -> None:
    """So many of a key at a time; the others in the order in which they came."""
    stile, told = Turnstile(2), list[str]()
    turns = [stile.enter("a", lambda name=name: told.append(name)) for name in "uvwxy"]  # type: ignore[misc]
    other = stile.enter("b", lambda: told.append("other"))
    assert told == ["u", "v", "other"]
    turns[1].leave()
    turns[1].leave()
    assert told == ["u", "v", "other", "w"]
    turns[3].leave()
    turns[0].leave()
    assert told == ["u", "v", "other", "w", "y"]
    for turn in (*turns, other):
        turn.leave()
    assert (stile._inside, stile._lines) == ({}, {})


def test_a_long_line_of_short_turns() -> None:
    """Turns that end at once, thousands in a row, need no deep stack."""
    stile, count = Turnstile(1), 0
    first = stile.enter("a", lambda: None)
    turns: list[Any] = []

    def enter(number: int) -> None:
        def then() -> None:
            nonlocal count
            count += 1
            turns[number].leave()

        turns.append(stile.enter("a", then))

    for number in range(5000):
        enter(number)
    first.leave()
    assert count == 5000


def test_no_key_no_limit() -> None:
    """Those that cannot be told apart do not wait for each other."""
    stile, told = Turnstile(1), list[int]()
    for number in range(3):
        stile.enter(None, lambda number=number: told.append(number))  # type: ignore[misc]
    assert told == [0, 1, 2]


# --- handshakes ---------------------------------------------------------------------------------


def test_accept_pauses_at_the_limit_of_handshakes() -> None:
    """At the limit accept pauses, those accepted already wait, and all goes on by itself."""
    gate, port, begun = AcceptGate(Clock(), handshakes=2), Port(), list[int]()
    gate.add(port)  # type: ignore[arg-type]
    slots = [
        gate.handshake(address(number), lambda number=number: begun.append(number))  # type: ignore[misc]
        for number in range(4)
    ]
    assert begun == [0, 1]
    assert not reads(port)
    slots[0].release()
    assert begun == [0, 1, 2]
    assert not reads(port)
    slots[1].release()
    slots[2].release()
    assert begun == [0, 1, 2, 3]
    assert reads(port)
    slots[3].release()
    slots[3].release()
    assert port.calls == ["stop", "start"]


def test_one_address_does_not_keep_others_waiting() -> None:
    """An address has its own limit below the one for all."""
    gate, begun = AcceptGate(Clock(), handshakes=3, per_address=2), list[str]()
    for _ in range(5):
        gate.handshake(address(1), lambda: begun.append("herd"))
    gate.handshake(address(2), lambda: begun.append("other"))
    assert begun == ["herd", "herd", "other"]


def test_tls_handshakes_do_not_pause_accept() -> None:
    """Anybody can begin TLS and stop half-way: that holds up nobody but its own address."""
    gate, port, begun = AcceptGate(Clock(), handshakes=1, per_address=2), Port(), list[str]()
    gate.add(port)  # type: ignore[arg-type]
    for _ in range(5):
        gate.hello(address(1), lambda: begun.append("slow"))
    gate.hello(address(2), lambda: begun.append("other"))
    assert begun == ["slow", "slow", "other"]
    assert reads(port)


def test_agents_do_not_queue_behind_tls() -> None:
    """Who has done its TLS goes on while the rest of its fleet still waits to begin."""
    gate, begun = AcceptGate(Clock(), per_address=1), list[str]()
    first = gate.hello(address(1), lambda: begun.append("first"))
    gate.hello(address(1), lambda: begun.append("second"))
    gate.hello(address(1), lambda: begun.append("third"))
    first.release()
    gate.handshake(address(1), lambda: begun.append("agent"))
    assert begun == ["first", "second", "agent"]


def test_ports_come_and_go_during_a_pause() -> None:
    """A port that is added during a pause is paused; one that is removed is left alone."""
    gate, first, second = AcceptGate(Clock(), handshakes=1), Port(), Port()
    gate.add(first)  # type: ignore[arg-type]
    slot = gate.handshake(address(1), lambda: None)
    gate.add(second)  # type: ignore[arg-type]
    assert not second.reading
    gate.remove(first)  # type: ignore[arg-type]
    slot.release()
    assert (first.reading, second.reading) == (False, True)
    gate.add(object())  # type: ignore[arg-type]


def test_visitors_are_counted() -> None:
    """So many visitors of an address at a time, and no count stays behind."""
    gate = AcceptGate(Clock(), visitors=1)
    assert gate.admit_visitor(address(1))
    assert not gate.admit_visitor(address(1))
    assert gate.admit_visitor(address(2))
    assert gate.admit_visitor(UNIXAddress(None))
    gate.visitor_gone(address(1))
    assert gate.admit_visitor(address(1))
    for peer in (address(1), address(2), UNIXAddress(None)):
        gate.visitor_gone(peer)
    assert not gate._visitor_count


# --- open files -----------------------------------------------------------------------------


class Files:
    """Open files, as the system would count them."""

    def __init__(self, limit: int, used: int) -> None:
        self.limit = limit
        self.used = used


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    files = Files(1000, 10)
    monkeypatch.setattr(accept, "file_limit", lambda: files.limit)
    monkeypatch.setattr(accept, "count_open_files", lambda: files.used)
    return files


def open_until_paused(gate: AcceptGate, port: Port, files: Files) -> int:
    opened = 0
    while port.reading:
        files.used += 1
        gate.opened(Transport(port, files.used - 1))
        opened += 1
    return opened


def test_files_run_short(files: Files) -> None:
    """Accept pauses with a reserve left, and goes on as soon as there is room, without running up
    against the limit however often that happens."""
    clock, port = Clock(), Port()
    gate = AcceptGate(clock)
    gate.add(port)  # type: ignore[arg-type]
    opened = open_until_paused(gate, port, files)
    assert opened + 10 == files.used == 750
    for _ in range(1000):
        gate.closed()
        files.used -= 1
        clock.advance(LOOK_AGAIN)
        assert reads(port)
        assert port.numberAccepts == 1
        open_until_paused(gate, port, files)
        assert files.used == 750
    gate.stop()
    assert not clock.getDelayedCalls()


def test_files_become_free_by_themselves(files: Files) -> None:
    """Files that others had open are noticed, too, both ways."""
    clock, port = Clock(), Port()
    gate = AcceptGate(clock)
    gate.add(port)  # type: ignore[arg-type]
    files.used = 900
    gate.opened(Transport(port, 901))
    assert not reads(port)
    clock.advance(LOOK_AGAIN)
    assert pauses(gate)
    files.used = 100
    clock.advance(LOOK_AGAIN)
    assert not pauses(gate)
    assert not clock.getDelayedCalls()


def test_many_that_close_need_no_timer(files: Files) -> None:
    """When many connections end at once, accept goes on at once."""
    clock, port = Clock(), Port()
    gate = AcceptGate(clock)
    gate.add(port)  # type: ignore[arg-type]
    opened = open_until_paused(gate, port, files)
    for _ in range(opened):
        files.used -= 1
        gate.closed()
    assert not pauses(gate)
    assert not clock.getDelayedCalls()


def test_ports_accept_in_small_batches(files: Files) -> None:
    """Twisted's port accepts a hundred and more before a pause shows: fewer are asked for."""
    gate, port = AcceptGate(Clock()), Port()
    gate.add(port)  # type: ignore[arg-type]
    assert port.numberAccepts == accept.BATCH
    port.numberAccepts += 20
    gate.opened(Transport(port, 20))
    assert port.numberAccepts == accept.BATCH


def test_accepting_picks_up_after_a_pause(files: Files) -> None:
    """One connection is accepted first, then as many at a time as before."""
    gate, port = AcceptGate(Clock(), handshakes=1), Port()
    gate.add(port)  # type: ignore[arg-type]
    gate.handshake(address(1), lambda: None).release()
    assert port.numberAccepts == 1
    gate.opened(Transport(port, 20))
    assert port.numberAccepts == accept.BATCH


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells")
def test_who_hung_up() -> None:
    """The end of the peer's sending shows, whether or not what came before it is read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"unread")
        assert not hung_up(ours)
        theirs.shutdown(socket.SHUT_WR)
        assert hung_up(ours)
    assert not hung_up(object())


def test_two_reasons_to_pause(files: Files) -> None:
    """Accept goes on when the last reason to pause is gone."""
    clock, port = Clock(), Port()
    gate = AcceptGate(clock, handshakes=1)
    gate.add(port)  # type: ignore[arg-type]
    slot = gate.handshake(address(1), lambda: None)
    files.used = 900
    gate.opened(Transport(port, 901))
    slot.release()
    assert not reads(port)
    files.used = 100
    clock.advance(LOOK_AGAIN)
    assert port.calls == ["stop", "start"]


def test_real_files_are_counted() -> None:
    """One more open file is one more counted."""
    before = accept.count_open_files()
    assert before is not None
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        assert accept.count_open_files() == before + 1
    finally:
        os.close(descriptor)


def in_a_process(code: str, *arguments: str) -> str:
    """What ``code`` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_limit_is_raised() -> None:
    """The soft limit becomes the hard one."""
    assert raise_nofile_limit() is not None
    out = in_a_process(
        """
        import resource
        from srrrs.net.accept import raise_nofile_limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
        print(raise_nofile_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
        """
    )
    assert out == "(200, 300) (300, 300)\n"


SERVER = """
    import resource, sys
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
    if sys.argv[1] == "asyncio":
        import asyncio
        from twisted.internet import asyncioreactor
        asyncioreactor.install(asyncio.new_event_loop())
    elif sys.argv[1] == "srrrs":
        from srrrs.tap.service import install_reactor
        install_reactor()
    else:
        from twisted.internet import epollreactor
        epollreactor.install()
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.protocol import Factory, Protocol
    from twisted.internet.stdio import StandardIO
    from srrrs.net.accept import AcceptGate

    gate = AcceptGate(reactor)

    class Echo(Protocol):
        def connectionMade(self):
            gate.opened(self.transport)
        def dataReceived(self, data):
            self.transport.write(data)
        def connectionLost(self, reason):
            gate.closed()

    async def main():
        port = await serverFromString(reactor, "tcp:0:backlog=500:interface=127.0.0.1").listen(
            Factory.forProtocol(Echo)
        )
        gate.add(port)
        print(port.getHost().port, flush=True)

    class UntilEnd(Protocol):
        def connectionLost(self, reason):
            reactor.callLater(0, reactor.stop)

    from twisted.internet.defer import ensureDeferred
    reactor.callWhenRunning(lambda: ensureDeferred(main()))
    StandardIO(UntilEnd())
    reactor.run()
"""


@pytest.mark.parametrize("reactor_name", ["epoll", "asyncio", "srrrs"])
def test_running_out_of_files(reactor_name: str) -> None:
    """A server with far more connections than files refuses none: those that it cannot take yet
    wait, and are served as soon as others end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), reactor_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    clients: list[socket.socket] = []
    try:
        number = int(process.stdout.readline())
        for _ in range(400):
            clients.append(socket.create_connection(("127.0.0.1", number), 20))
            clients[-1].sendall(b"x")
        served = 0
        for client in clients:
            # Each is served in its turn, although there are never files for half of them.
            assert client.recv(1) == b"x"
            client.close()
            served += 1
        assert served == 400
    finally:
        for client in clients:
            client.close()
        _, errors = process.communicate("", timeout=30)
    assert "Traceback" not in errors
    assert process.returncode == 0
