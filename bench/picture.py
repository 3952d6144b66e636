"""Draws a comparison: for each column a bar a peer, as a share of the best."""

from __future__ import annotations

from html import escape
from typing import Final

from bench.compare import COLUMNS, OURS, Column, Result, Table

SHOWN: Final = (
    ("up", "bulk, up"),
    ("down", "bulk, down"),
    ("up8", "8 streams, up"),
    ("down8", "8 streams, down"),
    ("rate32", "requests/s, 32 connections"),
    ("rate1", "requests/s, 1 connection"),
    ("connections", "new connections/s"),
    ("named32", "requests/s by host name"),
)
"""Columns of which more is better, and how the picture names them."""
COLOURS: Final = {
    OURS: "#e4572e",
    "frp": "#4c78a8",
    "rathole": "#72b7b2",
    "bore": "#54a24b",
    "chisel": "#b279a2",
    "wstunnel": "#eeca3b",
    "ssh -R": "#9d755d",
}
_OTHER: Final = "#999999"
_WIDTH, _LEFT, _BAR, _GAP, _ROW, _TOP = 860, 190, 11, 2, 14, 62
_SPAN: Final = 520


def draw(result: Result) -> str:
    """An SVG of its own colours and fonts, readable on light and dark pages."""
    parts: list[str] = []
    top = _TOP
    for table in result.tables:
        height = _table(parts, table, top)
        top += height + 40
    machine = result.machine
    note = (
        f"Medians of {machine['rounds']} interleaved rounds in one run, on loopback of one machine "
        f"with {machine['cores']} cores. Longer is better; 1 is the best of all."
    )
    body = "\n".join(parts)
    peers = list(dict.fromkeys(p for t in result.tables for p in _peers(t)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 4}" '
        f'font-family="system-ui, sans-serif" font-size="11">\n'
        f"<title>srrrs beside other tunnels</title>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#ffffff"/>\n'
        f"{_legend(peers)}\n{body}\n"
        f'<text x="20" y="{top - 14}" fill="#666666">{escape(note)}</text>\n</svg>\n'
    )


def _peers(table: Table) -> list[str]:
    return [each for each in table.samples if each not in table.limits]


def _legend(peers: list[str]) -> str:
    parts, x = [], 20
    for peer in peers:
        parts.append(
            f'<rect x="{x}" y="14" width="11" height="11" fill="{COLOURS.get(peer, _OTHER)}"/>'
            f'<text x="{x + 16}" y="24" fill="#222222">{escape(peer)}</text>'
        )
        x += 34 + 7 * len(peer)
    return "\n".join(parts)


def _table(parts: list[str], table: Table, top: int) -> int:
    """Draw a mode's bars from ``top`` on; how high they are."""
    parts.append(
        f'<text x="20" y="{top - 10}" font-size="14" font-weight="600" fill="#222222">'
        f"{escape(table.mode)}</text>"
    )
    y = top
    columns = {column.key: column for column in COLUMNS}
    for key, title in SHOWN:
        values = _values(table, columns[key])
        if not values:
            continue
        best = max(value for _, value in values)
        middle = y + len(values) * _ROW / 2 + 2
        parts.append(
            f'<text x="{_LEFT - 10}" y="{middle:.0f}" text-anchor="end" fill="#222222">'
            f"{escape(title)}</text>"
        )
        for peer, value in values:
            width = _SPAN * value / best
            weight = ' font-weight="600"' if peer == OURS else ""
            text = f"{columns[key].form.format(value)} · {value / best:.2f}"
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" '
                f'fill="{COLOURS.get(peer, _OTHER)}"/>'
                f'<text x="{_LEFT + width + 6:.1f}" y="{y + 10}" font-size="10" fill="#444444"'
                f"{weight}>{text}</text>"
            )
            y += _BAR + _GAP
        y += 10
    return y - top


def _values(table: Table, column: Column) -> list[tuple[str, float]]:
    found = [(peer, table.middle(peer, column.key)) for peer in _peers(table)]
    return [(peer, value) for peer, value in found if value]
