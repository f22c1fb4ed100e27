"""``Draws``: the numbers that samples are drawn from, as values that can be inspected and moved.

A range declares what it draws as a list of :class:`Number`, :class:`Numbers`, :class:`Choice` and :class:`Normals`.
Those of a whole scene are hashed as one matrix with a row for each number, and mapped to their units together.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.checks import fail
from kornia_cag.core.compiling import kept
from kornia_cag.core.randomness import Slots, box_muller, chance, fold_in, normals, slots, uniforms, unit, units

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", tuple(self.bounds))  # ranges may be given as lists, which have no hash


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
Asked = tuple[tuple[Place, tuple[Draw, ...]], ...]  # what to draw in each layer and group, each slot once


@dataclass(frozen=True, eq=False)
class Plan:
    """What is drawn, in which order, and its ranges as constants on a device: made once, by :func:`plan`.

    Attributes:
        singles: draws of one number a sample: first those of a uniform logarithm, then the other Numbers, then Choices.
        several: draws of several.
        counts: how many uniform numbers each of these takes.
        slots: what is hashed for them.
        layers: how many layers they are drawn in, counted from 0.
        logs: how many of the first are logarithms.
        numbers: how many of the first are Numbers.
        low: (n, 1); lowest values of Numbers.
        width: (n, 1); their highest values, less the lowest.
        rest: (n, 1); their values at strength 0.
        moves: (n, 1); whether strength reaches them.
        p: (m, 1); probabilities of Choices.
    """

    singles: tuple[tuple[Place, Number | Choice], ...]
    several: tuple[tuple[Place, Numbers | Normals], ...]
    counts: tuple[int, ...]
    slots: Slots
    layers: int
    logs: int
    numbers: int
    low: Float[Tensor, "n 1"]
    width: Float[Tensor, "n 1"]
    rest: Float[Tensor, "n 1"]
    moves: Bool[Tensor, "n 1"]
    p: Float[Tensor, "m 1"]


@functools.cache  # none is ever given up: a captured graph goes on reading its constants
def plan(asked: Asked, device: torch.device) -> Plan:
    """The plan of what is asked for, on a device."""
    pairs = [(place, draw) for place, draws in asked for draw in draws]
    listed = [(place, draw) for place, draw in pairs if isinstance(draw, Number)]
    logs = [pair for pair in listed if pair[1].log]
    numbers = [*logs, *(pair for pair in listed if not pair[1].log)]
    choices = [(place, draw) for place, draw in pairs if isinstance(draw, Choice)]
    several = [(place, draw) for place, draw in pairs if isinstance(draw, Numbers | Normals)]
    # Normal numbers are made in pairs.
    counts = [draw.count + draw.count % 2 if isinstance(draw, Normals) else draw.count for _, draw in several]

    def column(values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)[:, None]

    def scale(draw: Number, value: float) -> float:
        return math.log(value) if draw.log else value

    ends = [(scale(draw, draw.bounds[0]), scale(draw, draw.bounds[1])) for _, draw in numbers]
    rests = [0.0 if draw.rest is None else scale(draw, draw.rest) for _, draw in numbers]
    with torch.inference_mode(False):
        singles = [(place[0], draw.slot) for place, draw in numbers]
        singles += [(place[0], draw.slot) for place, draw in choices]
        more = [(place[0], draw.slot, count) for (place, draw), count in zip(several, counts, strict=True)]
        return Plan(
            (*numbers, *choices), tuple(several), tuple(counts), slots(singles, more, device),
            1 + max([layer for (layer, _), _ in pairs], default=0), len(logs), len(numbers),
            column([low for low, _ in ends]), column([high - low for low, high in ends]), column(rests),
            column([draw.rest is not None for _, draw in numbers], torch.bool),
            column([0.0 if draw.p is None else draw.p for _, draw in choices]),
        )  # fmt: skip


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
        self._lowest = keys  # those of layer 0
        self.numbers: dict[Slot, Tensor] = {} if numbers is None else dict(numbers)
        self._layer, self._group = 0, ""

    def group(self, name: str) -> "Draws":
        """The same draws; numbers drawn here belong to this group."""
        return self._part(self.keys, self._layer, name)

    def layer(self, number: int) -> "Draws":
        """The draws of a layer, independent of other layers; layer 0 uses the samples' own keys.

        Args:
            number: of the layer, from 0, whichever layer these draws are of.
        """
        keys = fold_in(self._lowest, number) if number else self._lowest
        return self._part(keys, number, self._group)

    def _part(self, keys: Int[Tensor, " b"], layer: int, group: str) -> "Draws":
        part = Draws(keys)
        part._lowest, part.numbers, part._layer, part._group = self._lowest, self.numbers, layer, group
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
        place = 0, self._group
        return self.values(plan(((place, tuple(draws)),), self.keys.device), strength)[place]

    def values(self, plan: Plan, strength: Float[Tensor, " b"]) -> dict[Place, dict[str, Tensor]]:
        """The values of draws in several layers and groups: hashed as one matrix, mapped to their units as one.

        Args:
            plan: what to draw in each layer, counted from this one, and group.
            strength: how far values move from their ``rest``, per sample in [0, 1].

        Returns:
            By layer and group, then by slot: (b,) for a Number or Choice, (b, count) for Numbers and Normals.
        """
        matrix, blocks = self._hashed(plan)
        drawn = plan.low + plan.width * matrix[: plan.numbers]
        scaled = kept(plan.rest + torch.where(plan.moves, strength, 1.0) * (drawn - plan.rest))
        found = [*scaled[: plan.logs].exp().unbind(), *scaled[plan.logs :].unbind()]
        chances = matrix[plan.numbers :]
        choices = zip(plan.singles[plan.numbers :], chances.unbind(), (chances < plan.p).unbind(), strict=True)
        found += [number if cast(Choice, draw).p is None else yes for (_, draw), number, yes in choices]
        for block, (_, several) in zip(blocks, plan.several, strict=True):
            found.append(box_muller(block)[:, : several.count] if isinstance(several, Normals) else block)
        result: dict[Place, dict[str, Tensor]] = {}
        for (place, draw), value in zip([*plan.singles, *plan.several], found, strict=True):
            result.setdefault(place, {})[draw.slot] = value
        return result

    def _hashed(self, plan: Plan) -> tuple[Float[Tensor, "n b"], list[Float[Tensor, "b _"]]]:
        """Numbers in [0, 1): a row for each draw of one, (b, n) for each draw of several; known ones as they are."""
        matrix, more = units(self._keys(plan.layers), plan.slots)
        places = [self._place(place, draw) for place, draw in plan.singles[: plan.numbers]]
        if any(place in self.numbers for place in places):
            rows = matrix.unbind()
            known = [self.numbers.get(place, row) for place, row in zip(places, rows, strict=False)]
            matrix = torch.stack([*known, *rows[len(known) :]])
        matrix = kept(matrix)
        for place, row in zip(places, matrix.unbind(), strict=False):
            self.numbers.setdefault(place, row)
        blocks = [block.T for block in more.split(plan.counts)] if plan.counts else []
        for number, (where, several) in enumerate(plan.several):
            if isinstance(several, Numbers):
                blocks[number] = self.numbers.setdefault(self._place(where, several), blocks[number])
        return matrix, blocks

    def _keys(self, layers: int) -> Int[Tensor, "layers b"]:
        """Keys of this layer and of those after it, by one hash."""
        own = self.keys[None]
        if layers == 1:
            return own
        above = torch.arange(self._layer + 1, self._layer + layers, device=own.device)[:, None]
        lowest = self._lowest.expand(layers - 1, -1)
        return torch.cat([own, fold_in(lowest, above.expand_as(lowest))])

    def _place(self, place: Place, draw: Draw) -> Slot:
        """Under what name a plan's draw is kept: its layers are counted from this one."""
        return self._layer + place[0], place[1], draw.slot


def drawn(source: Draws | Int[Tensor, " b"]) -> Draws:
    """Draws as given, or the draws of keys."""
    return source if isinstance(source, Draws) else Draws(source)
