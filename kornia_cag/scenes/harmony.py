"""An object's light matched to its surroundings: ``HarmonyRange`` → ``Harmony`` → one affine map of its colours."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.checks import check_range
from kornia_cag.core.compiling import channels, kept
from kornia_cag.core.draws import Draw, Number
from kornia_cag.core.operations import one_operation, unfused
from kornia_cag.scenes.light import LUMA, Picture, Tone, light, planes_of, whole
from kornia_cag.scenes.spots import TINY, Spot

REACH = 2.0  # of the window that surroundings are seen through, in standard deviations of the object's own mass
FLOOR = 0.02  # luma; what is darker counts as this in a ratio
FLAT = 1e-4  # variance that is added to that of luma, so that what is flat gets no contrast
MOST = 4.0  # largest factor on brightness or contrast
STRENGTHS = "brightness", "color", "contrast"


@dataclass(frozen=True)
class Harmony:
    """Drawn strengths of ``b`` objects, each in [0, 1]: 0 changes nothing, at 1 the object is like its surroundings.

    Attributes:
        brightness: (b,); of the mean brightness.
        color: (b,); of the colour of its light.
        contrast: (b,); of the standard deviation of brightness.
    """

    brightness: Float[Tensor, " b"]
    color: Float[Tensor, " b"]
    contrast: Float[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class HarmonyRange:
    """How far each object's light is drawn towards that of what it is pasted on, see :func:`harmonised`.

    Attributes:
        brightness: share of the way to the mean brightness around it, in [0, 1].
        color: share of the way to the colour of the light there, in [0, 1].
        contrast: share of the way to the standard deviation of brightness there, in [0, 1].
    """

    brightness: tuple[float, float] = (0.0, 0.6)
    color: tuple[float, float] = (0.0, 0.3)
    contrast: tuple[float, float] = (0.0, 0.3)

    def __post_init__(self) -> None:
        for name in STRENGTHS:
            check_range(name, getattr(self, name), 0, 1)

    def draws(self) -> tuple[Draw, ...]:
        """What strengths are read from."""
        return tuple(Number(f"harmony.{name}", getattr(self, name), rest=0.0) for name in STRENGTHS)

    def read(self, values: Mapping[str, Tensor]) -> Harmony:
        """The strengths that values of :meth:`draws` give."""
        return Harmony(**{name: values[f"harmony.{name}"] for name in STRENGTHS})


def harmonised(front: Picture, alpha: Float[Tensor, "b h w"], behind: Picture, spot: Spot, harmony: Harmony) -> Picture:
    """Draw the mean brightness, the colour and the contrast of lit objects towards those of their surroundings.

    Each of the three goes along a straight line as its strength grows, unless it would have to change by more than
    :data:`MOST` times. Colour fades to grey in the light of the surroundings, that is in their mean colour, so white
    becomes that and black stays black. Linear in the object's colour and not clamped, as is light. Sources: Reinhard et
    al., 2001, for matching moments; Li et al., "AADS", 2019.

    Args:
        front: premultiplied colour.
        alpha: its alpha.
        behind: what is there already; surroundings are seen through a soft window around the object, twice as large.
        spot: where the object is.
        harmony: strengths.
    """
    strengths = torch.stack([harmony.brightness, harmony.color, harmony.contrast], dim=1)
    found = _matched(kept(whole(front)), alpha, kept(whole(behind)), torch.stack(spot, dim=1), strengths)
    return tuple(found[:, own] for own in channels(found))


@unfused("matched(Tensor front, Tensor alpha, Tensor behind, Tensor spot, Tensor strengths) -> Tensor", "front")
def _matched(
    front: Float[Tensor, "b 3 h w"], alpha: Float[Tensor, "b h w"], behind: Float[Tensor, "b 3 h w"],
    spot: Float[Tensor, "b 4"], strengths: Float[Tensor, "b 3"],
) -> Float[Tensor, "b 3 h w"]:  # fmt: skip
    matrix, offset = _matching(front, alpha, behind, spot, strengths)
    return whole(light(planes_of((front,)), Tone(matrix, offset, None), alpha))


@one_operation("matching(Tensor front, Tensor alpha, Tensor behind, Tensor spot, Tensor strengths) -> (Tensor, Tensor)")
def _matching(
    front: Float[Tensor, "b 3 h w"], alpha: Float[Tensor, "b h w"], behind: Float[Tensor, "b 3 h w"],
    spot: Float[Tensor, "b 4"], strengths: Float[Tensor, "b 3"],
) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 3"]]:  # fmt: skip
    """The affine map of colours: matrix and offset."""
    across, down = _window(spot, (alpha.shape[1], alpha.shape[2]))
    own, own_variance = _object(front, alpha)
    around = _mean(behind, across, down)
    bright, own_bright = _luma(around), _luma(own)
    grey = _luma(behind)[:, 0] - bright[:, :, None]
    variance = _mean((grey * grey)[:, None], across, down)
    # Moments after each step, in the order: colour, brightness, contrast.
    brightness, color, contrast = kept(strengths).split(1, dim=1)
    cast = around / bright.clamp(min=FLOOR)
    same = torch.eye(3, dtype=front.dtype, device=front.device)
    matrix = (1 - color)[..., None] * same + torch.stack([weight * color * cast for weight in LUMA], dim=2)
    mean = (1 - color) * own + color * own_bright * cast
    gain = 1 + brightness * ((bright / own_bright.clamp(min=FLOOR)).clamp(max=MOST) - 1)
    ratio = ((variance + FLAT) / (gain * gain * own_variance + FLAT)).sqrt().clamp(max=MOST)
    steep = 1 + contrast * (ratio - 1)
    return (steep * gain)[..., None] * matrix, (1 - steep) * gain * mean


def _object(
    front: Float[Tensor, "b 3 h w"], alpha: Float[Tensor, "b h w"]
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 1"]]:
    """Mean colour of objects, weighted by alpha, and variance of their luma, by its square."""
    sums = front.sum(dim=3).sum(dim=2)
    mean = sums / alpha.sum(dim=2).sum(dim=1)[:, None].clamp(min=TINY)
    grey = _luma(front)[:, 0] - _luma(mean)[:, :, None] * alpha
    squares = (grey * grey).sum(dim=2).sum(dim=1), (alpha * alpha).sum(dim=2).sum(dim=1)
    return mean, (squares[0] / squares[1].clamp(min=TINY))[:, None]


def _window(spot: Float[Tensor, "b 4"], size: tuple[int, int]) -> tuple[Float[Tensor, "b w"], Float[Tensor, "b h"]]:
    """Gaussian weights of the columns and of the rows around each spot; each sum to 1."""
    found = []
    for axis, count in enumerate((size[1], size[0])):
        middle, reach = spot[:, axis, None], REACH * spot[:, 2 + axis, None]
        place = torch.arange(0.5, count, dtype=spot.dtype, device=spot.device)
        weights = torch.exp(-0.5 * ((place - middle) / reach) ** 2)
        found.append(kept(weights / weights.sum(dim=1, keepdim=True)))
    return found[0], found[1]


def _mean(
    planes: Float[Tensor, "b c h w"], across: Float[Tensor, "b w"], down: Float[Tensor, "b h"]
) -> Float[Tensor, "b c"]:
    """Means, weighted by column and row."""
    lines = (planes * across[:, None, None]).sum(dim=3)
    return (lines * down[:, None]).sum(dim=2)


def _luma(colors: Float[Tensor, "b 3 *p"]) -> Float[Tensor, "b 1 *p"]:
    red, green, blue = colors.split(1, dim=1)
    grey: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return grey
