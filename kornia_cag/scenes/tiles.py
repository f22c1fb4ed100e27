"""``Tiles``: the squares of the canvases that objects may change, so that nothing is computed beside them.

An object is drawn in as many tiles as it takes to cover it; those of a whole batch are as many small canvases, of one
size, to whatever computes them. Where they lie is found on the host, so this is for a CPU: on a GPU the host would
wait for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from kornia_cag.core.compiling import kept
from kornia_cag.scenes.pose import HORIZON

SIDE = 32  # pixels
FAR = 1e6  # pixels, beyond any canvas
SPARE = 0.1  # pixels around an object: more than its place may be wrong by, in float32

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Tiles:
    """Squares of the canvases of ``b`` samples, ``n`` of them; several may lie over each other.

    Attributes:
        objects: (n,); the object that each shows a part of.
        samples: (n,); whose canvas it is a part of.
        x: (n,); its first column.
        y: (n,); its first row.
    """

    objects: Int[Tensor, " n"]
    samples: Int[Tensor, " n"]
    x: Int[Tensor, " n"]
    y: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, part: slice | Int[Tensor, " k"]) -> "Tiles":
        return Tiles(self.objects[part], self.samples[part], self.x[part], self.y[part])

    def moved(self, objects: int) -> "Tiles":
        """The same, where so many objects less come first."""
        return replace(self, objects=self.objects - objects)

    def padded(self, *taken: int) -> "Tiles":
        """With copies of the last one, if there are fewer than two, or as many as of something else.

        A compiler would take such a number for a constant, or for that of the other.
        """
        count = len(self)
        while count < 2 or count in taken:
            count += 1
        return self if count == len(self) else self[torch.arange(count).clamp(max=len(self) - 1)]

    def along(
        self, x: Float[Tensor, " w"], y: Float[Tensor, " h"]
    ) -> tuple[Float[Tensor, "n 1 v"], Float[Tensor, "n u 1"]]:
        """Numbers of each column and row of a canvas, at those of the tiles."""
        height, width = side((len(y), len(x)))
        columns = self.x[:, None] + torch.arange(width, device=x.device)
        rows = self.y[:, None] + torch.arange(height, device=y.device)
        return kept(x[columns])[:, None], kept(y[rows])[..., None]

    def alike(self, values: Int[Tensor, " n"]) -> Iterator[tuple[int, Int[Tensor, "m k"]]]:
        """The tiles of the objects of each value, a row for each object; shorter rows repeat their last tile."""
        given = np.asarray(values)
        _, first, counts = np.unique(np.asarray(self.objects), return_index=True, return_counts=True)
        for value in np.unique(given[first]):
            own = given[first] == value
            step = np.minimum(np.arange(counts[own].max()), counts[own, None] - 1)
            yield int(value), torch.from_numpy(first[own, None] + step)

    def read(self, canvas: Float[Tensor, "b c h w"]) -> Float[Tensor, "n c u v"]:
        """Copies of these parts of a canvas whose rows have no gaps."""
        size = side(canvas.shape[2:])
        found: Tensor = F.embedding(self._places(canvas, size), _rows(canvas, size[1]))
        return found

    def write(self, canvas: Float[Tensor, "b c h w"], parts: Float[Tensor, "n c u v"]) -> None:
        """Write parts of a canvas; where tiles lie over each other, they must agree."""
        size = side(canvas.shape[2:])
        _rows(canvas, size[1]).index_copy_(0, self._places(canvas, size).flatten(), parts.reshape(-1, size[1]))

    def _places(self, canvas: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Int[Tensor, "n c t"]:
        """Where each row of each tile begins, counted in numbers from the canvas's first."""
        whole, channel, row, _ = canvas.stride()
        start = self.samples * whole + self.y * row + self.x
        inner = torch.arange(canvas.shape[1])[:, None] * channel + torch.arange(size[0]) * row
        return start[:, None, None] + inner


def side(size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the tiles of a canvas ``(height, width)``."""
    return min(SIDE, size[0]), min(SIDE, size[1])


def worthwhile(usual: float, size: tuple[int, int]) -> bool:
    """Whether tiles of objects that are usually ``usual`` pixels long are less than half of a canvas."""
    return 2 * (usual + SIDE) ** 2 <= size[0] * size[1]


def highest(alpha: Float[Tensor, "n u v"], objects: Int[Tensor, " n"], m: int) -> Float[Tensor, " m"]:
    """The highest alpha of each of ``m`` objects; 0 for one without tiles."""
    found: Tensor = alpha.new_zeros(m).scatter_reduce_(0, objects, alpha.amax(dim=(1, 2)), "amax")
    return found


def sides(
    alpha: Float[Tensor, "n u v"], tiles: Tiles, rows: Int[Tensor, " n"], m: int, size: tuple[int, int]
) -> tuple[Float[Tensor, "m w"], Float[Tensor, "m h"]]:
    """The highest alpha of each column and of each row of ``m`` canvases, the ``rows`` of which have these tiles."""
    found = []
    for axis, start, length in ((1, tiles.x, size[1]), (2, tiles.y, size[0])):
        values = alpha.amax(dim=axis)
        place = (rows * length + start)[:, None] + torch.arange(values.shape[1])
        flat = alpha.new_zeros(m * length).scatter_reduce_(0, place.flatten(), values.flatten(), "amax")
        found.append(flat.view(m, length))
    return found[0], found[1]


def _rows(canvas: Tensor, width: int) -> Float[Tensor, "p w"]:
    """``width`` numbers from each place of a canvas on."""
    count = sum((n - 1) * step for n, step in zip(canvas.shape, canvas.stride(), strict=True)) + 1
    return canvas.as_strided((count - width + 1, width), (1, 1))


def covering(
    hulls: Float[Tensor, "m 8"], homography: Float[Tensor, "m 3 3"], grown: Float[Tensor, "m 2"],
    shown: Bool[Tensor, " m"] | None, size: tuple[int, int], b: int,
) -> tuple[Tiles, list[int]]:  # fmt: skip
    """The tiles of several objects of each of ``b`` samples, in the order of the objects.

    Args:
        hulls: around each object, see :func:`kornia_cag.banks.shapes.hulls`.
        homography: canvas to object; the first b are the lowest objects.
        grown: how much wider objects may be drawn along x and y, in object coordinates.
        shown: which are shown; None: all.
        size: canvas ``(height, width)``, pixels.
        b: samples.

    Returns:
        The tiles, and how many belong to each layer.
    """
    bounds = _bounds(*(np.asarray(given, np.float64) for given in (hulls, homography, grown)))
    low, high = np.ceil(bounds[:, :2] - 0.5 - SPARE), np.floor(bounds[:, 2:] + 0.5 + SPARE)
    end = np.array(size[::-1], np.int64)
    first, last = (np.clip(v, 0, end).astype(np.int64) for v in (low, high))
    here: NDArray[np.bool_] = np.logical_and.reduce(first < last, axis=1)
    if shown is not None:
        here = here & np.asarray(shown)
    step = np.array(side(size)[::-1], np.int64)
    counts = np.where(here[:, None], -(-(last - first) // step), 0)
    total = counts[:, 0] * counts[:, 1]
    objects = np.repeat(np.arange(len(total)), total)
    number = np.arange(len(objects)) - np.repeat(np.cumsum(total) - total, total)
    across = np.maximum(counts[objects, 0], 1)
    places = np.minimum(first[objects] + np.stack([number % across, number // across], axis=1) * step, end - step)
    arrays = objects, objects % b, places[:, 0], places[:, 1]
    tiles = Tiles(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
    return tiles, total.reshape(-1, b).sum(axis=1).tolist()


def _bounds(hulls: Numbers, homography: Numbers, grown: Numbers) -> Numbers:
    """(m, 4): around each object, xyxy, pixels; all of any canvas for one that reaches the horizon."""
    (x, y), (right, left, low, high, *slanted) = grown.T, hulls.T
    right, left, low, high = right + x, left + x, low + y, high + y
    down, up, over, under = (side + x + y for side in slanted)  # x + y, -x - y, x - y, y - x
    corners = ((right, down - right), (right, right - over), (-left, under - left), (-left, left - up),
               (down - low, low), (low - under, low), (over - high, -high), (high - up, -high))  # fmt: skip
    points = np.stack([np.stack(pair) for pair in zip(*corners, strict=True)], axis=0).transpose(2, 0, 1)
    first, second, third = homography.transpose(1, 0, 2)
    back = np.stack([np.cross(second, third), np.cross(third, first), np.cross(first, second)], axis=2)
    area = (first * back[:, :, 0]).sum(axis=1)
    with np.errstate(all="ignore"):
        mapped = back[:, :, :2] @ points + back[:, :, 2:]
        points, depth = mapped[:, :2] / mapped[:, 2:], mapped[:, 2] / area[:, None]
        seen = ((depth > HORIZON) & np.isfinite(points).all(axis=1)).all(axis=1)
    bounds = np.concatenate([points.min(axis=2), points.max(axis=2)], axis=1).clip(-FAR, FAR)
    return np.where(seen[:, None], bounds, (-FAR, -FAR, FAR, FAR))
