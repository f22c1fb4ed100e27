"""Contexts without photographs: solid colours, gradients, smooth noise, pixel noise, stripes and checks.

Image ``i`` is a pure function of ``(kind, seed, i, size)``: a larger count extends a smaller one, and only one chunk is
in memory. All kinds draw colours in the same way: hue uniform, saturation and value heavy at both ends, so that greys
and full colours, near black and near white are all common.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from kornia_cag.core.checks import check_choice, check_int
from kornia_cag.core.randomness import sample_keys, uniform, uniforms

KINDS = ("solid", "gradient", "noise", "pixel", "stripes")
CHUNK = 2**20  # pixels rendered at once: about 100 MiB of working memory
OCTAVES = 5  # of smooth noise: lattices of 2, 4, ... 32 cells per side


def render(
    kind: str, count: int, size: int, seed: int, device: torch.device | str = "cpu"
) -> UInt8[Tensor, "count 3 size size"]:
    """Render square pictures of one kind, or of all kinds in turn.

    Args:
        kind: ``"solid"``, ``"gradient"`` (linear, radial), ``"noise"`` (smooth, several octaves), ``"pixel"`` (noise
            independent per pixel), ``"stripes"`` (stripes, checks, plaids), or ``"mix"``: picture ``i`` is the
            ``i``-th of kind ``KINDS[i % 5]``.
        count: number of pictures.
        size: side, in pixels.
        seed: below 2^62.
        device: device to render on, which also holds the result.

    Raises:
        InputError: for an unknown kind, or a number out of range.
    """
    check_choice("kind", kind, (*KINDS, "mix"))
    check_int("count", count)
    check_int("size", size)
    check_int("seed", seed, low=0, high=2**62 - 1)
    images = torch.empty(count, 3, size, size, dtype=torch.uint8, device=device)
    kinds = KINDS if kind == "mix" else (kind,)
    for place, name in enumerate(kinds[:count]):
        _fill(images[place :: len(kinds)], name, torch.arange(place, count, len(kinds), device=device), seed)
    return images


def _fill(images: UInt8[Tensor, "n 3 s s"], kind: str, index: Int[Tensor, " n"], seed: int) -> None:
    """Render into ``images`` chunk by chunk."""
    painters: dict[str, Callable[[Tensor, int], Tensor]] = {
        "solid": _solid,
        "gradient": _gradient,
        "noise": _noise,
        "pixel": _pixel,
        "stripes": _stripes,
    }
    size = images.shape[-1]
    step = max(CHUNK // max(size, 2**OCTAVES) ** 2, 1)  # the finest lattice of noise counts as well
    keys = sample_keys(torch.full_like(index, seed), torch.zeros_like(index), index)
    for start in range(0, len(keys), step):
        rgb = painters[kind](keys[start : start + step], size)
        images[start : start + step] = (rgb.clamp(0, 1) * 255).round().to(torch.uint8)


def _colours(keys: Int[Tensor, " b"], slot: str, count: int) -> Float[Tensor, "b n 3 1 1"]:
    """Draw colours of every kind (HSV to RGB: Smith, 1978)."""
    hue, saturation, value = uniforms(keys, slot, 3 * count).view(-1, 3, count, 1).unbind(1)
    # In HSV any colour with a low value is black: the power makes it rarer.
    saturation, value = (0.5 - 0.5 * torch.cos(math.pi * u) for u in (saturation, value**0.7))
    k = (torch.tensor([5.0, 3.0, 1.0], dtype=torch.float32, device=keys.device) + 6 * hue) % 6
    rgb = value * (1 - saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return rgb[..., None, None]


def _coordinates(size: int, device: torch.device) -> tuple[Float[Tensor, "1 s"], Float[Tensor, "s 1"]]:
    """Coordinates of the pixel centres. Convention: x and y from -0.5 to 0.5 over the picture."""
    line = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) / size - 0.5
    return line[None, :], line[:, None]


def _ramp(t: Float[Tensor, "b 1 s s"], stops: Float[Tensor, "b 3 3 1 1"]) -> Float[Tensor, "b 3 s s"]:
    """Interpolate from the first colour through the second to the third as ``t`` goes from 0 to 1."""
    first, middle, last = stops.unbind(1)
    t = 2 * t.clamp(0, 1)
    return first + (middle - first) * t.clamp(max=1) + (last - middle) * (t - 1).clamp(min=0)


def _per_image(value: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1"]:
    return value[:, None, None, None]


def _log_uniform(keys: Int[Tensor, " b"], slot: str, low: float, high: float) -> Float[Tensor, "b 1 1 1"]:
    return _per_image(torch.exp(uniform(keys, slot, math.log(low), math.log(high))))


def _solid(keys: Int[Tensor, " b"], size: int) -> Float[Tensor, "b 3 s s"]:
    return _colours(keys, "solid", 1)[:, 0].expand(-1, -1, size, size)


def _gradient(keys: Int[Tensor, " b"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Three colours along a line or away from a point, from almost uniform to a soft edge."""
    x, y = _coordinates(size, keys.device)
    angle = _per_image(uniform(keys, "gradient.angle", 0.0, 2 * math.pi))
    cos, sin = torch.cos(angle), torch.sin(angle)
    linear = 0.5 + (x * cos + y * sin) / (cos.abs() + sin.abs())
    centre_x, centre_y = (_per_image(u) for u in (uniforms(keys, "gradient.centre", 2) * 1.4 - 0.7).unbind(1))
    radial = torch.hypot(x - centre_x, y - centre_y)
    along = torch.where(_per_image(uniform(keys, "gradient.radial")) < 0.4, radial, linear)
    steepness = _log_uniform(keys, "gradient.steepness", 0.6, 4.0)
    middle = _per_image(uniform(keys, "gradient.middle", 0.2, 0.8))
    return _ramp((along - middle) * steepness + 0.5, _colours(keys, "gradient.stops", 3))


def _noise(keys: Int[Tensor, " b"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Value noise summed over octaves, as colours between three stops, freely coloured, or a mix of both.

    Source: Perlin, "An image synthesizer", 1985 (sums of octaves, turbulence); the lattice holds values, not gradients.
    """
    coarsest = _per_image(uniform(keys, "noise.coarsest", -1.0, 2.5))
    persistence = _per_image(uniform(keys, "noise.persistence", 0.3, 0.75))
    total = torch.zeros(len(keys), 3, size, size, dtype=torch.float32, device=keys.device)
    power = torch.zeros(len(keys), 1, 1, 1, dtype=torch.float32, device=keys.device)
    for octave in range(OCTAVES):
        side = 2 ** (octave + 1) + 1
        lattice = uniforms(keys, f"noise.{octave}", 3 * side * side).view(-1, 3, side, side) - 0.5
        # Octaves coarser than the drawn one fade in rather than switch.
        weight = (octave - coarsest).clamp(0, 1) * persistence ** (octave - coarsest).clamp(min=0)
        total += weight * interpolate(lattice, size=(size, size), mode="bicubic", align_corners=True)
        power += weight**2
    field = total / power.sqrt()  # standard deviation about 0.2
    ridged = _per_image(uniform(keys, "noise.ridged")) < 0.3
    field = torch.where(ridged, 2 * field.abs(), 0.5 + field * _log_uniform(keys, "noise.contrast", 0.7, 3.0))
    ramp = _ramp(field[:, :1], _colours(keys, "noise.stops", 3))
    free = field.clamp(0, 1) * (0.3 + 0.7 * _colours(keys, "noise.tint", 1)[:, 0])
    return torch.lerp(ramp, free, _per_image(uniform(keys, "noise.free", -0.8, 1.2)).clamp(0, 1))


def _pixel(keys: Int[Tensor, " b"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Every pixel drawn independently: between two colours or one of them, per channel or for all channels at once."""
    draw = uniforms(keys, "pixel", 3 * size * size).view(-1, 3, size, size)
    draw = torch.where(_per_image(uniform(keys, "pixel.together")) < 0.4, draw[:, :1], draw)
    share = _per_image(uniform(keys, "pixel.share", 0.03, 0.5))
    draw = torch.where(_per_image(uniform(keys, "pixel.ends")) < 0.3, (draw < share).float(), draw)
    first, second = _colours(keys, "pixel.colours", 2).unbind(1)
    return torch.lerp(first, second, draw)


def _stripes(keys: Int[Tensor, " b"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Stripes (two colours), checks (two) and plaids (four) at any angle, with hard or soft edges, antialiased."""
    x, y = _coordinates(size, keys.device)
    angle = _per_image(uniform(keys, "stripes.angle", 0.0, math.pi))
    cos, sin = torch.cos(angle), torch.sin(angle)
    soft = _per_image(uniform(keys, "stripes.soft", -2.0, 2.0)).clamp(min=0)
    waves = []
    for name, along in (("a", x * cos + y * sin), ("b", y * cos - x * sin)):
        cycles = _log_uniform(keys, f"stripes.cycles.{name}", 1.0, min(max(size / 4, 2.0), 32.0))
        phase = along * cycles + _per_image(uniform(keys, f"stripes.phase.{name}"))
        triangle = 4 * (phase - phase.floor() - 0.5).abs() - 1
        duty = _per_image(uniform(keys, f"stripes.duty.{name}", -0.6, 0.6))
        width = torch.maximum(soft, 4 * cycles / size)  # of the edge: at least the change over one pixel
        waves.append(((triangle - duty) / width + 0.5).clamp(0, 1))
    a, b = waves
    c00, c01, c10, c11 = _colours(keys, "stripes.colours", 4).unbind(1)
    layout = _per_image(uniform(keys, "stripes.layout"))
    stripes, checks = layout < 0.4, (layout >= 0.4) & (layout < 0.7)
    c10 = torch.where(stripes, c00, torch.where(checks, c01, c10))
    c11 = torch.where(stripes, c01, torch.where(checks, c00, c11))
    return torch.lerp(torch.lerp(c00, c01, a), torch.lerp(c10, c11, a), b)
