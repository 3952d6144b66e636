"""The relay owner's pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srrrs.relay.edge.errorpages import MAX_PAGE, OwnPages


def body(pages: OwnPages, status: int) -> bytes:
    return pages.page(status, "Title", "Text").body


def test_the_nearest_page_is_shown(tmp_path: Path) -> None:
    """Of that status, else of its kind, else the relay's own; whatever else lies there is not
    read."""
    (tmp_path / "404.html").write_bytes(b"mine: 404")
    (tmp_path / "4xx.html").write_bytes(b"mine: 4xx")
    (tmp_path / "index.html").write_bytes(b"x" * (MAX_PAGE + 1))
    pages = OwnPages(tmp_path)
    assert body(pages, 404) == b"mine: 404"
    assert body(pages, 429) == b"mine: 4xx"
    assert b"Title" in body(pages, 502)


def test_a_page_comes_with_its_fields(tmp_path: Path) -> None:
    """Those that the status asks for, and such that let it run nothing."""
    (tmp_path / "401.html").write_bytes(b"<p>Who?</p>")
    answer = OwnPages(tmp_path).page(401, "T", "t", ("WWW-Authenticate", "Basic"))
    fields = dict(answer.fields)
    assert fields[b"www-authenticate"] == b"Basic"
    assert fields[b"content-security-policy"].startswith(b"default-src 'none'")
    assert b"script" not in fields[b"content-security-policy"]


def test_they_are_read_again(tmp_path: Path, flush_logged_errors: Callable[..., Any]) -> None:
    """What cannot be read then leaves all as it was."""
    page = tmp_path / "502.html"
    page.write_bytes(b"one")
    pages = OwnPages(tmp_path)
    page.write_bytes(b"two")
    assert body(pages, 502) == b"one"
    pages.reload()
    assert body(pages, 502) == b"two"
    page.write_bytes(b"x" * (MAX_PAGE + 1))
    pages.reload()
    assert body(pages, 502) == b"two"
    page.unlink()
    pages.reload()
    assert b"Title" in body(pages, 502)


def test_a_page_that_is_too_long_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "5xx.html").write_bytes(b"x" * (MAX_PAGE + 1))
    with pytest.raises(ValueError, match=r"5xx\.html is longer than"):
        OwnPages(tmp_path)
