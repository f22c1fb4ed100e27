"""Blends that soften an object's edge, by amounts drawn for each sample: ``Feather``, ``Eroded``, ``Smeared``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.checks import check_choice, check_range
from kornia_cag.core.draws import Draw, Number
from kornia_cag.scenes.blends import Over
from kornia_cag.scenes.soft import Falloff, eroded, feathered, smeared

MOST = 32.0  # pixels: the work grows with it


@dataclass(frozen=True)
class Edge(Over):
    """Drawn edges of ``b`` objects, which are then composited as by :class:`Over`.

    Attributes:
        pixels: (b,); by which the edge is moved inwards; None: it is not.
        width: (b,); pixels over which it fades inwards; None: it does not.
        length: (b,); pixels over which it is smeared; None: it is not.
        direction: (b,); of that motion, in turns, clockwise on screen: 0 is right, a quarter is down; None with length.
        kind: how it fades, ``"gaussian"`` or ``"box"``.
        most: pixels; what is above it counts as this much.
    """

    pixels: Float[Tensor, " b"] | None = None
    width: Float[Tensor, " b"] | None = None
    length: Float[Tensor, " b"] | None = None
    direction: Float[Tensor, " b"] | None = None
    kind: Falloff = "gaussian"
    most: float = MOST

    def softened(self, alpha: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """Move the edge inwards, let it fade, smear it."""
        if self.pixels is not None:
            alpha = eroded(alpha, self.pixels, most=self.most)
        if self.width is not None:
            alpha = feathered(alpha, self.width, self.kind, most=self.most)
        if self.length is not None and self.direction is not None:
            alpha = smeared(alpha, self.length, 2 * math.pi * self.direction, most=self.most)
        return alpha


@dataclass(frozen=True)
class Feather(Over):
    """An edge that fades inwards, as a mask that was drawn with a soft brush.

    Attributes:
        width: pixels over which it fades.
        kind: ``"gaussian"`` or ``"box"`` (linearly).
    """

    width: tuple[float, float] = (0.0, 2.0)
    kind: Falloff = "gaussian"

    def __post_init__(self) -> None:
        check_range("width", self.width, 0, MOST)
        check_choice("kind", self.kind, ("gaussian", "box"))

    def draws(self, name: str = "blend") -> tuple[Draw, ...]:
        """The width."""
        return (Number(f"{name}.width", self.width, rest=0.0),)

    def read(self, values: Mapping[str, Tensor], name: str = "blend") -> Edge:
        """The edge that values of :meth:`draws` give."""
        return Edge(width=values[f"{name}.width"], kind=self.kind, most=self.width[1])


@dataclass(frozen=True)
class Eroded(Over):
    """An edge moved inwards, as a mask that was cut too small.

    Attributes:
        pixels: how far it is moved, pixels.
    """

    pixels: tuple[float, float] = (0.0, 1.5)

    def __post_init__(self) -> None:
        check_range("pixels", self.pixels, 0, MOST)

    def draws(self, name: str = "blend") -> tuple[Draw, ...]:
        """The pixels."""
        return (Number(f"{name}.pixels", self.pixels, rest=0.0),)

    def read(self, values: Mapping[str, Tensor], name: str = "blend") -> Edge:
        """The edge that values of :meth:`draws` give."""
        return Edge(pixels=values[f"{name}.pixels"], most=self.pixels[1])


@dataclass(frozen=True)
class Smeared(Over):
    """An edge that fades inwards as that of a moving object, in any direction; the object itself stays sharp.

    Attributes:
        length: of the motion, pixels.
    """

    length: tuple[float, float] = (0.0, 3.0)

    def __post_init__(self) -> None:
        check_range("length", self.length, 0, MOST)

    def draws(self, name: str = "blend") -> tuple[Draw, ...]:
        """Length and direction."""
        return Number(f"{name}.length", self.length, rest=0.0), Number(f"{name}.direction", (0.0, 0.5))

    def read(self, values: Mapping[str, Tensor], name: str = "blend") -> Edge:
        """The edge that values of :meth:`draws` give."""
        length, direction = values[f"{name}.length"], values[f"{name}.direction"]
        return Edge(length=length, direction=direction, most=self.length[1])
