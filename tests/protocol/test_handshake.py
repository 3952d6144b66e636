"""The handshake's messages: round trips, and one error for all else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.protocol import handshake
from srrrs.protocol.errors import CloseCode, ProtocolError
from srrrs.protocol.handshake import Denied, Hello, Welcome

HELLO = Hello("0123456789abcdef" * 2, "a-machine.1", "srrrs/1", 15.0)


def test_messages_survive_the_wire() -> None:
    assert handshake.decode_hello(handshake.encode(HELLO)) == HELLO
    for answer in (
        Welcome("t", 15.0, "localhost", "srrrs/1", None, 70_000),
        Denied("limit", "too many", True),
    ):
        assert handshake.decode_answer(handshake.encode(answer)) == answer


def test_an_end_says_how_much_a_frame_may_carry() -> None:
    """At least what every end takes, and no more than a frame's header can say."""
    hello = replace(HELLO, frame=16 * 1024)
    assert handshake.decode_hello(handshake.encode(hello)) == hello
    for wrong in (16 * 1024 - 1, 1 << 24, 1e5, True, "65536"):
        members = json.loads(handshake.encode(HELLO)) | {"frame": wrong}
        with pytest.raises(ProtocolError):
            handshake.decode_hello(json.dumps(members).encode())


def test_unknown_members_are_ignored() -> None:
    """So that later versions can add to the messages."""
    members = json.loads(handshake.encode(HELLO)) | {"later": [1]}
    assert handshake.decode_hello(json.dumps(members).encode()) == HELLO


@pytest.mark.parametrize(
    "change",
    [
        {"run": "short"},
        {"run": None},
        {"instance": "a b"},
        {"instance": "x" * 65},
        {"heartbeat": 0},
        {"heartbeat": -1},
        {"heartbeat": True},
        {"heartbeat": "15"},
        {"agent": "a\nb"},
        {"type": "welcome"},
    ],
)
def test_a_hello_that_is_wrong_is_refused(change: dict[str, object]) -> None:
    members = json.loads(handshake.encode(HELLO)) | change
    with pytest.raises(ProtocolError):
        handshake.decode_hello(json.dumps(members).encode())


def test_another_version_is_told_apart() -> None:
    members = json.loads(handshake.encode(HELLO)) | {"version": 2}
    with pytest.raises(ProtocolError) as caught:
        handshake.decode_hello(json.dumps(members).encode())
    assert caught.value.code is CloseCode.VERSION


@given(st.binary(max_size=100))
def test_noise_raises_nothing_but_the_protocol_error(payload: bytes) -> None:
    for decode in (handshake.decode_hello, handshake.decode_answer):
        with pytest.raises(ProtocolError):
            decode(payload)
