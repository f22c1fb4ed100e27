"""Blending an object with its context: frozen callables for planes or whole pictures that broadcast."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.checks import check_int, check_number
from kornia_cag.core.draws import Draw
from kornia_cag.scenes.multiband import multiband
from kornia_cag.scenes.poisson import poisson

Plane = Float[Tensor, "*#b"]  # one channel of a picture, or all of them


@runtime_checkable
class Blend(Protocol):
    """How a layer is blended with what lies behind it. To write your own, derive a frozen dataclass with ``__call__``.

    One that draws numbers for each sample declares them in ``draws``, and ``read`` gives the blend that has them.

    Attributes:
        on_black: whether the layer is treated as an opaque picture of the object on black and lit all over; otherwise
            only the object is lit.
        pastes: whether each pixel belongs fully to the object (alpha above ``edge``) or not at all.
        whole: whether a pixel depends on others, so that it must be called with whole pictures.
    """

    on_black: ClassVar[bool] = False
    pastes: ClassVar[bool] = False
    whole: ClassVar[bool] = False

    def draws(self, name: str = "blend") -> tuple[Draw, ...]:
        """What is drawn for each object of each sample, by default nothing; ``name`` begins the names of the slots."""
        return ()

    def read(self, values: Mapping[str, Tensor], name: str = "blend") -> "Blend":
        """The blend with the values of :meth:`draws`: a frozen dataclass whose tensors are (b,)."""
        return self

    def softened(self, alpha: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """The alpha to paste with, nowhere more than the object's own, which is the default."""
        return alpha

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """Composite, whole pictures (b, 3, h, w) or one channel (b, h, w), in float arithmetic and differentiably.

        Args:
            rgb: the object's premultiplied colour.
            alpha: its alpha, in [0, 1].
            behind: what is there already.
            edge: alpha above which a pixel is the object's: of each sample where the blend ``pastes``, else 0.5.
        """
        ...


@dataclass(frozen=True)
class Over(Blend):
    """Composite premultiplied colour over an opaque one: ``rgb + (1 - alpha) * behind``.

    Stays in [0, 1] when ``rgb <= alpha``; nothing is clamped. Source: Porter and Duff, 1984.
    """

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """See :class:`Blend`."""
        return torch.addcmul(rgb, 1 - alpha, behind)


@dataclass(frozen=True)
class Hard(Blend):
    """Paste: a pixel shows the object where its alpha is above ``edge``, else the context. The paper's signs use it."""

    pastes: ClassVar[bool] = True

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """See :class:`Blend`."""
        return torch.where(alpha > edge, rgb / alpha.clamp(min=edge), behind)


@dataclass(frozen=True)
class Average(Blend):
    """Weighted mean of the object on black and the context: ``opacity * rgb + (1 - opacity) * behind``.

    A bright stroke shines through and over the context. The paper's digits use ``opacity=2 / 3``.

    Attributes:
        opacity: share of the object, in [0, 1].
    """

    opacity: float = 2 / 3
    on_black: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("opacity", self.opacity, 0, 1)

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """See :class:`Blend`."""
        return torch.lerp(behind, rgb, self.opacity)


@dataclass(frozen=True)
class Difference(Blend):
    """Absolute difference of premultiplied colour and context: white ink inverts what it covers.

    Stays in [0, 1] where both are. Differentiable except where the two are equal. MNIST-M was made this way from digits
    and photographs (Ganin et al., 2016).
    """

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """See :class:`Blend`."""
        return (behind - rgb).abs()


@dataclass(frozen=True)
class MultiBand(Blend):
    """Splice by Laplacian pyramids: fine detail ends at the object's edge, coarse colour fades over a wide one.

    For opaque objects: what is translucent fades. See :func:`kornia_cag.scenes.multiband.multiband`. Source: Burt and
    Adelson, 1983.

    Attributes:
        levels: how often the picture is halved, at least 1: colour fades over about ``2 ** levels`` pixels.
    """

    levels: int = 4
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_int("levels", self.levels, 1, 12)

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """See :class:`Blend`."""
        return multiband(rgb, alpha, behind, levels=self.levels)


@dataclass(frozen=True)
class Poisson(Blend):
    """Blend gradients: the object's detail on the context's colours. One of several at best: it loses colours.

    See :func:`kornia_cag.scenes.poisson.poisson`, also for what is solved. Source: Pérez et al., 2003.

    Attributes:
        mixed: whether stronger gradients of the context show through the object.
    """

    mixed: bool = False
    whole: ClassVar[bool] = True

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """See :class:`Blend`."""
        return poisson(rgb, alpha, behind, mixed=self.mixed)
