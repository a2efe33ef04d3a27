"""Requests for the same processor time beside an application without sessions, as an SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from figures import Interval, Results, cpu, ratio
from report import bare_of
from variants import ALL_VARIANTS, EMPTY

_WIDTH = 760
_LEFT, _RIGHT = 250, 620  # 0 % and 100 %
_BAR = 14
_GAP = 8
# The bars of asyncio, and those of uvloop, which are paler.
_OURS = "#1d4ed8", "#93b4f5"
_THEIRS = "#6b7280", "#c3c8d0"
_GROUPS = [
    ("Not using a session", ("empty-middleware", "unused", "excluded")),
    ("Reading it", ("-read",)),
    ("Writing it", ("-write",)),
]

Shares = Mapping[str, Mapping[str, Interval]]
"""By loop and by variant."""


def svg(results: Results, *, with_peers: bool) -> str:
    """Return bars for each variant at 32 connections, one for each loop, with their intervals.

    They are shares of an application with an empty middleware; *with_peers*, of the bare handler of
    the same framework. Processor time is what neighbours on the machine disturb the least.
    """
    measured = [setting.connections for setting in results]
    connections = 32 if 32 in measured else measured[0]
    shares: dict[str, dict[str, Interval]] = {}
    is_beside_empty = not with_peers and all(EMPTY in each for each in results.values())
    for setting, variants in results.items():
        if setting.connections == connections:
            bases = {name: EMPTY if is_beside_empty else bare_of(name) for name in variants}
            shares[setting.loop] = {
                name: ratio(variants[base], variants[name], cpu)
                for name, base in bases.items()
                if base in variants and base != name
            }
    first = next(iter(shares.values()))
    bars: list[str] = []
    y = 82
    for title, endings in _GROUPS:
        names = [name for name in ALL_VARIANTS if name in first and name.endswith(endings)]
        if not names:
            continue
        bars.append(f'<text x="16" y="{y + 11}" font-weight="bold">{title}</text>')
        y += 22
        for name in sorted(names, key=lambda each: -first[each].middle):
            bars += _bars(y, name, shares)
            y += _BAR * len(shares) + _GAP
        y += 10
    base = "an empty middleware's" if is_beside_empty else "the bare handler's"
    title = f"Requests for the same processor time, share of {base}"
    height = y + 20
    # On a card of its own it can be read on a dark page too.
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
            f'width="{_WIDTH}" height="{height}" role="img"',
            "font-family=\"system-ui, 'DejaVu Sans', sans-serif\"",
            'font-size="12" fill="#111827">',
            f"<title>{escape(title)}</title>",
            f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"',
            'fill="#ffffff" stroke="#d1d5db"/>',
            f'<text x="16" y="28" font-size="15" font-weight="bold">{escape(title)}</text>',
            *_legend(shares),
            *_scale(y),
            *bars,
            "</svg>\n",
        ]
    )


def _x(share: float) -> float:
    # Noise may show more than all.
    return round(_LEFT + min(share, 1.05) * (_RIGHT - _LEFT), 1)


def _legend(shares: Shares) -> list[str]:
    """Return what the colours and lines mean."""
    parts: list[str] = []
    x = 16
    for name, colours in (("aiosess", _OURS), ("others", _THEIRS)):
        for column, loop in enumerate(shares):
            parts.append(
                f'<rect x="{x}" y="46" width="12" height="12" fill="{colours[min(column, 1)]}"/>'
                f'<text x="{x + 18}" y="56">{name}, {loop}</text>'
            )
            x += 128
    parts += [*_interval(x, x + 16, 52), f'<text x="{x + 22}" y="56">95 of 100 cases</text>']
    return parts


def _scale(bottom: int) -> list[str]:
    return [
        f'<line x1="{_x(share)}" x2="{_x(share)}" y1="76" y2="{bottom - 10}" stroke="#e5e7eb"/>'
        f'<text x="{_x(share)}" y="{bottom + 6}" text-anchor="middle" fill="#4b5563">'
        f"{share:.0%}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]


def _bars(y: int, name: str, shares: Shares) -> list[str]:
    """Return one bar for each loop, the label before them and the figures behind."""
    label = ALL_VARIANTS[name].label
    colours = _OURS if label.startswith("aiosess") else _THEIRS
    text = label.replace(", read", "").replace(", write", "")
    middle = y + _BAR * len(shares) / 2 + 4
    parts = [f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(text)}</text>']
    for number, (loop, by_name) in enumerate(shares.items()):
        if name not in by_name:
            continue
        share, top = by_name[name], y + number * _BAR
        parts.append(
            f'<rect x="{_LEFT}" y="{top}" width="{_x(share.middle) - _LEFT:.1f}" '
            f'height="{_BAR - 1}" fill="{colours[min(number, 1)]}"/>'
        )
        parts += _interval(_x(share.low), _x(share.high), top + _BAR / 2 - 0.5)
        parts.append(
            f'<text x="{_RIGHT + 30}" y="{top + 10.5}" font-size="11">'
            f"{share.middle:.2f} {loop}</text>"
        )
    return parts


def _interval(low: float, high: float, y: float) -> list[str]:
    """Return a line with two ends; the white edge keeps it apart from the bar."""
    path = f"M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 3}V{y + 3}M{high:.1f} {y - 3}V{y + 3}"
    return [
        f'<path d="{path}" stroke="#ffffff" stroke-width="3.5" fill="none"/>',
        f'<path d="{path}" stroke="#b45309" stroke-width="1.5" fill="none"/>',
    ]
