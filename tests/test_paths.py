"""Which service of a host a path leads to."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.http.errors import BadRequest
from srrrs.relay.paths import readings
from srrrs.relay.published import AwayService
from srrrs.relay.routes import HostRoutes


def routes(*paths: str, root: bool = True) -> Any:
    """Those of a host, whose services are named after their paths."""
    made = HostRoutes()
    for path in (*paths, *([""] if root else [])):
        made.set(path, name(path or "/"))
    return made


def name(text: str) -> Any:
    """What stands for a service."""
    return text


@pytest.mark.parametrize(
    ("target", "service"),
    [
        ("/", "/"),
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/api/x", "/api"),
        ("/api?x=/api/v1", "/api"),
        ("/api/v1", "/api/v1"),
        ("/api/v1/users", "/api/v1"),
        ("/api/v12", "/api"),
        ("/apis", "/"),
        ("/ap", "/"),
        ("/API", "/"),
        ("/x/api", "/"),
        ("*", "/"),
        # Sent with an escape that need not be one, it is the same path (RFC 3986, 6.2.2.2).
        ("/%61pi/x", "/api"),
        ("/~me", "/~me"),
        ("/%7Eme", "/~me"),
        # Dots and the like within one service are nobody else's business.
        ("/api/a/../b", "/api"),
        ("/.well-known/acme-challenge/x", "/"),
        ("/x;y=1/z", "/"),
        ("/a//b", "/"),
        ("/api/v1//", "/api/v1"),
        ("/api/%2e", "/api"),
        ("/%FF%00", "/"),
        ("/" + "y" * 5000 + "/api", "/"),
        ("/api/" + "y" * 5000, "/api"),
        ("/api/v1" + "y" * 5000, "/api"),
        ("/api/v1/" + "y/" * 2500, "/api/v1"),
    ],
)
def test_the_longest_path_that_fits(target: str, service: str) -> None:
    assert routes("/api", "/api/v1", "/~me").find(target.encode(), 0) == service


@pytest.mark.parametrize(
    "target",
    [
        "/api/../x",
        "/x/../api",
        "/x/%2e%2e/api",
        "/x/..%2fapi",
        "/x%2f..%2fapi/",
        "/api/..;/x",
        "/x/..;a=b/api",
        "/api;v=2/x",
        "/x/..\\api",
        "/x\\..\\api",
        "//api",
        "/./api",
        "/%2e/api",
        "/%2561pi",
        "/x/%252e%252e/api",
        "/api/v1/../..",
        "/../api",
    ],
)
def test_a_path_that_leads_to_one_or_another_is_refused(target: str) -> None:
    """Who guards one of them may not be got past by an odd spelling."""
    with pytest.raises(BadRequest) as caught:
        routes("/api", "/api/v1").find(target.encode(), 0)
    assert caught.value.status == 400


def test_without_a_service_for_the_rest_it_is_nobodys() -> None:
    made = routes("/api", root=False)
    assert made.find(b"/x", 0) is None
    assert made.find(b"*", 0) is None
    assert made.find(b"/api", 0) == "/api"
    assert made.root is None


def test_one_service_for_all_is_found_without_a_look_at_the_path() -> None:
    made = routes()
    assert made.root == "/"
    made.set("/api", name("/api"))
    assert made.root is None
    made.remove("/api", name("other"), AwayService("x", None))
    assert made.find(b"/api", 0) == "/api"


def test_a_path_whose_agent_went_away_is_not_the_roots_for_a_while() -> None:
    made, away = routes("/api"), AwayService("api", "h", until=100.0)
    made.remove("/api", name("/api"), away)
    assert made.root is None
    assert made.find(b"/api/x", 99.9) is away
    assert made.find(b"/x", 0) == "/"
    assert made.find(b"/api/x", 100.0) == "/"
    assert made.root == "/"


def test_it_is_the_services_own_again_when_it_comes_back() -> None:
    made = routes("/api")
    made.remove("/api", name("/api"), AwayService("api", "h", until=100.0))
    made.set("/api", name("again"))
    assert made.find(b"/api", 0) == "again"


_pieces = st.lists(
    st.sampled_from(
        ["/", "a", "b", "..", ".", "%2e", "%2f", ";", "\\", "%5c", "%61", "?", "%25", "%2561"]
    ),
    max_size=10,
)


@given(_pieces)
def test_nothing_gets_to_a_service_by_one_reading_and_to_another_by_the_next(
    pieces: list[str],
) -> None:
    """Whatever a backend does of: decoding, resolving dots, ending segments at a semicolon, it
    stays within the path of the service that the request was given to."""
    target = ("/" + "".join(pieces)).encode()
    made = routes("/a", "/a/b")
    try:
        service: Any = made.find(target, 0)
    except BadRequest:
        return
    path = target.partition(b"?")[0]
    for reading in (unquote_to_bytes(path), *readings(target)):
        assert made._match(reading, 0) == service


@given(st.binary(max_size=60))
def test_any_bytes_are_read(target: bytes) -> None:
    """None of them raises anything else."""
    with suppress(BadRequest):
        assert routes("/a").find(b"/" + target, 0) in ("/", "/a")
