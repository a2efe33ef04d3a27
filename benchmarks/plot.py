"""The shares of the bare handler's requests per second, as an SVG."""

from __future__ import annotations

from html import escape

from figures import Results, median
from variants import GOALS

_WIDTH = 760
_LEFT, _RIGHT = 250, 640  # 0 % and 100 %
_BAR = 12
_GAP = 7
# The bars of asyncio, and those of uvloop, which are paler.
_OURS = "#1d4ed8", "#93b4f5"
_THEIRS = "#6b7280", "#c3c8d0"
_GROUPS = [
    ("Not using a session", ("empty-middleware", "unused", "excluded")),
    ("Reading it", ("-read",)),
    ("Writing it", ("-write",)),
]

Shares = dict[str, dict[str, float]]
"""By loop and by variant."""


def svg(results: Results, labels: dict[str, str]) -> str:
    """Return bars for each variant at 32 connections, one for each loop, with the goals."""
    measured = [setting.connections for setting in results]
    connections = 32 if 32 in measured else measured[0]
    shares: Shares = {
        setting.loop: {
            name: median(rounds, lambda each: each.ratio) for name, rounds in variants.items()
        }
        for setting, variants in results.items()
        if setting.connections == connections
    }
    first = next(iter(shares.values()))
    bars: list[str] = []
    y = 92
    for title, endings in _GROUPS:
        names = [name for name in labels if name in first and name.endswith(endings)]
        if not names:
            continue
        bars.append(f'<text x="16" y="{y + 11}" font-weight="bold">{title}</text>')
        y += 22
        for name in sorted(names, key=lambda each: -first[each]):
            bars += _bars(y, name, labels[name], shares)
            y += _BAR * len(shares) + _GAP
        y += 10
    title = f"Requests per second, share of the bare handler's, {connections} connections"
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
    # Noise may show more than the bare handler's.
    return round(_LEFT + min(share, 1.05) * (_RIGHT - _LEFT), 1)


def _legend(shares: Shares) -> list[str]:
    """Return what the colours and marks mean, in two lines."""
    parts: list[str] = []
    for row, (name, colours) in enumerate((("aiosess", _OURS), ("others", _THEIRS))):
        for column, loop in enumerate(shares):
            x, y = 16 + 150 * column, 42 + 18 * row
            parts.append(
                f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colours[min(column, 1)]}"/>'
                f'<text x="{x + 18}" y="{y + 10}">{name}, {loop}</text>'
            )
    if "asyncio" in shares:
        for row, text in enumerate(("goal, on asyncio", "stretch goal")):
            x, y = 16 + 150 * len(shares) + 6, 42 + 18 * row
            parts.append(_mark(x, y, is_stretch=bool(row)))
            parts.append(f'<text x="{x + 12}" y="{y + 10}">{text}</text>')
    return parts


def _scale(bottom: int) -> list[str]:
    return [
        f'<line x1="{_x(share)}" x2="{_x(share)}" y1="88" y2="{bottom - 10}" stroke="#e5e7eb"/>'
        f'<text x="{_x(share)}" y="{bottom + 6}" text-anchor="middle" fill="#4b5563">'
        f"{share:.0%}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]


def _bars(y: int, name: str, label: str, shares: Shares) -> list[str]:
    """Return one bar for each loop, the label before them, the figures behind, and the goals."""
    colours = _OURS if label.startswith("aiosess") else _THEIRS
    text = label.removesuffix(", read").removesuffix(", write")
    middle = y + _BAR * len(shares) / 2 + 4
    parts = [f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(text)}</text>']
    for number, (loop, by_name) in enumerate(shares.items()):
        if name not in by_name:
            continue
        share, top = by_name[name], y + number * _BAR
        parts.append(
            f'<rect x="{_LEFT}" y="{top}" width="{_x(share) - _LEFT:.1f}" height="{_BAR - 1}" '
            f'fill="{colours[min(number, 1)]}"/>'
            f'<text x="{_RIGHT + 30}" y="{top + 9.5}" font-size="11">{share:.2f} {loop}</text>'
        )
    goal = next((each for each in GOALS if each.variant == name and each.figure == "ratio"), None)
    if goal is not None and "asyncio" in shares:
        marks = (goal.bound, False), (goal.stretch, True)
        parts += [
            _mark(_x(share), y - 1, is_stretch=is_stretch)
            for share, is_stretch in marks
            if share is not None
        ]
    return parts


def _mark(x: float, y: float, *, is_stretch: bool) -> str:
    """Return a line across the bar of asyncio; the white edge keeps it apart from the bar."""
    dashes = ' stroke-dasharray="3 2"' if is_stretch else ""
    place = f'x1="{x}" x2="{x}" y1="{y}" y2="{y + _BAR + 1}"'
    return (
        f'<line {place} stroke="#ffffff" stroke-width="4"/>'
        f'<line {place} stroke="#b45309" stroke-width="2"{dashes}/>'
    )
