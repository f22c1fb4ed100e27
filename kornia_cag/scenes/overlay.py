"""``overlaid``: several objects of each sample drawn in tiles, one over the other, and what is seen of each."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.records import joined
from kornia_cag.scenes.choices import chosen
from kornia_cag.scenes.front import Painter
from kornia_cag.scenes.scene import Layer, Scene
from kornia_cag.scenes.targets import Targets, targets_in_tiles
from kornia_cag.scenes.tiles import SIDE, Tiles, highest
from kornia_cag.scenes.warp import SEEN, edge_of

PIXELS = 2**19  # of tiles that are drawn together, unless one layer has more

Inked = tuple[Float[Tensor, "n 3 u v"], Float[Tensor, "n u v"]]  # lit, premultiplied colour of tiles, and their alpha
Step = Callable[[Layer, Float[Tensor, " m"] | None, Tiles], Inked]
Room = tuple[Float[Tensor, "b places h w"], Float[Tensor, "b places h w"]]


def overlaid(
    painter: Painter, scene: Scene, canvas: Float[Tensor, "b 3 h w"], step: Step, labels: Int[Tensor, "b k"] | None,
    behind: Targets | None, used: Bool[Tensor, " b"], room: Room | None = None,
) -> Targets | None:  # fmt: skip
    """Draw a scene's objects over its canvas, in place.

    Colour and alpha do not depend on what lies behind: those of all objects are made at once, and then blended one
    after the other.

    Args:
        painter: what draws them.
        scene: one for which tiles are of use.
        canvas: what is there already; rows have no gaps.
        step: colour and alpha of several layers' objects, given as one layer of m objects, in some tiles.
        labels: classes of the objects; None: no targets are asked for.
        behind: targets of an earlier composite's objects; None: they have none.
        used: (b,); which samples show what is behind.
        room: where to write masks, visible and full, if nothing is behind; None: allocate them.
    """
    b, layers, blend = len(canvas), scene.layers, chosen(painter.ranges.blend, None)
    whole, fars = joined(layers), scene.distances(painter.ranges.scale[1])
    tiles, counts = painter.tiles(whole, scene.camera.coarser)
    opacity = painter.opacity(whole)
    found, edges = [], []
    for start, stop in _together(counts):
        first = sum(counts[:start])
        own = tiles[first : first + sum(counts[start:stop])].moved(start * b)
        far = None if fars[start] is None else torch.cat([far for far in fars[start:stop] if far is not None])
        ink, alpha = step(joined(layers[start:stop]), far, own)
        peak = highest(alpha, own.objects, (stop - start) * b)
        edge = edge_of(peak, opacity[start * b : stop * b], ~(peak >= SEEN))
        bound = edge[own.objects]
        for part in _slices(counts[start:stop]):
            (picture,) = blend((ink[part],), alpha[part], (own[part].read(canvas),), bound[part])
            own[part].write(canvas, picture)
        found.append(blend.mask(alpha, bound).clamp(0, 1))
        edges.append(edge)
    if labels is None:
        return None
    alpha, edge, size = torch.cat(found), torch.cat(edges), (canvas.shape[2], canvas.shape[3])
    return targets_in_tiles(labels, tiles, _slices(counts), alpha, edge, size, behind, used, room)


def _together(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first layer of those that are drawn together, and the one after the last, by each layer's tiles."""
    start, total = 0, 0
    for layer, count in enumerate(counts):
        if layer > start and (total + count) * SIDE**2 > PIXELS:
            yield start, layer
            start, total = layer, 0
        total += count
    yield start, len(counts)


def _slices(counts: Sequence[int]) -> list[slice]:
    """Each layer's part of the tiles."""
    ends = [sum(counts[: n + 1]) for n in range(len(counts))]
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
