"""Frames: what is encoded is decoded, cut anywhere; what is wrong raises the one error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.protocol import frames
from srrrs.protocol.errors import ProtocolError, ResetCode
from srrrs.protocol.frames import (
    AGENT_RECEIVES,
    MAX_CONTROL,
    MAX_ID,
    MAX_POLICY,
    RELAY_RECEIVES,
    FrameDecoder,
    FrameType,
    Goaway,
    Refused,
    Register,
    Registered,
    Withdraw,
    Withdrawn,
)


class Recorder:
    """A frame handler that writes down what it is called with, DATA joined."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def data_received(self, stream_id: int, data: bytes) -> None:
        assert data
        last = self.calls[-1] if self.calls else None
        if isinstance(last, tuple) and last[:2] == ("data", stream_id):
            self.calls[-1] = ("data", stream_id, self.calls[-1][2] + data)
        else:
            self.calls.append(("data", stream_id, data))

    def open_received(self, stream_id: int, service_id: int, window: int, visitor: str) -> None:
        self.calls.append(("open", stream_id, service_id, window, visitor))

    def fin_received(self, stream_id: int) -> None:
        self.calls.append(("fin", stream_id))

    def reset_received(self, stream_id: int, code: int, reason: str) -> None:
        self.calls.append(("reset", stream_id, code, reason))

    def window_received(self, stream_id: int, credit: int) -> None:
        self.calls.append(("window", stream_id, credit))

    def control_received(self, frame: object) -> None:
        self.calls.append(frame)


ids = st.integers(1, MAX_ID)
names = st.from_regex(frames.SERVICE_NAME, fullmatch=True)
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=frames.MAX_TEXT
)
shared = st.one_of(
    st.tuples(st.just("data"), ids, st.binary(min_size=1, max_size=300)),
    st.tuples(st.just("fin"), ids),
    st.tuples(st.just("reset"), ids, st.sampled_from(ResetCode), texts.map(lambda t: t[:200])),
    st.tuples(st.just("window"), ids, st.integers(0, 2**32 - 1)),
    st.builds(Goaway, texts, st.none() | texts),
)
labels = names.filter(lambda name: "/" not in name)
policies = st.dictionaries(texts.map(lambda t: t[:20]), texts.map(lambda t: t[:20]), max_size=3)
to_relay = shared | st.builds(
    Register,
    ids,
    names,
    st.sampled_from(sorted(frames.KINDS)),
    st.none() | labels,
    policy=st.none() | policies,
)
to_relay |= st.builds(
    Register,
    ids,
    names,
    st.just("http"),
    st.none(),
    st.none() | st.from_regex(frames.SERVICE_HOST, fullmatch=True),
    st.none() | st.from_regex(frames.SERVICE_PATH, fullmatch=True),
    st.booleans(),
)
to_relay |= st.builds(Withdraw, ids)
to_agent = (
    shared
    | st.tuples(st.just("open"), ids, ids, st.integers(0, 2**32 - 1), texts)
    | st.builds(Registered, ids, texts)
    | st.builds(Refused, ids, texts, texts, st.none() | st.floats(0, 1000))
    | st.builds(Withdrawn, ids, texts)
)


def encode(call: Any) -> bytes:
    if not isinstance(call, tuple):
        return frames.encode_control(call)
    encoders: dict[str, Any] = {
        "data": frames.encode_data,
        "open": frames.encode_open,
        "fin": frames.encode_fin,
        "reset": frames.encode_reset,
        "window": frames.encode_window,
    }
    encoded: bytes = encoders[call[0]](*call[1:])
    return encoded


def join_data(calls: list[Any]) -> list[Any]:
    recorder = Recorder()
    for call in calls:
        if isinstance(call, tuple) and call[0] == "data":
            recorder.data_received(*call[1:])
        else:
            recorder.calls.append(call)
    return recorder.calls


@pytest.mark.parametrize(
    ("receives", "kinds"), [(RELAY_RECEIVES, to_relay), (AGENT_RECEIVES, to_agent)]
)
def test_what_is_encoded_is_decoded_however_it_is_cut(
    receives: frozenset[FrameType], kinds: st.SearchStrategy[Any]
) -> None:
    """Any frames an end may be sent, cut into pieces of any size, come out the same."""

    @given(
        st.lists(kinds, max_size=8),
        st.lists(st.integers(1, 40), min_size=1, max_size=30),
        st.integers(0, 5),
        st.booleans(),
    )
    def check(calls: list[Any], cuts: list[int], margin: int, mutable: bool) -> None:
        data = b"".join(map(encode, calls))
        recorder = Recorder()
        decoder = FrameDecoder(recorder, receives)
        position = turn = 0
        while position < len(data):
            step = cuts[turn % len(cuts)]
            piece = bytes(margin) + data[position : position + step] + bytes(margin)
            source = bytearray(piece) if mutable else piece
            decoder.feed(source, margin, len(piece) - margin)
            if isinstance(source, bytearray):
                source[:] = b"?" * len(source)  # What was handed on is not looked at again here.
            position += step
            turn += 1
        assert recorder.calls == join_data(calls)

    check()


@given(st.lists(st.binary(max_size=64), max_size=10), st.booleans())
def test_noise_raises_nothing_but_the_protocol_error(pieces: list[bytes], relay: bool) -> None:
    """A decoder fed with anything either takes it or raises ProtocolError."""
    decoder = FrameDecoder(Recorder(), RELAY_RECEIVES if relay else AGENT_RECEIVES)
    with contextlib.suppress(ProtocolError):
        for piece in pieces:
            decoder.feed(piece)


@given(
    st.sampled_from(sorted(FrameType)),
    st.integers(0, 2**32 - 1),
    st.one_of(
        st.binary(max_size=64),
        st.dictionaries(
            st.sampled_from(
                [
                    *("name", "kind", "asked", "endpoint", "code", "message", "retry", "reason"),
                    *("hostname", "path", "share", "policy"),
                ]
            ),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=5)
            | st.just("tcp"),
        ).map(lambda members: json.dumps(members).encode()),
    ),
    st.booleans(),
)
def test_a_proper_head_with_any_payload_raises_nothing_else(
    kind: FrameType, identifier: int, payload: bytes, relay: bool
) -> None:
    """The same, with noise that gets as far as the payload's parser."""
    decoder = FrameDecoder(Recorder(), RELAY_RECEIVES if relay else AGENT_RECEIVES)
    with contextlib.suppress(ProtocolError):
        decoder.feed(frames.encode_header(kind, identifier, len(payload)) + payload)


@pytest.mark.parametrize("kind", [kind for kind in FrameType if kind is not FrameType.DATA])
def test_a_control_frame_that_is_too_long_is_refused_at_its_header(kind: FrameType) -> None:
    """Nothing of its payload needs to arrive, and none would be kept."""
    decoder = FrameDecoder(Recorder(), frozenset(FrameType))
    with pytest.raises(ProtocolError):
        decoder.feed(frames.encode_header(kind, 1, MAX_CONTROL + 1))


def test_a_data_frame_over_the_limit_is_refused_at_its_header() -> None:
    decoder = FrameDecoder(Recorder(), RELAY_RECEIVES, max_data=1000)
    decoder.feed(frames.encode_data(1, bytes(1000)))
    with pytest.raises(ProtocolError):
        decoder.feed(frames.encode_header(0, 1, 1001))


@pytest.mark.parametrize("kind", sorted(set(FrameType) - RELAY_RECEIVES))
def test_a_relay_is_not_sent_the_relays_own_frames(kind: FrameType) -> None:
    with pytest.raises(ProtocolError):
        FrameDecoder(Recorder(), RELAY_RECEIVES).feed(frames.encode_header(kind, 1, 0))


def test_unknown_optional_types_are_skipped_and_others_refused() -> None:
    """Types from 128 on may be added without a new version; lower ones may not."""
    recorder = Recorder()
    decoder = FrameDecoder(recorder, RELAY_RECEIVES)
    decoder.feed(frames.encode_header(200, 7, 5) + b"later" + frames.encode_fin(3))
    assert recorder.calls == [("fin", 3)]
    with pytest.raises(ProtocolError):
        decoder.feed(frames.encode_header(99, 7, 5))


def test_what_follows_a_second_nul_in_open_is_for_later_versions() -> None:
    """The label before it is for logs: it is cut, and never an error."""
    recorder = Recorder()
    decoder = FrameDecoder(recorder, AGENT_RECEIVES)
    decoder.feed(frames.encode_open(1, 2, 65536, "203.0.113.9 80\0id\0{more}"))
    decoder.feed(frames.encode_open(3, 2, 65536, "203.0.113.9 80\0" + "ä" * 100))
    assert recorder.calls[0] == ("open", 1, 2, 65536, "203.0.113.9 80\0id")
    assert recorder.calls[1][4] == "203.0.113.9 80\0" + "\ufffd" * frames.MAX_LABEL


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"name": "a/"}, "service name"),
        ({"name": "a/../b"}, "service name"),
        ({"name": "a/" + "x" * 128}, "service name"),
        ({"hostname": "localhost"}, "hostname"),
        ({"hostname": "1.2.3.4"}, "hostname"),
        ({"hostname": "App.example.com"}, "hostname"),
        ({"hostname": "*.example.com"}, "hostname"),
        ({"hostname": "a.b" + ".c" * 126}, "hostname"),
        ({"hostname": "app.example.com", "kind": "tcp"}, "hostname"),
        ({"path": "/"}, "path"),
        ({"path": "api"}, "path"),
        ({"path": "/api/"}, "path"),
        ({"path": "/a//b"}, "path"),
        ({"path": "/a/../b"}, "path"),
        ({"path": "/a%2fb"}, "path"),
        ({"path": "/a;b"}, "path"),
        ({"path": "/" + "x" * 128}, "path"),
        ({"path": "/api", "kind": "tls"}, "path"),
        ({"share": 1}, "shared"),
        ({"share": True, "kind": "ssh"}, "shared"),
        ({"policy": []}, "policy"),
        ({"policy": {"x": "y" * MAX_POLICY}}, "policy"),
    ],
)
def test_what_cannot_be_registered(members: dict[str, Any], problem: str) -> None:
    """No agent can bring the relay a host or path that it would read otherwise elsewhere."""
    payload = json.dumps({"name": "a", "kind": "http", **members}).encode()
    with pytest.raises(ProtocolError, match=problem):
        frames.decode_control(FrameType.REGISTER, 1, payload)


def test_members_that_are_null_are_missing() -> None:
    payload = b'{"name":"a","kind":"tls","hostname":null,"path":null,"share":null,"policy":null}'
    assert frames.decode_control(FrameType.REGISTER, 1, payload) == Register(1, "a", "tls")
