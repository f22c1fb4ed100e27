"""A small detector in plain torch: every object is a point, the centre of its box, on a map of a quarter of the side.

Three outputs per cell of four pixels: a heat map per class, whose peaks are the objects; from the cell to the centre of
the box; and the box's size. A peak is a cell that no neighbour exceeds, so no boxes have to be compared afterwards. The
network has no layer that depends on the size of a picture: it is trained on small ones and run on large ones, of the
same scale.

Sources: the heat map and its loss, Law and Deng, "CornerNet", 2018, and Zhou et al., "Objects as Points", 2019; boxes
learnt around the centre, not only at it, Liu et al., "Training-Time-Friendly Network", 2020; the loss of boxes,
Rezatofighi et al., "Generalized Intersection over Union", 2019.

Convention: boxes are half-open ``xyxy``, pixels; the cell in row ``i`` and column ``j`` has its centre at
``(4 * j + 2, 4 * i + 2)``.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kornia_cag.core.checks import check_int, check_number, check_tensor, fail
from kornia_cag.core.precision import FLOATS
from kornia_cag.evaluation.detection import Found
from kornia_cag.loading.detections import Detections

STRIDE = 4  # pixels of a cell's side
SPREAD = 0.54 / 6  # standard deviation of an object's spot of heat, as a share of its box's sides
REACH = 0.3  # cells hotter than this learn the box
USUAL = math.log(8)  # of a box's side in cells, where an untrained network begins
RARE = 0.01  # probability of an object in a cell, likewise


class Maps(NamedTuple):
    """What the network says of every cell, in float32."""

    heat: Float[Tensor, "b c h w"]  # logit of each class
    shift: Float[Tensor, "b 2 h w"]  # from the cell's centre to that of the box, x and y, cells
    size: Float[Tensor, "b 2 h w"]  # logarithm of the box's width and height, cells

    @property
    def boxes(self) -> Float[Tensor, "b 4 h w"]:
        """The box of every cell, pixels."""
        rows, columns = (
            torch.arange(side, dtype=torch.float32, device=self.heat.device) + 0.5 for side in self.heat.shape[2:]
        )
        x, y = columns + self.shift[:, 0], rows[:, None] + self.shift[:, 1]
        half = self.size.exp() / 2
        corners = [x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]]
        return STRIDE * torch.stack(corners, dim=1)


class Detector(nn.Module):
    """A convolutional network at strides 4, 8 and 16, whose coarser maps are added to the finer ones.

    Normalisation is part of the model: pictures come in [0, 1]. Their sides may be any; the maps round up.

    Args:
        classes: number of classes; 1 to find objects without naming them.
        width: channels of the first layer; the others have 2, 4 and 8 times as many.

    Raises:
        InputError: for numbers below 1.
    """

    def __init__(self, classes: int, *, width: int = 16) -> None:
        super().__init__()
        w, self.classes = check_int("width", width), check_int("classes", classes)
        self.fine = nn.Sequential(_layer(3, w, 2), _layer(w, 2 * w, 2), _layer(2 * w, 2 * w))
        self.middle = nn.Sequential(_layer(2 * w, 4 * w, 2), _Residual(4 * w))
        self.coarse = nn.Sequential(_layer(4 * w, 8 * w, 2), _Residual(8 * w))
        self.to_middle, self.to_fine = nn.Conv2d(8 * w, 4 * w, 1), nn.Conv2d(4 * w, 2 * w, 1)
        self.at_middle, self.at_fine = _layer(4 * w, 4 * w), _layer(2 * w, 2 * w)
        self.heat = nn.Sequential(_layer(2 * w, 2 * w), _head(2 * w, [-math.log(1 / RARE - 1)] * classes))
        self.box = nn.Sequential(_layer(2 * w, 2 * w), _head(2 * w, [0.0, 0.0, USUAL, USUAL]))

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Maps:
        """Maps of ``ceil(H / 4)`` by ``ceil(W / 4)`` cells."""
        fine = self.fine((images - 0.5) / 0.25)
        middle = self.middle(fine)
        middle = self.at_middle(middle + _enlarged(self.to_middle(self.coarse(middle)), middle))
        fine = self.at_fine(fine + _enlarged(self.to_fine(middle), fine))
        shift, size = self.box(fine).float().split(2, dim=1)
        return Maps(self.heat(fine).float(), shift, size.clamp(-3, 7))

    def loss(self, images: Float[Tensor, "b 3 H W"], targets: Detections) -> Float[Tensor, ""]:
        """What training minimises, see :func:`detector_loss`; does not wait for the device.

        Args:
            images: in [0, 1], on the network's device.
            targets: what is to be found in them.
        """
        return detector_loss(self(images), targets.boxes, targets.labels, targets.present)

    def objects(self, targets: Detections) -> Int[Tensor, ""]:
        """How many objects :meth:`loss` is a mean over: what several ranks weigh theirs by."""
        return (targets.present & (targets.labels >= 0)).sum()

    def losses(self, maps: Maps, targets: Detections) -> Float[Tensor, " b"]:
        """The same of each picture alone, from what :meth:`forward` returned: what adversaries raise."""
        lost, count = detector_losses(maps, targets.boxes, targets.labels, targets.present)
        return lost / count.clamp(min=1)

    @torch.no_grad()
    def detect(self, images: Float[Tensor, "b 3 H W"], *, threshold: float = 0.05, most: int = 100) -> list[Found]:
        """Find the objects in pictures, in evaluation mode; of each, the best first.

        Waits for the device.

        Args:
            images: in [0, 1], on the network's device.
            threshold: lowest score that counts, in [0, 1].
            most: number of objects per picture.

        Raises:
            InputError: for anything but float pictures.
        """
        check_tensor("images", images, ("b", 3, "h", "w"), FLOATS, fix="Pass pictures in [0, 1]: images / 255.")
        check_number("threshold", threshold, 0, 1)
        training = self.training
        maps = self.eval()(images)
        self.train(training)
        return peaks(maps, images.shape[2:], threshold=threshold, most=check_int("most", most))


def peaks(maps: Maps, size: tuple[int, int] | torch.Size, *, threshold: float, most: int) -> list[Found]:
    """The objects that maps show, of each picture the best first: cells that none of their eight neighbours exceeds.

    Args:
        maps: of pictures.
        size: of the pictures, ``(height, width)``, to which boxes are cut.
        threshold: lowest score that counts, in [0, 1].
        most: number of objects per picture.
    """
    heat = maps.heat  # not its scores: those of two very sure cells would be equal
    peak = torch.where(heat == F.max_pool2d(heat, 3, 1, 1), heat, -math.inf).flatten(1)
    cells = maps.heat.shape[2] * maps.heat.shape[3]
    best, place = peak.topk(min(most, peak.shape[1]), dim=1)
    boxes = maps.boxes.flatten(2).gather(2, (place % cells)[:, None].expand(-1, 4, -1)).transpose(1, 2)
    edge = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32, device=boxes.device)
    boxes = torch.minimum(boxes.clamp(min=0), edge)
    scores = best.sigmoid()
    kept = (scores >= threshold) & best.isfinite()
    return [Found(b[k], p[k] // cells, s[k]) for b, p, s, k in zip(boxes, place, scores, kept, strict=True)]


def detector_loss(
    maps: Maps,
    boxes: Float[Tensor, "b n 4"],
    labels: Int[Tensor, "b n"],
    present: Bool[Tensor, "b n"],
    *,
    box_weight: float = 2.0,
) -> Float[Tensor, ""]:
    """What training minimises: :func:`detector_losses` of all pictures, per object."""
    lost, count = detector_losses(maps, boxes, labels, present, box_weight=box_weight)
    return lost.sum() / count.sum().clamp(min=1)


def detector_losses(
    maps: Maps,
    boxes: Float[Tensor, "b n 4"],
    labels: Int[Tensor, "b n"],
    present: Bool[Tensor, "b n"],
    *,
    box_weight: float = 2.0,
) -> tuple[Float[Tensor, " b"], Int[Tensor, " b"]]:
    """Of each picture :func:`focal_loss` of the heat plus ``1 - giou`` of all boxes, and its number of objects.

    Does not wait for the device.

    Args:
        maps: what the network says.
        boxes: of up to n objects per picture, pixels; those that are not present may hold anything, NaN included.
        labels: their classes; a negative one is as if not present.
        present: which of them there are.
        box_weight: weight of the boxes, at least 0.

    Raises:
        InputError: for other shapes and types.
    """
    b, classes, *cells = maps.heat.shape
    check_tensor("boxes", boxes, (b, "n", 4), torch.float32)
    check_tensor("labels", labels, boxes.shape[:2], torch.int64)
    check_tensor("present", present, boxes.shape[:2], torch.bool)
    check_number("box_weight", box_weight, 0)
    if not boxes.shape[1]:
        fail("boxes", "room for at least one object", "none", "Pad pictures without objects with absent ones.")
    there = present & (labels >= 0)
    boxes = torch.where(there[..., None], boxes, 0.0)
    spots = spots_of(boxes, there, (cells[0], cells[1]))
    heat = spots.new_zeros(b, classes, *cells)
    heat.scatter_reduce_(1, labels.clamp(min=0)[..., None, None].expand_as(spots), spots, "amax")
    weight, owner = shares_of(spots)
    wanted = boxes.gather(1, owner.flatten(1)[..., None].expand(-1, -1, 4)).transpose(1, 2).unflatten(2, tuple(cells))
    missed = (weight * (1 - giou(maps.boxes, wanted))).sum(dim=(1, 2))
    return focal_loss(maps.heat, heat).sum(dim=(1, 2, 3)) + box_weight * missed, there.sum(dim=1)


def spots_of(
    boxes: Float[Tensor, "b n 4"], there: Bool[Tensor, "b n"], cells: tuple[int, int]
) -> Float[Tensor, "b n h w"]:
    """The heat that each object should give: a bell over its box, 1 in the cell of its centre; 0 if it is absent.

    Args:
        boxes: pixels, finite.
        there: which objects there are.
        cells: height and width of the map.
    """
    middle = (boxes[..., :2] + boxes[..., 2:]) / (2 * STRIDE)
    deviation = (SPREAD / STRIDE * (boxes[..., 2:] - boxes[..., :2])).clamp(min=1e-3)
    bells = []
    for axis, side in ((0, cells[1]), (1, cells[0])):
        place = torch.arange(side, dtype=torch.float32, device=boxes.device)
        centre = middle[..., axis].floor().clamp(0, side - 1)
        bells.append((-((place - centre[..., None]) ** 2) / (2 * deviation[..., axis, None] ** 2)).exp())
    across, down = bells
    return torch.where(there[..., None, None], down[..., None] * across[..., None, :], 0.0)


def shares_of(spots: Float[Tensor, "b n h w"]) -> tuple[Float[Tensor, "b h w"], Int[Tensor, "b h w"]]:
    """Weight of every cell in the loss of boxes, and the object whose box it learns: that of the hottest spot.

    Cells no hotter than :data:`REACH` have none; those of one object have 1 together.
    """
    hottest, owner = spots.max(dim=1)
    own = torch.where(hottest > REACH, hottest, 0.0)
    numbers = torch.arange(spots.shape[1], device=spots.device)
    of_each = torch.where(owner[:, None] == numbers[:, None, None], own[:, None], 0.0)
    return (of_each / of_each.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)).sum(dim=1), owner


def focal_loss(logits: Float[Tensor, "*b"], heat: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Penalty-reduced focal loss: with probabilities ``p``, of cells with heat 1 ``-(1 - p)^2 log(p)``.

    Of the others ``-(1 - heat)^4 p^2 log(1 - p)``. Source: Law and Deng, 2018, equation 1, with alpha 2 and beta 4.
    """
    p = logits.sigmoid()
    hit = -((1 - p) ** 2) * F.logsigmoid(logits)
    miss = -((1 - heat) ** 4) * p**2 * F.logsigmoid(-logits)
    return torch.where(heat == 1, hit, miss)


def giou(a: Float[Tensor, "b 4 h w"], b: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b h w"]:
    """Generalised intersection over union of boxes, in [-1, 1]: less the share of their common hull in neither.

    Boxes have no negative sides; for two without area it is finite. Source: Rezatofighi et al., 2019, algorithm 1.
    """
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - inner
    return inner / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def _layer(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two layers, added to what they are given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_layer(channels, channels), _layer(channels, channels))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        added: Tensor = maps + self.layers(maps)
        return added


def _head(channels: int, start: list[float]) -> nn.Conv2d:
    """The last layer of a head, whose outputs begin near ``start``."""
    layer = nn.Conv2d(channels, len(start), 1)
    nn.init.normal_(layer.weight, std=0.01)
    layer.bias = nn.Parameter(layer.weight.new_tensor(start))
    return layer


def _enlarged(coarse: Float[Tensor, "b c h w"], fine: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
    return F.interpolate(coarse, fine.shape[2:], mode="nearest")
