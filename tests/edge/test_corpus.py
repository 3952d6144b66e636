"""Each message of the corpus, through a visitor's connection to a service and back.

Beside what readers say of a message (tests/http), this is about what becomes of the connections: no
service sees a request that was not read, and no visitor an answer that is not its own.
"""

from __future__ import annotations

import pytest

from srrrs.http.errors import BadResponse
from srrrs.http.head import End, HeadLimits, ResponseHead
from srrrs.http.response import ResponseReader
from srrrs.relay.edge.interfaces import ServiceAway
from tests.edge.corpuskit import LIMITS, Served, send, serve_corpus_host
from tests.edge.h1kit import OK, Lab, get
from tests.http.corpus import REQUESTS, RESPONSES, Case, Refused, Taken, Unfinished

STEPS = pytest.mark.parametrize("step", [1, 100_000], ids=["bytewise", "whole"])


def answers(sent: bytes, methods: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    """What a visitor reads of the final answers to its requests, and whether that was all and
    whole."""
    reader = ResponseReader(LIMITS)
    found: list[tuple[int, bytes]] = []
    status, body = 0, b""
    asked = iter(methods)
    rest = sent
    try:
        while (method := next(asked, None)) is not None:
            # One at a time: a reader takes no answer before its request.
            reader.expect(method, b"websocket")
            reader.feed(rest)
            over = False
            while not over:
                item = reader.next()
                if item is None:
                    reader.eof()
                    item = reader.next()
                    if item is None:
                        return found, True
                if isinstance(item, ResponseHead):
                    status, body = item.status, b""
                    if status == 101:
                        return [*found, (101, reader.rest())], True
                elif isinstance(item, End):
                    found.append((status, body))
                    over = True
                elif item is not None:
                    body += item
            rest = reader.rest()
    except BadResponse:
        return found, False
    return found, not rest


@STEPS
@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_a_request(case: Case, step: int) -> None:
    """The service sees what was read, and nothing else; the visitor one answer to each, then the
    refusal, then the end."""
    lab = Lab()
    service = serve_corpus_host(lab)
    served = Served(lab)
    visitor = lab.connect()
    send(visitor, case.data, step)
    lab.settle(visitor)
    while served.go_on():
        lab.settle(visitor)
    verdict = case.verdict
    methods = [line.split()[0].encode() for line, _ in served.requests]
    found, whole = answers(bytes(visitor.sent), [*methods, b"GET"])
    statuses = [status for status, _ in found]
    if isinstance(verdict, Taken):
        assert served.requests == list(verdict.messages)
        assert (statuses, whole) == ([200] * len(methods), False)
    elif isinstance(verdict, Unfinished):
        assert len(served.requests) == verdict.after
        assert statuses == [200] * verdict.after
    else:
        assert isinstance(verdict, Refused)
        assert len(served.requests) == verdict.after
        assert statuses == [*[200] * verdict.after, verdict.status]
        # And nothing behind it.
        visitor.receive(get("/later", "a.example"))
        lab.settle(visitor)
        assert not any(b"/later" in channel.sent for channel in service.channels)
        assert len(served.requests) == verdict.after
    visitor.peer_half_close()
    lab.settle(visitor)
    while served.go_on():
        lab.settle(visitor)
    lab.clock.pump([1] * 80)
    assert not visitor.connected
    lab.assert_nothing_left()


@STEPS
@pytest.mark.parametrize("case", [each for each in RESPONSES if each.to], ids=str)
def test_a_response(case: Case, step: int) -> None:
    """The visitor gets it, or is told; and its next request gets an answer of its own."""
    lab = Lab()
    lab.site.response_limits = HeadLimits()
    visitor = lab.connect()
    method = case.to[0]
    fields = () if case.upgrade is None else ("Connection: upgrade", "Upgrade: websocket")
    visitor.receive(get("/first", "site.example", *fields).replace(b"GET", method, 1))
    lab.settle(visitor)
    first = lab.channel
    send(first, case.data, step)
    if case.eof and not case.then:
        first.peer_half_close()
    lab.settle(visitor)
    verdict = case.verdict
    switched = isinstance(verdict, Taken) and verdict.messages[0][0].startswith("101")
    asked_again = visitor.connected and not switched
    if asked_again:
        visitor.receive(get("/second"))
        lab.settle(visitor)
        second = lab.channel
        if b"GET /second " not in second.sent:
            # The first answer is not over.
            assert isinstance(verdict, Taken | Unfinished)
            asked_again = False
        else:
            if second is first:
                assert isinstance(verdict, Taken) or case.then
            second.receive(OK)
        lab.settle(visitor)
    connected = visitor.connected
    methods = [method, b"GET"] if asked_again else [method]
    found, _ = answers(bytes(visitor.sent), methods)
    if isinstance(verdict, Taken):
        finals = [
            (int(line.split()[0]), body)
            for line, body in verdict.messages
            if not line.startswith("10") or line.startswith("101")
        ]
        assert found[0] == finals[0]
    elif not found:
        # It broke off within, and that is to be seen.
        assert not connected
    elif verdict.after:
        assert found[0][0] in (200, 204, 304)
    else:
        assert found[0][0] == 502
    if asked_again:
        assert found[1:] == [(200, b"answer")]
    visitor.peer_reset()
    lab.clock.pump([1] * 80)
    for channel in lab.service.channels:
        if channel.connected:
            channel.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


@STEPS
@pytest.mark.parametrize("data", [OK, b"!", b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"\r\n"])
def test_an_answer_to_nobody_reaches_nobody(data: bytes, step: int) -> None:
    """Whatever a service says between requests, the next one goes by another connection."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/first"))
    lab.settle(visitor)
    first = lab.channel
    first.receive(OK)
    lab.settle(visitor)
    send(first, data.replace(b"answer", b"deceit"), step)
    visitor.receive(get("/second"))
    lab.settle(visitor)
    assert lab.channel is not first
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert answers(bytes(visitor.sent), [b"GET", b"GET"]) == ([(200, b"answer")] * 2, True)
    visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize("count", [1, 2])
def test_the_request_of_another_never_goes_by_a_kept_connection(count: int) -> None:
    """Nor is a visitor's connection shared: what one leaves behind it, only it can meet."""
    lab = Lab()
    visitors = [lab.connect() for _ in range(count + 1)]
    for visitor in visitors:
        visitor.receive(get("/"))
        lab.settle(visitor)
        lab.channel.receive(OK)
        lab.settle(visitor)
    assert len(lab.service.channels) == count + 1
    for visitor in visitors:
        visitor.peer_reset()
    lab.assert_nothing_left()


def test_bad_bytes_within_an_answered_request_end_the_connection() -> None:
    """The rest of a request that was answered early is read strictly, too: no request follows."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(
        b"POST / HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.settle(visitor)
    visitor.receive(b"0\n\r\n" + get("/smuggled"))
    lab.settle(visitor)
    assert not any(b"smuggled" in channel.sent for channel in lab.service.channels)
    assert answers(bytes(visitor.sent), [b"POST"]) == ([(200, b"answer")], True)
    visitor.peer_half_close()
    lab.settle(visitor)
    assert not visitor.connected
    lab.assert_nothing_left()


@STEPS
@pytest.mark.parametrize("host", ["nobody.example", "relay.example", "site.example"])
def test_bodies_of_requests_that_the_relay_answers_are_no_requests(host: str, step: int) -> None:
    """What it answers by itself, it reads to the end: a body that looks like a request is none
    (client-side desync)."""
    lab = Lab()
    visitor = lab.connect()
    inner = get("/smuggled")
    data = b"POST /x HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (
        host.encode(),
        len(inner),
    )
    if host == "site.example":
        lab.service.problem = ServiceAway()
    send(visitor, data + inner, step)
    lab.service.problem = None
    send(visitor, get("/next"), step)
    lab.settle(visitor)
    assert b"GET /next " in lab.channel.sent
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert len(lab.service.channels) == 1
    assert b"smuggled" not in lab.channel.sent
    found, whole = answers(bytes(visitor.sent), [b"POST", b"GET"])
    assert found[0][0] >= 400
    assert (found[1:], whole) == ([(200, b"answer")], True)
    visitor.peer_reset()
    lab.assert_nothing_left()


def test_nobody_is_told_to_go_on_who_does_not_wait() -> None:
    """A 100 that no expectation asked for goes no further: a proxy in front may take it for the
    answer. Other interim responses do."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/"))
    lab.settle(visitor)
    lab.channel.receive(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK
    )
    lab.settle(visitor)
    assert b" 100 " not in visitor.sent
    assert visitor.sent.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 200 OK")
    visitor.peer_reset()
    lab.assert_nothing_left()
