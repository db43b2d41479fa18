"""A small scatter plot as SVG, drawn without a library.

svg = scatter([Dot(0.6, 12.5, "llama3.1", "a corgi")], ("cosine", "Vendi score"))
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 640
HEIGHT = 420
LEFT = 60
RIGHT = 20
TOP = 30
BOTTOM = 50
TICKS = 5
# Okabe and Ito's colours, told apart by colour-blind readers; further kinds are grey.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
GREY = "#777777"


@dataclass(frozen=True)
class Dot:
    """A point, the kind that gives its colour, and what the pointer shows."""

    x: float
    y: float
    kind: str
    title: str


def scatter(dots: Sequence[Dot], labels: tuple[str, str]) -> str:
    """The plot; labels: of the x and the y axis. Both axes begin at 0."""
    right = _round_up(max([dot.x for dot in dots], default=1.0))
    top = _round_up(max([dot.y for dot in dots], default=1.0))
    kinds = sorted({dot.kind for dot in dots})
    colours = dict(zip(kinds, COLOURS, strict=False))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for k in range(TICKS + 1):
        x = _x(k / TICKS)
        y = _y(k / TICKS)
        parts.append(f'<path d="M{x} {TOP}V{_y(0)}M{LEFT} {y}H{_x(1)}" stroke="#ddd"/>')
        parts.append(_text(x, _y(0) + 16, f"{right * k / TICKS:.3g}", "middle"))
        parts.append(_text(LEFT - 6, y + 4, f"{top * k / TICKS:.3g}", "end"))
    parts.append(_text(_x(0.5), HEIGHT - 12, labels[0], "middle"))
    parts.append(_text(LEFT - 46, TOP - 12, labels[1], "start"))
    for dot in dots:
        x = _x(max(0.0, dot.x) / right)
        y = _y(dot.y / top)
        colour = colours.get(dot.kind, GREY)
        title = html.escape(dot.title)
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}" fill-opacity="0.6">'
            f"<title>{title}</title></circle>"
        )
    for place, kind in enumerate(kinds[: len(COLOURS)]):
        y = TOP + 16 * place + 8
        parts.append(f'<circle cx="{_x(1) - 8}" cy="{y - 4}" r="4" fill="{colours[kind]}"/>')
        parts.append(_text(_x(1) - 18, y, kind, "end"))
    return "\n".join([*parts, "</svg>\n"])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 2.5, 5, 10) if step * unit >= value * 0.999)
