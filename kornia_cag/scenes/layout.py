"""``Layout``: how many objects a scene shows, how large they are, and where they may lie."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_int, check_number, check_range, check_tensor, describe, fail
from kornia_cag.core.compiling import constant
from kornia_cag.core.draws import Choice, Draw, Number, Numbers
from kornia_cag.scenes.scene import Crop, Layer

_TOTAL = 2**16  # highest weight of a map's cell, as an integer


@runtime_checkable
class Place(Protocol):
    """Where the middle of an object may lie. To write your own, derive a frozen dataclass with ``__call__``.

    Attributes:
        numbers: how many numbers in [0, 1) a place is made of.
    """

    numbers: ClassVar[int] = 2

    def __call__(
        self, units: Float[Tensor, "b t n"], size: tuple[int, int], crop: Crop, contexts: Int[Tensor, " b"]
    ) -> Float[Tensor, "b t 2"]:
        """Places on the canvas, ``(x, y)`` in pixels, ``t`` of each sample.

        Args:
            units: numbers in [0, 1).
            size: canvas ``(height, width)``, pixels.
            crop: which part of the contexts the canvas shows.
            contexts: (b,); ids in the bank.
        """
        ...


@dataclass(frozen=True)
class Anywhere(Place):
    """Evenly over the canvas."""

    def __call__(
        self, units: Float[Tensor, "b t n"], size: tuple[int, int], crop: Crop, contexts: Int[Tensor, " b"]
    ) -> Float[Tensor, "b t 2"]:
        """See :class:`Place`: ``t`` of each sample, on a canvas ``size``."""
        return units * constant((size[1], size[0]), units.dtype, units.device)


@dataclass(frozen=True, kw_only=True)
class Band(Place):
    """Evenly over a horizontal band of the canvas: signs along a road, goods on a shelf.

    Attributes:
        top: its upper edge, as a share of the canvas's height from above.
        bottom: its lower edge, as a share of the canvas's height from above.
    """

    top: float
    bottom: float

    def __post_init__(self) -> None:
        check_number("bottom", self.bottom, check_number("top", self.top, 0, 1), 1)

    def __call__(
        self, units: Float[Tensor, "b t n"], size: tuple[int, int], crop: Crop, contexts: Int[Tensor, " b"]
    ) -> Float[Tensor, "b t 2"]:
        """See :class:`Place`: ``t`` of each sample, on a canvas ``size``."""
        height, width = size
        span = constant((width, (self.bottom - self.top) * height), units.dtype, units.device)
        return torch.addcmul(constant((0.0, self.top * height), units.dtype, units.device), units, span)


@dataclass(frozen=True, eq=False)
class Maps(Place):
    """By maps of weights, one for each context: roads, shelves, or whatever a segmentation found.

    A map covers the whole picture of the bank, a square; the scene's crop decides what of it the canvas shows, mirrored
    like the context. Where the canvas shows no weight, objects find no place. A sample that uses an earlier composite
    takes the map of its fresh context nonetheless.

    Attributes:
        weights: (n, h, w); at least 0, for each of the bank's n contexts; on the banks' device.
    """

    weights: Float[Tensor, "n h w"]
    numbers: ClassVar[int] = 3
    _whole: Int[Tensor, "n h w"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_tensor("weights", self.weights, ("n", "h", "w"), torch.float32, fix="One map for each context.")
        if not self.weights.numel() or not bool((self.weights >= 0).all() & self.weights.isfinite().all()):
            fail("weights", "finite weights of at least 0", describe(self.weights))
        highest = self.weights.flatten(1).amax(dim=1).clamp(min=1e-30)[:, None, None]
        object.__setattr__(self, "_whole", (self.weights / highest * _TOTAL).round().long())

    def __call__(
        self, units: Float[Tensor, "b t 3"], size: tuple[int, int], crop: Crop, contexts: Int[Tensor, " b"]
    ) -> Float[Tensor, "b t 2"]:
        """See :class:`Place`, of a canvas ``size``; far beside it where it shows no weight."""
        _, rows, columns = self._whole.shape
        (height, width), device = size, units.device
        share = crop.share / max(size)  # as in Composer's crop: a picture's side is 2
        span = torch.stack([share * width, share * height], dim=1)
        middle = (2 * torch.stack([crop.x, crop.y], dim=1) - 1) * (1 - span)
        seen = []
        for axis, count in enumerate((columns, rows)):
            cell = (2 * torch.arange(count, device=device) + 1) / count - 1
            seen.append((cell - middle[:, axis, None]).abs() <= span[:, axis, None])
        weights = (self._whole[contexts] * (seen[1][:, :, None] & seen[0][:, None])).flatten(1)
        summed = weights.cumsum(dim=1)  # of integers, so alike on every device
        total = summed[:, -1:]
        wanted = (units[..., 0].double() * total).long().contiguous().clamp(max=(total - 1).clamp(min=0))
        cell = torch.searchsorted(summed, wanted, right=True).clamp(max=rows * columns - 1)
        x = 2 * (cell % columns + units[..., 1]) / columns - 1
        y = 2 * (cell // columns + units[..., 2]) / rows - 1
        across = torch.where(crop.mirrored, -share, share)[:, None]
        x = 0.5 * (width + (x - middle[:, :1]) / across)
        y = 0.5 * (height + (y - middle[:, 1:]) / share[:, None])
        places = torch.stack([x, y], dim=2)
        return torch.where((total > 0)[..., None], places, -1e6)


@dataclass(frozen=True)
class Wish:
    """What a layout wants of one object of every sample.

    Attributes:
        places: (b, t, 2); for its middle, to be tried in order, canvas pixels.
        below: (b,); whether to try the place below the object before it first.
        wanted: (b,); whether the scene shows it at all, if it finds a place.
    """

    places: Float[Tensor, "b t 2"]
    below: Bool[Tensor, " b"]
    wanted: Bool[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where several objects lie on one canvas, and what share of each is seen.

    Objects are placed one after the other, from back to front, each at the first of ``tries`` places at which all
    limits hold, for it and for those before it; one that finds none is left out. Its label is then -1, and
    ``scene.left_out`` counts it. Size and place replace ``scale`` and ``translate`` of :class:`PoseRange`.

    Limits are judged by 64 points of each object, not by pixels, and with :data:`MARGIN` to spare. So little is given
    away that they hold for the masks, too: a limit of more than ``1 - MARGIN`` is kept by boxes that do not meet.

    Attributes:
        count: number of objects of a scene, uniform; those of a row beyond it are not shown, and rows of fewer show
            all of theirs. None: all. Distractors do not count: each of a row's is wanted beside them.
        side: longest side of an object, as a share of the canvas's shorter side; its logarithm is uniform.
        place: where the middle of an object may lie: ``Anywhere()``, ``Band(top=..., bottom=...)``, ``Maps(weights)``.
        stacked: probability that an object takes the size of the one before it and hangs right below it, if it fits.
        visible: least share of every object on the canvas that is seen once all are painted.
        overlap: largest share of an object's box that the box of another may cover; 0: none meet.
        inside: least share of an object that lies on the canvas.
        tries: number of places that are tried for an object.
    """

    MARGIN: ClassVar[float] = 0.1

    count: tuple[int, int] | None = None
    side: tuple[float, float] = (0.1, 0.5)
    place: Place = field(default_factory=Anywhere)
    stacked: float = 0.0
    visible: float = 0.5
    overlap: float = 1.0
    inside: float = 0.75
    tries: int = 8

    def __post_init__(self) -> None:
        if self.count is not None:
            if not isinstance(self.count, tuple | list) or len(self.count) != 2:
                fail("count", "a pair (least, most) of integers", describe(self.count))
            check_int("count", self.count[1], check_int("count", self.count[0], 0))
            object.__setattr__(self, "count", tuple(self.count))
        check_range("side", self.side, 1e-3, 10)
        object.__setattr__(self, "side", tuple(self.side))
        if not isinstance(self.place, Place) or isinstance(self.place, type):
            fail(
                "place", "a Place", describe(self.place), "Pass Anywhere(), Band(top=0.2, bottom=0.6) or Maps(weights)."
            )
        for name in ("stacked", "visible", "overlap"):
            check_number(name, getattr(self, name), 0, 1)
        check_number("inside", self.inside, 0.05, 1, "An object that is not on the canvas at all is none.")
        check_int("tries", self.tries, 1, 64)

    def check_layers(self, layers: int) -> None:
        """Require as many objects of each row as scenes may show.

        Raises:
            InputError: for fewer.
        """
        if self.count is not None and self.count[1] > layers:
            fail("layout.count", f"at most the {layers} objects of each row", f"{self.count}",
                 "Pass objects_per_scene to the PairSampler, or rows of more objects.")  # fmt: skip

    def draws(self, layer: int) -> tuple[Draw, ...]:
        """What a layer's place is drawn from."""
        rest = math.sqrt(self.side[0] * self.side[1])
        rest = min(max(rest, self.side[0]), self.side[1])
        found: list[Draw] = [Number("layout.side", self.side, rest=rest, log=True)]
        found.append(Numbers("layout.place", self.place.numbers * self.tries))
        if self.stacked:
            found.append(Choice("layout.stacked", self.stacked))
        if self.count is not None and layer == 0:
            found.append(Choice("layout.count"))
        return tuple(found)

    def read(
        self, values: Sequence[Mapping[str, Tensor]], layers: Sequence[Layer], size: tuple[int, int], crop: Crop,
        contexts: Int[Tensor, " b"], known: Int[Tensor, " n"] | None = None,
    ) -> tuple[tuple[Layer, ...], tuple[Wish, ...], Int[Tensor, " b"]]:  # fmt: skip
        """Layers of their size in the middle of the canvas, what is wanted of each, and the number of those wanted.

        Args:
            values: of each layer's :meth:`draws`.
            layers: as drawn by a pose range.
            size: canvas ``(height, width)``, pixels.
            crop: which part of the contexts the canvas shows.
            contexts: (b,); ids in the bank.
            known: (n,); class of each object of the bank, -1: none; None: all have one.
        """
        wanted = torch.ones(len(layers), len(contexts), dtype=torch.bool, device=contexts.device)
        if self.count is not None:
            least, most = self.count
            count = least + (values[0]["layout.count"] * (most - least + 1)).long().clamp(max=most - least)
            ids = torch.stack([layer.objects for layer in layers])
            named = wanted if known is None else known[ids] >= 0
            wanted = (named.cumsum(dim=0) <= count) | ~named
        found, wishes = [], []
        for number, (layer, value) in enumerate(zip(layers, values, strict=True)):
            middle = torch.zeros_like(layer.pose.x)
            found.append(replace(layer, pose=replace(layer.pose, scale=value["layout.side"], x=middle, y=middle)))
            units = value["layout.place"].unflatten(1, (self.tries, self.place.numbers))
            places = self.place(units, size, crop, contexts)
            below = value["layout.stacked"] if self.stacked else torch.zeros_like(middle, dtype=torch.bool)
            wishes.append(Wish(places, below, wanted[number]))
        return tuple(found), tuple(wishes), wanted.sum(dim=0)
