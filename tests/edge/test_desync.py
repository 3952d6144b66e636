"""Each answer goes to the request that it was given to, whatever services and visitors do."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from srrrs.http.errors import BadResponse
from srrrs.http.head import End, HeadLimits, RequestHead, ResponseHead
from srrrs.http.request import RequestReader
from srrrs.http.response import ResponseReader
from srrrs.protocol.errors import ResetCode
from tests.edge.h1kit import Lab
from tests.edge_fakes import FakeChannel

LIMITS = HeadLimits(head_bytes=64 * 1024, fields=200)
DECEIT = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ndeceit"

BENIGN = ["length", "chunked", "interim", "closing"]
STYLES = [
    *BENIGN,
    "until close",
    "early",
    "surplus",
    "late surplus",
    "cut",
    "cut chunks",
    "cut head",
    "dead",
    "reset",
    "garbage",
    "two lengths",
    "no content",
]


@dataclass(frozen=True)
class Step:
    """One request, and how its service answers.

    :ivar chunks: whether the body comes in chunks.
    """

    number: int
    method: str
    host: str
    body: int
    chunks: bool
    expects: bool
    closes: bool
    style: str

    @property
    def path(self) -> str:
        return f"/{self.number}"

    def request(self) -> bytes:
        """As the visitor sends it."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {self.host}"]
        body = (b"GET /smuggled HTTP/1.1\r\nHost: site.example\r\n\r\n" * 20)[: self.body]
        if self.closes:
            lines.append("Connection: close")
        if self.body and self.expects:
            lines.append("Expect: 100-continue")
        if self.body and self.chunks:
            lines.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif self.body:
            lines.append(f"Content-Length: {self.body}")
        return "\r\n".join([*lines, "", ""]).encode() + body


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT"]),
        st.sampled_from(["site.example", "site.example", "other.example"]),
        st.sampled_from([0, 0, 5, 300]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
        st.sampled_from(STYLES),
    ),
    min_size=1,
    max_size=6,
).map(lambda each: [Step(number, *values) for number, values in enumerate(each)])


class Services:
    """Both of a lab's, reading strictly and answering as the steps say."""

    def __init__(self, lab: Lab, steps: list[Step]) -> None:
        self._lab = lab
        self._steps = {step.path: step for step in steps}
        self._readers: dict[FakeChannel, RequestReader] = {}
        self._read: dict[FakeChannel, int] = {}
        self._asked: dict[FakeChannel, tuple[Step, bytes] | None] = {}
        self._failed: set[int] = set()
        self._later: list[FakeChannel] = []

    def go_on(self, late: bool) -> bool:
        """Read and answer; whether there was anything.

        :param late: also say what comes after an answer, unasked.
        """
        busy = False
        for service in (self._lab.service, self._lab.other):
            for channel in list(service.channels):
                busy |= self._serve(channel)
        if late:
            for channel in self._later:
                # Behind the next request it would be the answer to that.
                if channel.connected and not self._asked_again(channel):
                    channel.receive(DECEIT)
            self._later.clear()
        return busy

    def _asked_again(self, channel: FakeChannel) -> bool:
        unread = len(channel.sent) > self._read[channel]
        return unread or channel.buffered > 0 or self._readers[channel].begun

    def _serve(self, channel: FakeChannel) -> bool:
        reader = self._readers.setdefault(channel, RequestReader(LIMITS))
        at = self._read.get(channel, 0)
        reader.feed(bytes(channel.sent[at:]))
        self._read[channel] = len(channel.sent)
        busy = False
        while channel.connected and (item := reader.next()) is not None:
            busy = True
            if isinstance(item, RequestHead):
                step = self._steps[item.target.decode()]
                assert item.host == step.host
                assert item.method.decode() == step.method
                self._asked[channel] = (step, b"")
                if step.style == "early":
                    self._answer(channel, step)
            elif isinstance(item, End):
                asked = self._asked[channel]
                assert asked is not None
                assert len(asked[1]) == asked[0].body
                reader.next_message()
                if asked[0].style != "early":
                    self._answer(channel, asked[0])
            else:
                asked = self._asked[channel]
                assert asked is not None
                self._asked[channel] = (asked[0], asked[1] + item)
        return busy

    def _answer(self, channel: FakeChannel, step: Step) -> None:
        body = b"" if step.method == "HEAD" else step.path.encode()
        length = b"Content-Length: %d\r\n" % len(step.path)
        ok = b"HTTP/1.1 200 OK\r\n"
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b""
        style = step.style
        if style in ("reset", "dead", "cut head") and step.number in self._failed:
            style = "length"  # The second time it works.
        self._failed.add(step.number)
        if style in ("length", "early", "late surplus"):
            channel.receive(ok + length + b"\r\n" + body)
            if style == "late surplus":
                self._later.append(channel)
        elif style == "chunked":
            channel.receive(ok + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        elif style == "interim":
            channel.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
            channel.receive(ok + length + b"\r\n" + body)
        elif style == "closing":
            channel.receive(ok + b"Connection: close\r\n" + length + b"\r\n" + body)
        elif style == "until close":
            # Without a body, nothing else says that it closes.
            said = b"Connection: close\r\n" if step.method == "HEAD" else b""
            channel.receive(ok + said + b"\r\n" + body)
            channel.peer_half_close()
        elif style == "surplus":
            channel.receive(ok + length + b"\r\n" + body + DECEIT)
        elif style == "cut":
            channel.receive(ok + length + b"\r\n" + body[:-1])
            channel.peer_half_close()
        elif style == "cut chunks":
            channel.receive(ok + b"Transfer-Encoding: chunked\r\n\r\n" + chunks[:-2])
            channel.peer_half_close()
        elif style == "cut head":
            channel.receive(ok + length)
            channel.peer_half_close()
        elif style == "dead":
            channel.peer_half_close()
        elif style == "reset":
            channel.peer_resets(ResetCode.CANCEL)
        elif style == "garbage":
            channel.receive(b"220 mail.example ESMTP\r\n")
        elif style == "two lengths":
            channel.receive(ok + length + b"Content-Length: 60\r\n\r\n" + body)
        else:
            assert style == "no content"
            channel.receive(b"HTTP/1.1 204 No Content\r\n\r\n")


def read_answers(sent: bytes, steps: list[Step]) -> list[tuple[int, bytes]]:
    """What a visitor reads of the final answers to its requests, as far as they are whole."""
    reader = ResponseReader(LIMITS)
    found: list[tuple[int, bytes]] = []
    status, body = 0, b""
    rest = sent
    for step in steps:
        reader.expect(step.method.encode())
        reader.feed(rest)
        while True:
            item = reader.next()
            if item is None:
                try:
                    reader.eof()
                except BadResponse:
                    return found
                continue
            if isinstance(item, ResponseHead):
                status, body = item.status, b""
            elif isinstance(item, End):
                found.append((status, body))
                break
            else:
                body += item
        rest = reader.rest()
    assert not rest
    return found


@settings(max_examples=150)
@given(STEPS, st.data())
def test_each_answer_goes_to_its_request(steps: list[Step], draw: st.DataObject) -> None:
    """One visitor, two services that do what they want, bytes cut anywhere and pauses in between:
    an answer is its request's own, or the relay's page, or the connection ends."""
    lab = Lab()
    visitor = lab.connect()
    services = Services(lab, steps)
    data = b"".join(step.request() for step in steps)
    at = 0
    while at < len(data):
        size = draw.draw(st.sampled_from([1, 10, 100, 1000]))
        if visitor.connected:
            visitor.receive(data[at : at + size])
        at += size
        if draw.draw(st.booleans()):
            lab.settle(visitor)
            services.go_on(late=draw.draw(st.booleans()))
    for _ in range(20):
        lab.settle(visitor)
        services.go_on(late=True)
    found = read_answers(bytes(visitor.sent), steps)
    for step, (status, body) in zip(steps, found, strict=False):
        assert b"deceit" not in body
        if status == 200:
            assert body == (b"" if step.method == "HEAD" else step.path.encode())
        else:
            assert status in (204, 502)
            if status == 502:
                assert step.style not in BENIGN
    if len(found) < len(steps):
        # Answers are missing only where the connection has ended, and for a reason.
        assert visitor.write_closed or not visitor.connected
        so_far = steps[: len(found) + 1]
        assert any(step.style not in BENIGN or step.closes for step in so_far)
    visitor.peer_reset()
    lab.settle()
    for channel in [*lab.service.channels, *lab.other.channels]:
        if channel.connected:
            channel.peer_half_close()
    lab.assert_nothing_left()
