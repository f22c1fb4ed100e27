"""Made-up objects, drawn: boards, discs, wheels, lamps, arrows, posts: what stands about and belongs to no class.

Each is a function of its number, the side and the seed: more of them extend fewer. A rim is grey or a shade of what it
surrounds: a coloured one around a light field is what many signs have, and a model may be trained to find those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor, ImageDraw

Colour = tuple[int, ...]
Point = tuple[float, float]
LONG = 0.98  # half the longest side of most


def furniture(number: int, side: int, seed: int) -> UInt8[np.ndarray, "s s 4"]:
    """Draw object ``number``: straight RGBA, ``side`` pixels wide, with hard edges: draw it larger than needed."""
    picture = Image.new("RGBA", (side, side))
    _KINDS[number % len(_KINDS)](_Pen(ImageDraw.Draw(picture), side / 2, np.random.default_rng((seed, number))))
    return np.array(picture)


@dataclass(frozen=True)
class _Pen:
    """Draws on a picture that goes from -1 to 1, y pointing down; half sides of what it draws are ``x`` and ``y``."""

    draw: ImageDraw.ImageDraw
    half: float  # of the picture's side, pixels
    rng: np.random.Generator

    def some(self, low: float, high: float, share: float = 1) -> float:
        """A number between two; outside a share of cases 0."""
        return float(self.rng.uniform(low, high) * (self.rng.random() < share))

    def count(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def colour(self, low: float = 0.08, high: float = 1) -> Colour:
        """Any colour, almost grey about every other time, whose value lies between two."""
        hue, saturation = self.some(0, 360), self.some(0, 15) + self.some(0, 85, 0.55)
        return ImageColor.getrgb(f"hsv({hue:.3f}, {saturation:.3f}%, {100 * self.some(low, high):.3f}%)")

    def unlike(self, colour: Colour) -> Colour:
        """A light colour on a dark one, and a dark one on a light one."""
        return self.colour(0.7, 1) if sum(colour) < 360 else self.colour(0.05, 0.4)

    def shape(self, kind: str, ends: list[Point], fill: Colour, rim: float = 0, **more: Any) -> None:
        """A polygon, a line, or an ellipse or rectangle between two ends; ``rim`` is how wide its rim is."""
        shade, grey = self.some(0.3, 0.8, 0.5), self.count(20, 235)
        edge = tuple(round(shade * channel) if shade else grey for channel in fill[:3])
        more |= {"outline": edge, "width": max(1, round(rim * self.half))} if rim else {}
        getattr(self.draw, kind)([((x + 1) * self.half, (y + 1) * self.half) for x, y in ends], fill=fill, **more)

    def disc(self, radius: float, fill: Colour, rim: float = 0, x: float = 0, y: float = 0) -> None:
        self.shape("ellipse", [(x - radius, y - radius), (x + radius, y + radius)], fill, rim)

    def board(self, x: float, y: float, fill: Colour, rim: float, corner: float) -> None:
        self.shape("rounded_rectangle", [(-x, -y), (x, y)], fill, rim, radius=corner * min(x, y) * self.half)

    def text(self, x: float, y: float, ink: Colour) -> None:
        """Rows of letters that are random strokes."""
        rows = self.count(1, 1 + min(5, round(2.5 * y / x)))
        high = min(1.3 * y / rows, 0.9 * x)
        for top in y / rows * np.arange(1, 2 * rows, 2) - y - high / 2:
            for left in np.arange(-x, x * self.some(0.2, 1) - 0.6 * high, 0.85 * high):
                strokes = self.rng.integers(0, 3, (4, 2)) * high / 2
                if rows == 1 or self.count(0, 6):  # else a space
                    ends, width = [(left + 0.6 * a, top + b) for a, b in strokes], round(0.17 * high * self.half)
                    self.shape("line", ends, ink, width=width, joint="curve")

    def bars(self, x: float, y: float, ink: Colour) -> None:
        """Stripes, upright or level, straight or slanted."""
        count, slant, upright = self.count(1, 6), self.count(0, 1), self.count(0, 1)
        along, across = (x, y) if upright else (y, x)
        step = 2 * along / (2 * count + 1)
        for left in -along + step * np.arange(1, 2 * count, 2):
            ends = [(left, -across), (left + step, -across)]
            ends += [(a + slant * step, across) for a, _ in reversed(ends)]
            self.shape("polygon", [end if upright else end[::-1] for end in ends], ink)

    def mark(self, x: float, y: float, under: Colour) -> None:
        """What a board shows: text, stripes or nothing."""
        if kind := self.count(0, 4):
            (self.text if kind < 3 else self.bars)(x, y, self.unlike(under))


def _board(pen: _Pen) -> None:
    x, y = sorted((LONG, LONG * 5 ** -pen.some(0, 1)), reverse=bool(pen.count(0, 2)))
    fill = pen.colour()
    pen.board(x, y, fill, pen.some(0.05, 0.25, 0.6) * min(x, y), pen.some(0.1, 0.6, 0.5))
    pen.mark(0.75 * x, 0.7 * y, fill)


def _disc(pen: _Pen) -> None:
    """A disc, or a ring."""
    fill = pen.colour()
    pen.disc(LONG, fill, pen.some(0.04, 0.2, 0.6))
    if pen.count(0, 2):
        pen.mark(0.58, 0.5, fill)
    else:
        pen.disc(pen.some(0.45, 0.85), (0, 0, 0, 0))


def _polygon(pen: _Pen) -> None:
    """With three to eight corners."""
    count, x, fill = pen.count(3, 8), LONG * pen.some(0.6, 1), pen.colour()
    angles = 2 * pi / count * (np.arange(count) + 0.5 * pen.count(0, 1)) + pi / 2
    pen.shape("polygon", [(x * cos(a), LONG * sin(a)) for a in angles], fill, pen.some(0.04, 0.15, 0.6))
    if count > 3:
        pen.mark(0.45 * x, 0.4, fill)


def _wheel(pen: _Pen) -> None:
    """A tyre with a lighter hub and spokes."""
    hub, spokes, dark, light = pen.some(0.5, 0.75), pen.count(3, 10), pen.colour(0.05, 0.25), pen.colour(0.4, 0.9)
    for radius, fill in (LONG, dark), (hub, light), (0.85 * hub, dark):
        pen.disc(radius, fill, 0.05)
    for angle in pen.some(0, 6) + 2 * pi / spokes * np.arange(spokes):
        ends = [(0, 0), (0.88 * hub * cos(angle), 0.88 * hub * sin(angle))]
        pen.shape("line", ends, light, width=round(hub / spokes * pen.half))
    pen.disc(pen.some(0.15, 0.4) * hub, light, 0.03)


def _lamp(pen: _Pen) -> None:
    """A lamp with a soft rim, or one to three of them in a housing."""
    housed, upright = pen.count(0, 3), pen.count(0, 1)
    count = max(housed, 1)
    if housed:
        x, y = sorted((LONG, LONG / count), reverse=not upright)
        pen.board(x, y, pen.colour(0.05, 0.4), pen.some(0.03, 0.1, 0.5), pen.some(0, 1, 0.7))
    for middle in LONG * (np.arange(1, 2 * count, 2) / count - 1):
        bright, hot = pen.colour(0.4, 1), pen.some(0.2, 1, 0.7)
        for step in np.linspace(1, 0, 20):  # from its rim inwards
            tone = [round(channel + (255 - channel) * hot * (1 - step) ** 2) for channel in bright]
            alpha = 255 if housed else round(255 * min(1, 2.5 * (1 - step)))
            pen.disc((0.25 + 0.6 * step) / count, (*tone, alpha), 0, *((0, middle) if upright else (middle, 0)))


def _arrow(pen: _Pen) -> None:
    """An arrow or a chevron, in one of eight directions."""
    shaft, neck, turn = pen.some(0.15, 0.5), pen.some(-0.4, 0.3), pi / 4 * pen.count(0, 7)
    ends = [(0.97, 0.0), (neck, -0.8), (neck, -shaft), (-0.9, -shaft), (-0.9, shaft), (neck, shaft), (neck, 0.8)]
    if not pen.count(0, 3):
        ends = [(0.65, 0.0), (0.0, -0.7), (-0.65, -0.7), (0.0, 0.0), (-0.65, 0.7), (0.0, 0.7)]
    turned = [(x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn)) for x, y in ends]
    pen.shape("polygon", turned, pen.colour(), pen.some(0.04, 0.1, 0.5))


def _post(pen: _Pen) -> None:
    """A post or a cone with stripes."""
    x, tip, fill = pen.some(0.15, 0.4), pen.some(0.3, 1), pen.colour()
    ends = [(-x * tip, -LONG), (x * tip, -LONG), (x, LONG), (-x, LONG)]
    pen.shape("polygon", ends, fill, pen.some(0.02, 0.05, 0.5))
    pen.bars(x * tip, 0.9, pen.unlike(fill))


_KINDS: tuple[Callable[[_Pen], None], ...] = _board, _disc, _polygon, _wheel, _board, _lamp, _arrow, _post
