"""Where the objects of one scene lie, by tries in plain Python, for loaders that make one scene at a time.

Keeps the limits of a :class:`kornia_cag.scenes.layout.Layout` as they are usually kept, by boxes: what a box covers of
another counts as covered, twice where two cover it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kornia_cag.bench.draws import Draw
from kornia_cag.core.checks import describe, fail
from kornia_cag.scenes.layout import Anywhere, Layout

Box = tuple[float, float, float, float]  # left, top, right, bottom
Spot = tuple[float, float]  # of an object's centre, canvas pixels


@dataclass
class _Lain:
    """An object that has found its place."""

    box: Box  # on the canvas
    area: float
    spare: float  # how much more of it may be covered, square pixels


def check_layout(layout: Layout | None) -> Layout:
    """Require a layout that these loaders know.

    Raises:
        InputError: for none, stacked objects, numbers of objects that vary, and places other than ``Anywhere()``.
    """
    if layout is None or layout.stacked or layout.count is not None or layout.place != Anywhere():
        fail("ranges.layout", "a Layout of all objects of a row, anywhere, none stacked", describe(layout))
    return layout


def spots(layout: Layout, size: int, boxes: Sequence[Box], draws: Sequence[Draw]) -> list[Spot | None]:
    """Where objects lie on a canvas of ``size`` pixels a side, from back to front; None where one finds no place.

    Args:
        layout: its limits.
        size: side of the canvas, pixels.
        boxes: around each object, pixels from its centre.
        draws: of each object.
    """
    there: list[_Lain] = []
    return [_spot(layout, size, box, draw, there) for box, draw in zip(boxes, draws, strict=True)]


def _spot(layout: Layout, size: int, box: Box, draw: Draw, there: list[_Lain]) -> Spot | None:
    """The first place that keeps all limits; the object is then ``there``."""
    left, top, right, bottom = box
    least, most = layout.inside * (right - left) * (bottom - top), layout.overlap
    for _ in range(layout.tries):
        x, y = draw("layout.x", (0.0, size)), draw("layout.y", (0.0, size))
        own = max(x + left, 0.0), max(y + top, 0.0), min(x + right, float(size)), min(y + bottom, float(size))
        area = max(own[2] - own[0], 0.0) * max(own[3] - own[1], 0.0)
        if area < least:
            continue
        covered = [_shared(own, other.box) for other in there]
        if all(part <= min(most * min(area, other.area), other.spare)
               for part, other in zip(covered, there, strict=True)):  # fmt: skip
            for part, other in zip(covered, there, strict=True):
                other.spare -= part
            there.append(_Lain(own, area, (1 - layout.visible) * area))
            return x, y
    return None


def _shared(one: Box, other: Box) -> float:
    """Area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
