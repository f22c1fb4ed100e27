"""Light and colour: ``ColorRange`` → ``Color`` (as drawn) → ``Tone`` (one affine map of colours) → a lit picture.

Colours are treated as linear. Light may exceed 1 until the camera clips it at the end.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.checks import check_number, check_range, fail
from kornia_cag.core.compiling import channels, constant, fusing, kept, spread
from kornia_cag.core.draws import Choice, Draw, Draws, Number, drawn
from kornia_cag.core.operations import one_operation
from kornia_cag.core.records import cut, joined
from kornia_cag.scenes.strength import full_strength
from kornia_cag.scenes.tiles import Tiles

Picture = tuple[Shaped[Tensor, "b _ h w"], ...]  # one tensor, or while being compiled for a CPU one for each channel

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as kornia's rgb_to_grayscale

_THIRDS = (0.0, 2 * math.pi / 3, -2 * math.pi / 3)  # of a turn, radians
_CIRCULANT = (0, 1, 2, 2, 0, 1, 1, 2, 0)  # each row is the one above, moved on by one


@dataclass(frozen=True)
class Color:
    """Drawn colour and light of ``b`` pictures, in the units of :class:`ColorRange`.

    Attributes:
        brightness: (b,); factor on all light.
        exposure: (b,); stops.
        contrast: (b,); factor around mid-grey.
        saturation: (b,); factor around the pixel's grey.
        hue: (b,); degrees, around the grey axis.
        tint: (b, 3); relative change of the gain of red, green, blue.
        veil: (b,); share of flat light.
        veil_level: (b,); brightness of that light, in [0, 1].
        illumination: (b,); relative gain from the canvas's centre to its edge; None: even light.
        light_from: (b,); direction the light comes from, in turns: 0 is right, a quarter is below; None if even.
        inverted: (b,); whether colours are inverted.
    """

    brightness: Float[Tensor, " b"]
    exposure: Float[Tensor, " b"]
    contrast: Float[Tensor, " b"]
    saturation: Float[Tensor, " b"]
    hue: Float[Tensor, " b"]
    tint: Float[Tensor, "b 3"]
    veil: Float[Tensor, " b"]
    veil_level: Float[Tensor, " b"]
    illumination: Float[Tensor, " b"] | None
    light_from: Float[Tensor, " b"] | None
    inverted: Bool[Tensor, " b"]

    def tone(self) -> "Tone":
        """Fold everything into one affine map of colours and one plane of light.

        Raises:
            InputError: for an illumination from nowhere.
        """
        return Tone(*self._map(), self.slope())

    def slope(self) -> Float[Tensor, "b 2"] | None:
        """The plane of light, see :class:`Tone`."""
        if self.illumination is None:
            return None
        if self.light_from is None:
            fail("light_from", "directions (b,) with illumination=...", "None", "Pass turns, such as zeros.")
        angle = 2 * math.pi * self.light_from
        return self.illumination[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)

    def air(self) -> Float[Tensor, "b 3"]:
        """(b, 3); colour of flat light alone, as under a veil that hides everything."""
        return self._gains() * self.veil_level[:, None]

    def _gains(self) -> Float[Tensor, "b 3"]:
        return (self.brightness * _power_of_two(self.exposure))[:, None] * (1 + self.tint)

    def _map(self) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 3"]]:
        """The affine map of colours: matrix and offset."""
        gains = self._gains()
        # contrast about 0.5, downwards in a negative; then a veil of mid-grey to white light
        steep, clear = torch.where(self.inverted, -self.contrast, self.contrast), 1 - self.veil
        offset = gains * (clear * torch.rsub(steep, 0.5, alpha=0.5) + self.veil * self.veil_level)[:, None]
        dtype, device = self.hue.dtype, self.hue.device
        # Around the grey axis, each channel turns into the three by (1 + 2 cos) / 3 of angles a third of a turn apart.
        cosines = kept((torch.deg2rad(self.hue)[:, None] + constant(_THIRDS, dtype, device)).cos())
        colors = _saturated((1 + 2 * cosines) / 3, self.saturation)
        return (gains * (clear * steep)[:, None])[..., None] * colors, offset


@dataclass(frozen=True)
class Tone:
    """A colour change, ready to apply: ``gain(x, y) * (matrix @ rgb + offset)``.

    Attributes:
        matrix: (b, 3, 3); factors, from RGB to RGB.
        offset: (b, 3); added to RGB in [0, 1].
        slope: (b, 2); illumination plane: relative gain per half canvas, along x and y; None: even light.
    """

    matrix: Float[Tensor, "b 3 3"]
    offset: Float[Tensor, "b 3"]
    slope: Float[Tensor, "b 2"] | None


def tones(colors: Sequence[Color]) -> list[Tone]:
    """The tones of several colours of as many samples, folded together: a GPU starts no more kernels than for one."""
    if fusing():  # a compiler fuses them as they are
        return [color.tone() for color in colors]
    even = joined([replace(color, illumination=None, light_from=None) for color in colors]).tone()
    count = len(even.offset) // len(colors)
    parts = cut(even, [count * n for n in range(1, len(colors))])
    return [replace(part, slope=color.slope()) for part, color in zip(parts, colors, strict=True)]


@dataclass(frozen=True, kw_only=True)
class ColorRange:
    """Uniform ranges of colour and light. The defaults change no more than a cloudy day would.

    Attributes:
        brightness: factor on all light.
        exposure: stops, a factor of 2 to this power.
        contrast: factor around mid-grey.
        saturation: factor around the pixel's grey.
        hue: degrees, around the grey axis.
        tint: relative change of each channel's gain: coloured light.
        veil: share of flat light laid over everything: haze, glare, washed-out film.
        illumination: relative gain from the canvas's centre to its edge.
        invert: probability of inverted colours.
    """

    brightness: tuple[float, float] = (0.8, 1.2)
    exposure: tuple[float, float] = (0.0, 0.0)
    contrast: tuple[float, float] = (0.8, 1.2)
    saturation: tuple[float, float] = (0.8, 1.2)
    hue: tuple[float, float] = (-9.0, 9.0)
    tint: tuple[float, float] = (0.0, 0.0)
    veil: tuple[float, float] = (0.0, 0.0)
    illumination: tuple[float, float] = (0.0, 0.0)
    invert: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("brightness", 0, 10), ("exposure", -10, 5), ("contrast", 0, 10), ("saturation", 0, 10),
            ("hue", -180, 180), ("tint", -1, 1), ("veil", 0, 1), ("illumination", -1, 1),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)
        check_number("invert", self.invert, 0, 1)

    def sample(
        self, draws: Draws | Int[Tensor, " b"], strength: Float[Tensor, " b"] | None = None, *, layer: str = "color"
    ) -> Color:
        """Draw one colour change per key.

        Args:
            draws: keys of the samples, or the numbers to draw from.
            strength: per sample in [0, 1]; scales each drawn value from neutral (0) to full (1); ``invert`` is a choice
                and does not scale. Default 1.
            layer: name of the picture layer, so that layers draw independently.
        """
        numbers = drawn(draws)
        s = full_strength(numbers.keys) if strength is None else strength
        return self.read(numbers.of(self.draws(layer), s), layer)

    def draws(self, layer: str = "color") -> tuple[Draw, ...]:
        """What a colour change is read from."""
        factors = [Number(f"{layer}.{name}", getattr(self, name), rest=1.0)
                   for name in ("brightness", "contrast", "saturation")]  # fmt: skip
        amounts = [Number(f"{layer}.{name}", getattr(self, name), rest=0.0)
                   for name in ("exposure", "hue", "veil")]  # fmt: skip
        if any(self.illumination):
            amounts += [Number(f"{layer}.illumination", self.illumination, rest=0.0), Number(f"{layer}.light_from")]
        tints = [Number(f"{layer}.tint{channel}", self.tint, rest=0.0) for channel in range(3)]
        level = Number(f"{layer}.veil_level", (0.5, 1.0))
        return *tints, *factors, *amounts, level, Choice(f"{layer}.invert", self.invert)

    def read(self, values: Mapping[str, Tensor], layer: str = "color") -> Color:
        """The colour change that values of :meth:`draws` give."""
        names = ("brightness", "exposure", "contrast", "saturation", "hue", "veil", "veil_level")
        fields = {name: values[f"{layer}.{name}"] for name in names}
        tint = torch.stack([values[f"{layer}.tint{channel}"] for channel in range(3)], dim=1)
        plane = values.get(f"{layer}.illumination"), values.get(f"{layer}.light_from")
        return Color(
            **fields, tint=tint, illumination=plane[0], light_from=plane[1], inverted=values[f"{layer}.invert"]
        )


def _power_of_two(stops: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    # Not torch.exp2: on a CPU it rounds differently at the end of a vector, so results depend on the place in a batch.
    return torch.exp(math.log(2) * stops)


def _saturated(turned: Float[Tensor, "b 3"], saturation: Float[Tensor, " b"]) -> Float[Tensor, "b 3 3"]:
    """The colour matrix of a turn around the grey axis, then a scale of the difference from the new colour's luma.

    Args:
        turned: shares of red, green and blue that red takes from itself, green and blue, in turn.
        saturation: the scale.
    """
    rotation = turned[:, constant(_CIRCULANT, torch.int64, turned.device)].unflatten(1, (3, 3))
    luma = (constant(LUMA, turned.dtype, turned.device)[:, None] * rotation).sum(dim=1, keepdim=True)
    colors: Tensor = luma + saturation[:, None, None] * (rotation - luma)
    return colors


def planes_of(picture: Picture) -> list[Float[Tensor, "b h w"]]:
    """Its channels, one by one."""
    return [plane for part in picture for plane in part.unbind(1)]


def whole(picture: Picture) -> Shaped[Tensor, "b 3 h w"]:
    """All channels as one tensor."""
    return picture[0] if len(picture) == 1 else torch.stack(planes_of(picture), dim=1)


def light(
    planes: Sequence[Float[Tensor, "b h w"]],
    tone: Tone,
    cover: Float[Tensor, "b h w"] | None = None,
    gain: Float[Tensor, "b h w"] | None = None,
) -> Picture:
    """Apply colour and light to red, green and blue of an opaque picture, or of a premultiplied layer with its alpha.

    Linear and not clamped: lighting each layer and then compositing equals lighting the composite.

    Args:
        planes: red, green and blue.
        tone: what to apply.
        cover: alpha of a layer; None: opaque.
        gain: the tone's :func:`illumination`, if it was computed before.
    """
    return _per_channel(_lit, planes, tone, cover, gain)


def recolor(
    planes: Sequence[Float[Tensor, "b h w"]], tone: Tone, alpha: Float[Tensor, "b h w"] | None = None,
    gain: Float[Tensor, "b h w"] | None = None,
) -> Picture:  # fmt: skip
    """Change a picture's or premultiplied layer's own colours: like :func:`light`, but in [0, 1], at most ``alpha``."""
    return _per_channel(_recolored, planes, tone, alpha, gain)


def _per_channel(
    function: Callable[..., Tensor], planes: Sequence[Float[Tensor, "b h w"]], tone: Tone,
    cover: Float[Tensor, "b h w"] | None, gain: Float[Tensor, "b h w"] | None = None,
) -> Picture:  # fmt: skip
    """What a function makes of a tone and red, green and blue: as one tensor, or one for each channel."""
    offset, matrix = kept(tone.offset), kept(tone.matrix)
    if gain is None:
        gain = illumination(tone.slope, (planes[0].shape[1], planes[0].shape[2]))
    return tuple(function(*planes, offset[:, own], matrix[:, own], cover, gain) for own in channels(planes[0]))


_PLANES = "Tensor red, Tensor green, Tensor blue"
_COLORED = f"({_PLANES}, Tensor offset, Tensor matrix, Tensor? cover, Tensor? gain) -> Tensor"


@one_operation(f"lit{_COLORED}")
def _lit(
    red: Float[Tensor, "b h w"], green: Float[Tensor, "b h w"], blue: Float[Tensor, "b h w"],
    offset: Float[Tensor, "b c"], matrix: Float[Tensor, "b c 3"],
    cover: Float[Tensor, "b h w"] | None, gain: Float[Tensor, "b h w"] | None,
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    offset, factors = offset[..., None, None], matrix[..., None, None].unbind(2)
    lit = torch.addcmul(offset if cover is None else offset * cover[:, None], factors[0], red[:, None])
    lit.addcmul_(factors[1], green[:, None]).addcmul_(factors[2], blue[:, None])
    return lit if gain is None else lit.mul_(gain[:, None])


@one_operation(f"recolored{_COLORED}")
def _recolored(
    red: Float[Tensor, "b h w"], green: Float[Tensor, "b h w"], blue: Float[Tensor, "b h w"],
    offset: Float[Tensor, "b c"], matrix: Float[Tensor, "b c 3"],
    cover: Float[Tensor, "b h w"] | None, gain: Float[Tensor, "b h w"] | None,
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    lit: Tensor = _lit(red, green, blue, offset, matrix, cover, gain)
    return lit.clamp_(0, 1) if cover is None else torch.minimum(lit.clamp_(min=0), cover[:, None])


def illumination(
    slope: Float[Tensor, "b 2"] | None, size: tuple[int, int], at: Tiles | None = None
) -> Float[Tensor, "b h w"] | None:
    """A plane of gains: 1 at the canvas's centre, ``1 + slope`` at its edges, never below 0; None for even light.

    ``at`` are the parts of the canvas that are asked for; None: all of it.
    """
    if slope is None:
        return None
    y, x = (spread(1 / n - 1, 1 - 1 / n, n, slope.device) for n in size)
    x, y = (x, y[:, None]) if at is None else at.along(x, y)
    across, down = kept(slope)[..., None, None].unbind(1)
    return (1 + across * x + down * y).clamp_(min=0)
