"""What becomes of each message of the corpus, however it is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srrrs.http.errors import BadRequest, BadResponse
from srrrs.http.head import End, HeadLimits, RequestHead, ResponseHead
from srrrs.http.request import RequestReader
from srrrs.http.response import ResponseReader
from tests.http.corpus import REQUESTS, RESPONSES, Case, Refused, Taken, Unfinished, Verdict


def requests(pieces: Iterable[bytes]) -> Verdict:
    """What a reader makes of them."""
    reader = RequestReader(HeadLimits())
    messages: list[tuple[str, bytes]] = []
    line, body = "", b""
    try:
        for piece in pieces:
            reader.feed(piece)
            while (item := reader.next()) is not None:
                if isinstance(item, RequestHead):
                    line = f"{item.method.decode()} {item.target.decode()} {item.host}"
                elif isinstance(item, End):
                    messages.append((line, body))
                    line, body = "", b""
                    reader.next_message()
                else:
                    assert item
                    body += item
    except BadRequest as bad:
        with pytest.raises(BadRequest):
            reader.next()
        return Refused(bad.status, len(messages))
    try:
        reader.eof()
    except BadRequest:
        return Unfinished(len(messages))
    assert not reader.begun
    return Taken(tuple(messages))


def responses(case: Case, pieces: Iterable[bytes]) -> Verdict:
    """What a reader makes of them as answers to the case's requests."""
    reader = ResponseReader(HeadLimits())
    messages: list[tuple[str, bytes]] = []
    finals = 0
    upgrade = case.upgrade
    line, body = "", b""
    to = iter(case.to)

    def drain() -> Iterator[ResponseHead | bytes | End]:
        while (item := reader.next()) is not None:
            yield item

    def begin() -> None:
        nonlocal upgrade
        method = next(to, None)
        if method is not None:
            reader.expect(method, upgrade)
            upgrade = None

    def read() -> None:
        nonlocal line, body, finals
        for item in drain():
            if isinstance(item, ResponseHead):
                line = f"{item.status} {item.reason.decode('latin-1')}"
                if item.interim or item.status == 101:
                    messages.append((line, b""))
            elif isinstance(item, End):
                messages.append((line, body))
                line, body = "", b""
                finals += 1
                begin()
            else:
                assert item
                body += item

    begin()
    try:
        for piece in pieces:
            reader.feed(piece)
            read()
    except BadResponse:
        with pytest.raises(BadResponse):
            reader.next()
        return Refused(502, finals)
    if case.eof:
        try:
            reader.eof()
        except BadResponse:
            return Unfinished(finals)
        read()
    if messages and messages[-1][0].startswith("101"):
        messages[-1] = (messages[-1][0], reader.rest())
    return Taken(tuple(messages))


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_the_corpus_is_large_and_names_each_case_once() -> None:
    names = [case.name for case in REQUESTS + RESPONSES]
    assert len(names) == len(set(names)) >= 150
    bad = [each for each in REQUESTS + RESPONSES if not isinstance(each.verdict, Taken)]
    assert len(bad) >= 150
    assert all(case.source for case in REQUESTS + RESPONSES)


@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_a_request(case: Case) -> None:
    """Whole and byte by byte, it is taken or refused as it must be."""
    assert requests([case.data]) == case.verdict
    assert requests(bytewise(case.data)) == case.verdict


@pytest.mark.parametrize("case", RESPONSES, ids=str)
def test_a_response(case: Case) -> None:
    """Whole and byte by byte, it is taken or refused as it must be."""
    assert responses(case, [case.data, case.then]) == case.verdict
    assert responses(case, bytewise(case.data + case.then)) == case.verdict


def cut(data: bytes, draw: st.DataObject) -> list[bytes]:
    """Pieces of any sizes."""
    at = draw.draw(st.lists(st.integers(0, len(data)), max_size=6).map(sorted), label="cuts")
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


@settings(max_examples=400)
@given(st.sampled_from(REQUESTS), st.data())
def test_a_request_cut_anywhere(case: Case, draw: st.DataObject) -> None:
    """Where the pieces end makes no difference."""
    assert requests(cut(case.data, draw)) == case.verdict


@settings(max_examples=300)
@given(st.sampled_from(RESPONSES), st.data())
def test_a_response_cut_anywhere(case: Case, draw: st.DataObject) -> None:
    """Where the pieces end makes no difference."""
    pieces = cut(case.data, draw) + cut(case.then, draw)
    assert responses(case, pieces) == case.verdict
