"""How objects find their places: one step for each, the same for all, without a look at pixels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.pyramid import Window, sample_pyramid
from kornia_cag.banks.shapes import AREA
from kornia_cag.banks.texels import EXTENT
from kornia_cag.core.compiling import constant, kept
from kornia_cag.scenes.layout import Layout, Wish
from kornia_cag.scenes.pose import HORIZON, Axes, Pose, axes, homographies, to_canvas
from kornia_cag.scenes.scene import Layer, Scene
from kornia_cag.scenes.warp import displace, outside

COARSE = 32  # texels per side of the level from which points read alpha
GRAIN = 2.0**12  # what is seen of a point counts in steps of its inverse: sums are exact, whatever their order
NEAR = 0.3  # depth below which a point stands for no more canvas


@dataclass(frozen=True)
class Ground:
    """What lies on the canvases of ``b`` samples so far, in M places.

    Attributes:
        points: (b, M, 2, 64); points of each object, canvas pixels.
        seen: (b, M, 64); how much canvas each stands for, less what covers it; 0 beside the canvas.
        whole: (b, M); their sum if nothing covers them; 0: no object here.
        boxes: (b, M, 4); around each object, a little wider, xyxy, pixels; 0 where there is none.
        area: (b, M); of the box on the canvas, not wider, square pixels.
        last: (b, 4); box of the object placed last.
        scale: (b,); its scale; 0: there is none.
    """

    points: Float[Tensor, "b m 2 n"]
    seen: Float[Tensor, "b m n"]
    whole: Float[Tensor, "b m"]
    boxes: Float[Tensor, "b m 4"]
    area: Float[Tensor, "b m"]
    last: Float[Tensor, "b 4"]
    scale: Float[Tensor, " b"]


Step = Callable[[Layer, Wish, Ground, Bool[Tensor, " m"]], tuple[Layer, Ground]]


def laid_out(scene: Scene, wishes: tuple[Wish, ...], step: Step, *, multiple: int = 1) -> Scene:
    """A scene whose objects find their places one after the other.

    Args:
        scene: with its objects in the middle of the canvas.
        wishes: what the layout wants of each.
        step: :func:`put`, for one layout, bank and canvas.
        multiple: the ground has places for a multiple of so many objects, so that fewer shapes occur.
    """
    device, count = scene.keys.device, -(-len(wishes) // multiple) * multiple
    ground, layers = _bare(len(scene.keys), count, device), []
    own = [here.clone() for here in torch.eye(count, dtype=torch.bool, device=device).unbind()]
    for layer, wish, here in zip(scene.layers, wishes, own, strict=False):
        placed, ground = step(layer, wish, ground, here)
        layers.append(placed)
    return replace(scene, layers=tuple(layers))


def _bare(b: int, layers: int, device: torch.device) -> Ground:
    """Empty canvases for ``layers`` objects each."""
    sizes = (layers, 2, AREA), (layers, AREA), (layers,), (layers, 4), (layers,), (4,), ()
    return Ground(*(torch.zeros(b, *size, device=device, dtype=torch.float32) for size in sizes))


@dataclass(frozen=True)
class _Tried:
    """An object at each of ``t`` places.

    Attributes:
        points: (b, t, 2, n); canvas pixels.
        shown: (b, t, n); how much canvas each stands for; 0 beside it.
        inside: (b, t); share of the object on the canvas.
        boxes: (b, t, 4); around the object, a little wider, xyxy, pixels.
        area: (b, t); of the box on the canvas, not wider, square pixels.
    """

    points: Float[Tensor, "b t 2 n"]
    shown: Float[Tensor, "b t n"]
    inside: Float[Tensor, "b t"]
    boxes: Float[Tensor, "b t 4"]
    area: Float[Tensor, "b t"]


@torch.no_grad()
def put(
    layout: Layout, bank: ObjectBank, size: tuple[int, int], layer: Layer, wish: Wish, ground: Ground,
    here: Bool[Tensor, " m"],
) -> tuple[Layer, Ground]:  # fmt: skip
    """Put one object of each sample at the first place that keeps all limits, over what lies there already.

    Args:
        layout: its limits.
        bank: bank of the objects.
        size: canvas ``(height, width)``, pixels.
        layer: the object, in the middle of the canvas.
        wish: what the layout wants of it.
        ground: what lies there.
        here: (M,); True for the object's own place in the ground, and for no other.

    Returns:
        The layer where it lies, which says in which samples it is shown; and the ground with it.
    """
    under = wish.below & (ground.scale > 0)
    pose = replace(layer.pose, scale=torch.where(under, ground.scale, layer.pose.scale))
    variant = (pose.variant * bank.variants).long().clamp(max=bank.variants - 1)
    pictures = layer.objects * bank.variants + variant
    own = axes(pose, size)
    tried, shift = _tried(bank.points[pictures], pose, own, size, wish.places, under, ground.last)
    covered = _alpha(bank, pictures, pose, own, size, ground.points, shift)
    seen = _grains((1 - covered) * ground.seen[:, None])
    good = _kept(layout, tried, seen, ground, size) & wish.wanted[:, None]
    order = torch.arange(good.shape[1], 0, -1, device=good.device)
    first, found = (good * order).argmax(dim=1), good.any(dim=1)

    def chosen(values: Tensor) -> Tensor:
        rest = values.shape[2:]
        return values.gather(1, first.view(-1, 1, *[1] * len(rest)).expand(-1, 1, *rest))[:, 0]

    def shown(values: Tensor) -> Tensor:
        return torch.where(found.view(-1, *[1] * (values.ndim - 1)), values, 0)

    new_seen, box = shown(chosen(tried.shown)), shown(chosen(tried.boxes))
    whole = new_seen.sum(dim=1)
    moved = shown(chosen(shift)) / min(size)
    placed = replace(layer, pose=replace(pose, x=moved[:, 0], y=moved[:, 1]), shown=found)
    return placed, Ground(
        torch.where(here[:, None, None], chosen(tried.points)[:, None], ground.points),
        torch.where(here[:, None], new_seen[:, None], torch.where(found[:, None, None], chosen(seen), ground.seen)),
        torch.where(here, whole[:, None], ground.whole),
        torch.where(here[:, None], box[:, None], ground.boxes),
        torch.where(here, shown(chosen(tried.area))[:, None], ground.area),
        torch.where(found[:, None], box, ground.last),
        torch.where(found, pose.scale, ground.scale),
    )


def _tried(
    points: Float[Tensor, "b 2 n"], pose: Pose, own: Axes, size: tuple[int, int], places: Float[Tensor, "b t 2"],
    under: Bool[Tensor, " b"], last: Float[Tensor, "b 4"],
) -> tuple[_Tried, Float[Tensor, "b t 2"]]:  # fmt: skip
    """The object at its places, and how far each is from the middle of the canvas, pixels."""
    height, width = size
    if pose.waves.shape[1]:
        points = _undisplaced(points, pose.waves)
    x, y = points.unbind(1)
    spots, depth = to_canvas(pose, x, y, own)
    weight = torch.where(depth > HORIZON, depth.clamp(min=NEAR) ** -3, 0)[:, :AREA]  # canvas by area of the object
    if pose.holes.shape[1]:
        weight = weight * outside(*points[:, :, None, :AREA].unbind(1), pose.holes)[:, 0]
    weight = _grains(weight)[:, None]
    pad = (1 + 0.02 * min(size) * pose.scale)[:, None]
    low, high = spots.amin(dim=2), spots.amax(dim=2)
    box = torch.cat([low - pad, high + pad], dim=1)
    end = constant((width, height), spots.dtype, spots.device)
    middle = 0.5 * end
    hung = torch.stack([0.5 * (last[:, 0] + last[:, 2]), last[:, 3] - box[:, 1] + 0.5 * height], dim=1)
    hung = torch.where(under[:, None], hung, places[:, 0])
    shift = torch.cat([hung[:, None], places[:, 1:]], dim=1) - middle
    at = kept(spots[:, None, :, :AREA] + shift[..., None])
    x, y = at.unbind(2)
    on = torch.where((x > 0) & (x < width) & (y > 0) & (y < height), weight, 0)
    inside = on.sum(dim=2) / weight.sum(dim=2).clamp(min=1 / GRAIN)
    zero = torch.zeros_like(end)
    clipped = torch.minimum(high[:, None] + shift, end) - torch.maximum(low[:, None] + shift, zero)
    area = clipped.clamp(min=0).prod(dim=2)
    return _Tried(at, on, inside, box[:, None] + shift.repeat(1, 1, 2), area), shift


def _undisplaced(points: Float[Tensor, "b 2 n"], waves: Float[Tensor, "b k 5"]) -> Float[Tensor, "b 2 n"]:
    """What elastic waves displace to these points, by three steps of a fixed-point iteration."""
    found = points
    for _ in range(3):
        found = points - (displace(found, waves) - found)
    return found


def _grains(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Rounded, so that sums are exact."""
    return (values * GRAIN).round() / GRAIN


def _alpha(
    bank: ObjectBank, pictures: Int[Tensor, " b"], pose: Pose, own: Axes, size: tuple[int, int],
    points: Float[Tensor, "b m 2 n"], shift: Float[Tensor, "b t 2"],
) -> Float[Tensor, "b t m n"]:  # fmt: skip
    """The object's alpha, at each of its places, over the points of others."""
    level = max(0, (bank.size // COARSE).bit_length() - 1)
    first, second, third = (row[..., None, None] for row in kept(homographies(pose, size, own)).unbind(1))
    across, down = (points[:, None, :, axis].flatten(2) - shift[..., axis, None] for axis in (0, 1))
    depth = (third[:, 0] * across + (third[:, 1] * down + third[:, 2])).clamp(min=1e-3)
    x, y = (((row[:, 0] * across + (row[:, 1] * down + row[:, 2])) / depth) for row in (first, second))
    spots = torch.stack([x, y], dim=1)
    levels, window = torch.full_like(pictures, level), Window((bank.size >> level) + 2)
    moved = displace(spots, kept(pose.waves))
    alpha = sample_pyramid(bank.pyramid, pictures, moved, levels, extent=EXTENT, window=window, channels=slice(3, 4))[0]
    if pose.holes.shape[1]:
        alpha = alpha * outside(*spots.unbind(1), kept(pose.holes))
    read: Tensor = alpha.clamp(0, 1).unflatten(2, (points.shape[1], -1))
    return read


def _kept(
    layout: Layout, tried: _Tried, seen: Float[Tensor, "b t m n"], ground: Ground, size: tuple[int, int]
) -> Bool[Tensor, "b t"]:
    """Which places keep all limits."""
    (height, width), boxes, others = size, tried.boxes[:, :, None], ground.boxes[:, None]
    low, high = boxes[..., :2], boxes[..., 2:]
    if layout.inside + layout.MARGIN > 1:
        end = constant((width, height), low.dtype, low.device)
        good = ((low >= 0) & (high <= end)).all(dim=3)[:, :, 0]
    else:
        good = tried.inside >= layout.inside + layout.MARGIN
    sides = (torch.minimum(high, others[..., 2:]) - torch.maximum(low, others[..., :2])).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    apart = layout.visible + layout.MARGIN > 1
    if layout.overlap < 1 or apart:
        there = ground.whole[:, None] > 0
        most = 0.0 if apart else layout.overlap
        least = torch.minimum(tried.area[:, :, None], ground.area[:, None])
        good = good & ((shared <= most * least) | ~there).all(dim=2)
    if layout.visible and not apart:
        least = (layout.visible + layout.MARGIN) * ground.whole
        good = good & (seen.sum(dim=3) >= least[:, None]).all(dim=2)
    return good
