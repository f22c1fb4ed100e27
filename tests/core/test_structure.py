"""Classes are data by their types alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pytest

from kornia_cag import InputError
from kornia_cag.core.structure import Structure


class Shape(Protocol):
    """What shapes are."""


@dataclass(frozen=True)
class Disc:
    """Round.

    Attributes:
        radius: pixels.
    """

    radius: float = 1.0

    def __post_init__(self):
        if self.radius < 0:
            raise InputError(f"radius: expected at least 0, got {self.radius}.", "radius")


@dataclass(frozen=True)
class Box:
    sides: tuple[int, int]


Measure = Callable[[float], float]


@dataclass(frozen=True)
class Whole:
    shape: Shape
    more: tuple[Shape, ...] = ()
    disc: Disc = field(default_factory=Disc)
    maybe: Disc | None = None
    measure: Measure = abs
    amount: float | Disc = 1.0
    word: Literal["a", "b"] = "a"
    flag: bool = False
    count: int = 0
    pair: tuple[float, float] = (0.0, 1.0)


KNOWN = Structure({Shape: (Disc, Box)}, {Measure: {"abs": abs, "round": round}})


def read(data):
    return KNOWN.read(data, Whole, lambda path: path)


def test_what_is_written_is_read():
    whole = Whole(Box((1, 2)), (Disc(), Box((3, 4))), Disc(2), Disc(3), round, Disc(4), "b", True, 7, (0, 0.5))
    data = KNOWN.write(whole)
    assert data["shape"] == {"type": "Box", "sides": [1, 2]}
    assert (data["measure"], data["amount"], data["maybe"]) == ("round", {"type": "Disc", "radius": 4}, {"radius": 3})
    assert read(data) == whole
    assert read(KNOWN.write(Whole(Disc()))) == Whole(Disc())
    assert read({"shape": "Disc"}) == Whole(Disc())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": None}, "shape: expected one of Disc, Box, got nothing."),
        ({"shape": {}}, "shape.type: expected one of Disc, Box, got nothing."),
        ({"shape": {"type": "Dics"}}, "shape.type: expected one of Disc, Box, got 'Dics'. Did you mean Disc?"),
        ({"shape": {"type": "Box"}}, "shape.sides: expected a list of 2 integers, got nothing."),
        ({"shape": {"type": "Disc", "radius": -1}}, "shape.radius: expected at least 0, got -1. Its meaning: pixels."),
        (
            {"disc": {"radus": 1}},
            "disc.radus: expected the name of a field, got another one. Did you mean disc.radius?",
        ),
        ({"disc": {"zzz": 1}}, "disc.zzz: expected one of radius, got another name."),
        ({"disc": None}, "disc: expected the fields of Disc, got nothing."),
        ({"disc": [1]}, "disc: expected the fields of Disc, got [1]."),
        ({"maybe": 3}, "maybe: expected the fields of Disc or null, got 3."),
        ({"measure": "os.kill"}, "measure: expected one of abs, round, got 'os.kill'."),
        ({"amount": "much"}, "amount: expected a number or the fields of Disc, got 'much'."),
        ({"word": "c"}, "word: expected one of a, b, got 'c'."),
        ({"flag": 1}, "flag: expected true or false, got 1."),
        ({"count": True}, "count: expected an integer, got True."),
        ({"pair": [1]}, "pair: expected a pair [low, high] of numbers, got [1]."),
        ({"more": [3]}, "more: expected one of Disc, Box, got 3."),
        ({3: 4}, "3: expected one of shape, more, "),
        ({"x" * 10_000: 4}, "xxx"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    with pytest.raises(InputError) as caught:
        read({"shape": "Disc", **change})
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize("whole", [Whole(3), Whole(Disc(), measure=len), Whole(Disc(), maybe=Box((1, 2)))])
def test_what_data_cannot_say_is_not_written(whole):
    with pytest.raises(InputError, match="expected "):
        KNOWN.write(whole)
