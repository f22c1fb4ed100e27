"""``OneOf``: a blend for each sample, drawn from several; and ``Chosen``, which pastes with them."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_int, check_number, describe, fail
from kornia_cag.core.compiling import channels, constant, kept
from kornia_cag.core.draws import Choice, Draw
from kornia_cag.scenes.blends import Blend, Plane
from kornia_cag.scenes.light import Picture, whole

Mask = Float[Tensor, "b h w"]


@dataclass(frozen=True, eq=False)  # told apart by identity: torch 2.12 hashes what it compiles calls of
class Chosen:
    """The blends of ``b`` objects, with the numbers that were drawn for them.

    Every one of them is computed for every sample, and each sample takes its own: nothing waits to know which are used.

    Attributes:
        which: (b,); place of each sample's blend among the parts; None: there is one part.
        parts: the blends.
    """

    which: Int[Tensor, " b"] | None
    parts: tuple[Blend, ...]

    @property
    def pastes(self) -> bool:
        """Whether any part pastes."""
        return any(part.pastes for part in self.parts)

    def softened(self, ink: Sequence[Mask], alpha: Mask) -> tuple[Mask, ...]:
        """Planes of premultiplied colour, and alpha, to paste with: where alpha shrinks, colour does in proportion."""
        stored = kept(alpha)
        parts = [part.softened(stored) for part in self.parts]
        if all(part is stored for part in parts):
            return *ink, alpha
        soft = kept(self._pick(parts))
        left = kept(soft / stored.clamp(min=1e-12))
        return *(plane * left for plane in ink), soft

    def cover(self, alpha: Mask) -> Mask | None:
        """Where light reaches the layer; None: everywhere."""
        if all(part.on_black for part in self.parts):
            return None
        if not any(part.on_black for part in self.parts):
            return alpha
        every = torch.ones_like(alpha)
        return self._pick([every if part.on_black else alpha for part in self.parts])

    def __call__(self, front: Picture, alpha: Mask, behind: Picture, threshold: Float[Tensor, " b"] | None) -> Picture:
        """Blend lit layers over pictures.

        Args:
            front: premultiplied colour.
            alpha: its alpha.
            behind: what is there already.
            threshold: alpha above which a pixel is the object's; needed only where a part pastes.
        """
        edge = threshold[:, None, None, None] if self.pastes and threshold is not None else 0.5
        if len(self.parts) > 1:  # or each part would compute the object and the context again
            front, behind = _stored(front), _stored(behind)
        made = [_blended(part, front, alpha[:, None], behind, edge) for part in self.parts]
        return tuple(self._pick(planes) for planes in zip(*made, strict=True))

    def mask(self, alpha: Mask, threshold: Float[Tensor, " b"]) -> Mask:
        """How much each pixel shows the object."""
        if not self.pastes:
            return alpha
        pasted = (alpha > threshold[:, None, None]).to(alpha.dtype)
        return self._pick([pasted if part.pastes else alpha for part in self.parts])

    def _pick(self, values: Sequence[Tensor]) -> Tensor:
        """Each sample's own among one tensor for each part."""
        first = values[0]
        if self.which is None:
            return first
        own = self.which.view(-1, *[1] * (first.ndim - 1))
        others = ((place, value) for place, value in enumerate(values) if value is not first)
        return functools.reduce(lambda found, other: torch.where(own == other[0], other[1], found), others, first)


def _blended(
    part: Blend, front: Picture, alpha: Float[Tensor, "b 1 h w"], behind: Picture, edge: float | Plane
) -> Picture:
    if not part.whole:
        return tuple(part(own, alpha, back, edge) for own, back in zip(front, behind, strict=True))
    return _stored((part(kept(whole(front)), alpha, kept(whole(behind)), edge),))


def _stored(picture: Picture) -> Picture:
    """A picture that is computed once and then read."""
    found = kept(whole(picture))
    return tuple(found[:, own] for own in channels(found))


@dataclass(frozen=True)
class OneOf(Blend):
    """One of several blends for each object of each sample, all in one batch.

    A network then cannot learn a blend's traces instead of the object: Dwibedi et al., "Cut, paste and learn", 2017.
    Every blend listed is computed for the whole batch.

    Attributes:
        blends: to choose from; not another OneOf.
        weights: relative probability of each; None: all equally likely.
        only: place of the one that all samples get, with the numbers that they would have drawn for it; None: drawn.
    """

    blends: tuple[Blend, ...]
    _: KW_ONLY
    weights: tuple[float, ...] | None = None
    only: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.blends, tuple | list) or not self.blends:
            fail("blends", "a tuple of blends", describe(self.blends), "Pass OneOf((Over(), Feather())).")
        object.__setattr__(self, "blends", tuple(self.blends))
        for blend in self.blends:
            if not isinstance(blend, Blend) or isinstance(blend, type | OneOf):
                fail("blends", "blends, none of them a OneOf", describe(blend), "Pass OneOf((Over(), Feather())).")
        if self.only is not None:
            check_int("only", self.only, 0, len(self.blends) - 1)
        if self.weights is None:
            return
        if not isinstance(self.weights, tuple | list) or len(self.weights) != len(self.blends):
            fail("weights", f"a number for each of {len(self.blends)} blends", describe(self.weights))
        object.__setattr__(self, "weights", tuple(check_number("weights", value, 0) for value in self.weights))
        if not sum(self.weights):
            fail("weights", "one above 0 at least", describe(self.weights))

    def draws(self, name: str = "blend") -> tuple[Draw, ...]:
        """Which one, and the numbers of all."""
        inner = [blend.draws(f"{name}{place}") for place, blend in enumerate(self.blends)]
        return Choice(f"{name}.which"), *itertools.chain(*inner)

    def read(self, values: Mapping[str, Tensor], name: str = "blend") -> Chosen:  # type: ignore[override]
        """The blends that values of :meth:`draws` give, and which one each sample gets."""
        parts = tuple(blend.read(values, f"{name}{place}") for place, blend in enumerate(self.blends))
        number = values[f"{name}.which"]
        if self.only is not None:
            return Chosen(torch.full_like(number, self.only, dtype=torch.int64), parts)
        weights = self.weights or (1.0,) * len(parts)
        ends = [end / sum(weights) for end in itertools.accumulate(weights)]
        passed = number[:, None] >= constant(tuple(ends[:-1]), number.dtype, number.device)
        return Chosen(kept(passed.sum(dim=1)), parts)

    def __call__(self, rgb: Plane, alpha: Plane, behind: Plane, edge: float | Plane = 0.5) -> Plane:
        """See :class:`Blend`; but which one is drawn with a scene, so only a composer can."""
        fail("blend", "a scene drawn from ranges with this OneOf", "none", "Call one of its blends instead.")


def chosen(blend: Blend, drawn: Blend | Chosen | None) -> Chosen:
    """How a layer is pasted.

    Args:
        blend: that of the ranges.
        drawn: the layer's own, with its numbers; None: it draws none.

    Raises:
        InputError: for a layer that was not drawn from ranges with this blend.
    """
    if not isinstance(blend, OneOf):
        return drawn if isinstance(drawn, Chosen) else Chosen(None, (blend if drawn is None else drawn,))
    if not isinstance(drawn, Chosen) or len(drawn.parts) != len(blend.blends):
        fail("scene.layers", "blends drawn from a OneOf", describe(drawn), "Draw the scene with ranges.sample(rows).")
    return drawn if blend.only is None else Chosen(None, (drawn.parts[blend.only],))
