"""The page that ``srrrs-tunnel demo`` publishes."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, Final

from twisted.web.resource import Resource
from twisted.web.server import Request, Site

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>It came through the tunnel</title>
<style>
  :root {{ color-scheme: light dark; --line: #8884; --accent: #0a7d6e; }}
  @media (prefers-color-scheme: dark) {{ :root {{ --accent: #4fd1bd; }} }}
  body {{ font: 17px/1.6 system-ui, sans-serif; max-width: 42rem; margin: 12vh auto;
         padding: 0 1.5rem; }}
  h1 {{ font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }}
  h1::first-letter {{ color: var(--accent); }}
  ol.way {{ list-style: none; display: flex; flex-wrap: wrap; gap: .6rem; padding: 0;
           margin: 2rem 0; }}
  ol.way li {{ border: 1px solid var(--line); border-radius: .6rem; padding: .45rem .8rem; }}
  ol.way li:not(:last-child)::after {{ content: "→"; color: var(--accent);
           margin: 0 -1.45rem 0 .95rem; }}
  ol.way li:not(:last-child) {{ margin-right: .9rem; }}
  dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.2rem;
       border-top: 1px solid var(--line); padding-top: 1.2rem; }}
  dt {{ opacity: .7; }}
  dd {{ margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; }}
  p small {{ opacity: .7; }}
</style>
<h1>It came through the tunnel.</h1>
<p>This page is served by a program that listens nowhere. A relay took your request, and an agent
that dialled the relay answered it.</p>
<ol class="way"><li>you</li><li>relay</li><li>one WebSocket</li><li>agent</li>
<li>this page</li></ol>
<dl>
{facts}
</dl>
<p><small>Publish a web server of yours instead:
<code>srrrs-tunnel demo --local-http 3000</code></small></p>
</html>
"""


class Page(Resource):
    """Shows who asks, and by which way.

    :param round_trip: gives the tunnel's round trip in seconds, or None while it is not known.
    """

    isLeaf = True

    def __init__(self, round_trip: Callable[[], float | None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._round_trip = round_trip
        self._served = 0

    def render_GET(self, request: Request) -> bytes:
        """The page; what the visitor sent is escaped."""
        self._served += 1
        peer = request.getClientAddress()
        facts = {
            "your address": f"{getattr(peer, 'host', peer)} port {getattr(peer, 'port', '?')}",
            "you asked for": (request.getHeader("host") or "") + _text(request.uri),
            "requests so far": str(self._served),
        }
        round_trip = self._round_trip()
        if round_trip is not None:
            facts["tunnel's round trip"] = f"{round_trip * 1000:.2f} ms"
        request.setHeader("content-type", "text/html; charset=utf-8")
        request.setHeader("cache-control", "no-store")
        request.setHeader(
            "content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"
        )
        rows = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()]
        return _PAGE.format(facts="\n".join(rows)).encode()


def site(reactor: Any, round_trip: Callable[[], float | None]) -> Site:
    """A web site that holds the page alone, at every path."""
    result = Site(Page(round_trip), reactor=reactor)
    result.displayTracebacks = False
    return result


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace")
