"""``Draws``: the numbers that samples are drawn from, as values that can be inspected and moved."""

from collections.abc import Mapping

from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.checks import fail
from kornia_cag.core.compiling import kept
from kornia_cag.core.randomness import chance, fold_in, normals, uniforms, unit

Slot = tuple[int, str, str]  # layer, group, name of the draw


class Draws:
    """Numbers in ``[0, 1)`` by slot: hashed from the keys of the samples on first use, then kept.

    Ranges map each number to their own units, so replacing it with any other number in ``[0, 1)`` stays in range: this
    is how an adversary moves a scene. Numbers belong to a *group* (``"pose"``), which says what an adversary may move.

    Args:
        keys: (b,); from :func:`kornia_cag.core.randomness.sample_keys`.
        numbers: to use instead of hashed ones, each (b,) or (b, n).

    Attributes:
        keys: (b,); keys of the samples in this layer.
        numbers: all numbers used so far, each (b,) or (b, n), in ``[0, 1)``.
    """

    def __init__(self, keys: Int[Tensor, " b"], numbers: Mapping[Slot, Tensor] | None = None) -> None:
        self.keys = keys
        self.numbers: dict[Slot, Tensor] = {} if numbers is None else dict(numbers)
        self._layer, self._group = 0, ""

    def group(self, name: str) -> "Draws":
        """The same draws; numbers drawn here belong to this group."""
        return self._part(self.keys, self._layer, name)

    def layer(self, number: int) -> "Draws":
        """The draws of a layer, independent of other layers; layer 0 uses the samples' own keys."""
        return self._part(fold_in(self.keys, number) if number else self.keys, number, self._group)

    def _part(self, keys: Int[Tensor, " b"], layer: int, group: str) -> "Draws":
        part = Draws(keys)
        part.numbers, part._layer, part._group = self.numbers, layer, group
        return part

    def uniform(self, slot: str, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " b"]:
        """One float32 per sample for what ``slot`` names, uniform in ``[low, high)``.

        Raises:
            InputError: for a slot of which several numbers a sample were drawn.
        """
        place = self._layer, self._group, slot
        if place not in self.numbers:
            self.numbers[place] = unit(self.keys, slot)
        if self.numbers[place].ndim != 1:
            fail("slot", f"{slot!r} to be drawn in one way", "one number a sample, and several", "Name them apart.")
        return kept(low + (high - low) * self.numbers[place])

    def uniforms(self, slot: str, count: int) -> Float[Tensor, "b n"]:
        """``count`` float32 per sample, uniform in ``[0, 1)``."""
        place = self._layer, self._group, slot
        if place not in self.numbers:
            self.numbers[place] = uniforms(self.keys, slot, count)
        return self.numbers[place]

    def chance(self, slot: str, p: float) -> Bool[Tensor, " b"]:
        """One bool per sample, True with probability ``p``: a choice, which adversaries do not move."""
        drawn: Tensor = chance(self.keys, slot, p)
        return drawn

    def normals(self, slot: str, count: int) -> Float[Tensor, "b n"]:
        """``count`` standard normal float32 per sample. They have no range, so adversaries do not move them."""
        return normals(self.keys, slot, count)


def drawn(source: Draws | Int[Tensor, " b"]) -> Draws:
    """Draws as given, or the draws of keys."""
    return source if isinstance(source, Draws) else Draws(source)
