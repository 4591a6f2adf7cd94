"""Small plots in SVG: curves over turns, and bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 45
INK, FAINT = "#333", "#ddd"
COLOURS = {
    "none": "#999999",
    "floor": "#222222",
    "least-sqlite": "#5f6b73",
    "least-postgres": "#b0a990",
    "lg-memory": "#e8a87c",
    "lg-sqlite": "#d1495b",
    "lg-postgres": "#8d5a97",
    "petal-memory": "#9bc53d",
    "petal-sqlite": "#2e7d32",
    "petal-postgres": "#1f77b4",
}

Points = Sequence[tuple[float, float]]


def curves(title: str, across: str, lines: Mapping[str, tuple[str, Points]]) -> str:
    """Curves by candidate, each with its title and points; upwards the scale is logarithmic."""
    points = [point for _, line in lines.values() for point in line]
    far = max(x for x, _ in points)
    low, high = _decades([y for _, y in points])
    parts = _frame(title)

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / far
        up = (math.log10(max(y, 10**low)) - low) / (high - low)
        return right, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up

    for decade in range(low, high + 1):
        _, y = place(0, 10**decade)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{10.0**decade:g}", "end"))
    for share in range(6):
        x, _ = place(far * share / 5, 1)
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{far * share / 5:,.0f}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, "middle"))
    for number, (name, (label, line)) in enumerate(lines.items()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        y = TOP + 12 + 20 * number
        parts.append(
            f'<line x1="{WIDTH - RIGHT + 12}" x2="{WIDTH - RIGHT + 34}" y1="{y - 4}" y2="{y - 4}" '
            f'stroke="{COLOURS[name]}" stroke-width="3"/>'
        )
        parts.append(_text(WIDTH - RIGHT + 40, y, label))
    return "\n".join([*parts, "</svg>", ""])


def bars(title: str, values: Mapping[str, tuple[str, float, str]]) -> str:
    """A bar a candidate: its title, its value, and how that is written."""
    height = TOP + 30 * len(values) + 20
    most = max((value for _, value, _ in values.values()), default=1) or 1
    parts = _frame(title, height)
    for number, (name, (label, value, written)) in enumerate(values.items()):
        y = TOP + 30 * number
        length = max(1.0, (WIDTH - 170 - 110) * max(value, 0) / most)
        parts.append(_text(160, y + 16, label, "end"))
        parts.append(f'<rect x="170" y="{y + 2}" width="{length:.1f}" height="20" fill="{COLOURS[name]}"/>')
        parts.append(_text(176 + length, y + 16, written))
    return "\n".join([*parts, "</svg>", ""])


def _frame(title: str, height: int = HEIGHT) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(value for value in values if value > 0)))
    return low, max(low + 1, math.ceil(math.log10(max(values))))
