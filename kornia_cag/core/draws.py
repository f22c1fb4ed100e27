"""``Draws``: the numbers that samples are drawn from, as values that can be inspected and moved.

A range declares what it draws as a list of :class:`Number`, :class:`Numbers`, :class:`Choice` and :class:`Normals`.
Those of a whole scene are hashed as one matrix ``(b, slots)``, and mapped to their units as one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.checks import fail
from kornia_cag.core.compiling import constant, kept
from kornia_cag.core.randomness import bell, chance, fold_in, normals, uniforms, unit, units

Slot = tuple[int, str, str]  # layer, group, name of the draw
Place = tuple[int, str]  # layer, group


@dataclass(frozen=True)
class Number:
    """One number a sample, uniform between two bounds.

    Attributes:
        slot: name of the draw.
        bounds: lowest and highest value.
        rest: its value at strength 0; None: strength does not reach it.
        log: whether its logarithm is uniform instead, and scaled by strength; bounds and ``rest`` are then above 0.
    """

    slot: str
    bounds: tuple[float, float] = (0.0, 1.0)
    rest: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Numbers:
    """``count`` numbers a sample, uniform in ``[0, 1)``; strength does not reach them."""

    slot: str
    count: int


@dataclass(frozen=True)
class Choice:
    """A yes or no a sample, which no adversary moves: yes with probability ``p``.

    Without a ``p`` it is the number in ``[0, 1)`` itself, for a probability that is known later: yes if it is below.
    """

    slot: str
    p: float | None = None


@dataclass(frozen=True)
class Normals:
    """``count`` standard normal numbers a sample; they have no range, so no adversary moves them."""

    slot: str
    count: int


Draw = Number | Numbers | Choice | Normals
Single = tuple[Place, Number | Choice]
Several = tuple[Place, Numbers | Normals]


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

    def of(self, draws: Sequence[Draw], strength: Float[Tensor, " b"]) -> dict[str, Tensor]:
        """The values of draws in this layer and group, by slot; see :meth:`values`."""
        return self.values({(0, self._group): draws}, strength)[0, self._group]

    def values(
        self, asked: Mapping[Place, Sequence[Draw]], strength: Float[Tensor, " b"]
    ) -> dict[Place, dict[str, Tensor]]:
        """The values of draws in several layers and groups: hashed as one matrix, mapped to their units as one.

        Args:
            asked: what to draw in each layer, counted from this one, and group; each slot once.
            strength: how far values move from their ``rest``, per sample in [0, 1].

        Returns:
            By layer and group, then by slot: (b,) for a Number or Choice, (b, count) for Numbers and Normals.
        """
        pairs = [(place, draw) for place, draws in asked.items() for draw in draws]
        logs: list[Single] = [(p, d) for p, d in pairs if isinstance(d, Number) and d.log]
        numbers: list[Single] = [*logs, *((p, d) for p, d in pairs if isinstance(d, Number) and not d.log)]
        choices: list[Single] = [(p, d) for p, d in pairs if isinstance(d, Choice)]
        several: list[Several] = [(p, d) for p, d in pairs if isinstance(d, Numbers | Normals)]
        matrix, blocks = self._hashed([*numbers, *choices], several)
        scaled = _scaled(matrix[: len(numbers)], [cast(Number, draw) for _, draw in numbers], strength)
        found = [*(scaled[: len(logs)].exp().unbind() if logs else ()), *scaled[len(logs) :].unbind()]
        found += _chosen(matrix[len(numbers) :], [cast(Choice, draw) for _, draw in choices])
        for block, (_, more) in zip(blocks, several, strict=True):
            found.append(bell(block)[:, : more.count] if isinstance(more, Normals) else block)
        result: dict[Place, dict[str, Tensor]] = {place: {} for place in asked}
        for (place, draw), value in zip([*numbers, *choices, *several], found, strict=True):
            result[place][draw.slot] = value
        return result

    def _hashed(self, singles: list[Single], several: list[Several]) -> tuple[Float[Tensor, "n b"], list[Tensor]]:
        """Numbers in [0, 1): a row for each single one, (b, n) for each of the others; known ones as they are."""
        layers = len({0, *[place[0] for place, _ in [*singles, *several]]})
        keys = torch.stack([self.layer(number).keys for number in range(layers)])
        counts = [d.count + d.count % 2 if isinstance(d, Normals) else d.count for _, d in several]
        matrix, blocks = units(
            keys,
            [(place[0], draw.slot) for place, draw in singles],
            [(place[0], draw.slot, count) for (place, draw), count in zip(several, counts, strict=True)],
        )
        slots = {n: self._slot(*pair) for n, pair in enumerate(singles) if isinstance(pair[1], Number)}
        if any(slot in self.numbers for slot in slots.values()):
            rows = [self.numbers.get(slots[n], row) if n in slots else row for n, row in enumerate(matrix.unbind())]
            matrix = torch.stack(rows)
        for row, slot in zip(matrix.unbind(), slots.values(), strict=False):  # choices come last
            self.numbers.setdefault(slot, row)
        for n, pair in enumerate(several):
            if isinstance(pair[1], Numbers):
                blocks[n] = self.numbers.setdefault(self._slot(*pair), blocks[n])
        return matrix, blocks

    def _slot(self, place: Place, draw: Draw) -> Slot:
        return self._layer + place[0], place[1], draw.slot


def _scaled(units: Float[Tensor, "n b"], draws: list[Number], strength: Float[Tensor, " b"]) -> Float[Tensor, "n b"]:
    """Numbers in [0, 1) mapped to their ranges, or to the logarithms of these, and scaled by the strength."""
    ends = [(math.log(d.bounds[0]), math.log(d.bounds[1])) if d.log else d.bounds for d in draws]
    device = units.device
    low = constant(tuple(low for low, _ in ends), torch.float32, device)[:, None]
    width = constant(tuple(high - low for low, high in ends), torch.float32, device)[:, None]
    drawn = low + width * units
    if all(d.rest is None for d in draws):
        return kept(drawn)
    rests = (0.0 if d.rest is None else math.log(d.rest) if d.log else d.rest for d in draws)
    rest = constant(tuple(rests), torch.float32, device)[:, None]
    moves = constant(tuple(d.rest is not None for d in draws), torch.bool, device)[:, None]
    return kept(rest + torch.where(moves, strength, 1.0) * (drawn - rest))


def _chosen(units: Float[Tensor, "n b"], draws: list[Choice]) -> list[Tensor]:
    """Whether each number is below its probability; or the number, where no probability is given."""
    if not draws:
        return []
    p = constant(tuple(0.0 if d.p is None else d.p for d in draws), torch.float32, units.device)[:, None]
    return [u if d.p is None else yes for u, yes, d in zip(units.unbind(), (units < p).unbind(), draws, strict=True)]


def drawn(source: Draws | Int[Tensor, " b"]) -> Draws:
    """Draws as given, or the draws of keys."""
    return source if isinstance(source, Draws) else Draws(source)
