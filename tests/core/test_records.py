from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from kornia_cag.core.records import cut, joined, mapped, tensors


class Point(NamedTuple):
    x: Tensor
    name: str


@dataclass(frozen=True)
class Inner:
    left: Tensor
    right: Tensor | None
    count: int = 7


@dataclass(frozen=True)
class Outer:
    first: Inner
    many: tuple[Inner, ...]
    point: Point
    total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.first.left.sum()[None])


def record(b: int = 4, start: float = 0.0) -> Outer:
    row = torch.arange(b) + start
    return Outer(Inner(row, None), (Inner(row + 10, row[:, None] + 20), Inner(row + 30, None, 8)), Point(row + 40, "p"))


def test_tensors_come_in_the_order_of_fields():
    assert [float(tensor.flatten()[0]) for tensor in tensors(record())] == [0, 10, 20, 30, 40, 6]
    assert list(tensors(None)) == list(tensors((3, "a", ()))) == []
    alone = torch.ones(2)
    assert next(tensors(alone)) is alone


def test_mapped_changes_tensors_and_keeps_the_rest():
    made = mapped(lambda t: t * 2, record())
    assert isinstance(made, Outer)
    assert isinstance(made.point, Point)
    assert made.first.left.tolist() == [0, 2, 4, 6]
    assert made.many[0].right is not None
    assert made.many[0].right.shape == (4, 1)
    assert made.first.right is None
    assert (made.first.count, made.many[1].count, made.point.name) == (7, 8, "p")
    assert made.total.tolist() == [12]  # what a record makes itself, it makes anew
    assert mapped(lambda t: t * 2, None) is None


def test_mapped_takes_several_records_side_by_side():
    made = mapped(lambda one, other: other - one, record(), record(start=5.0))
    assert all((tensor == 5).all() for tensor in [made.first.left, made.many[0].right, made.point.x])
    with pytest.raises(ValueError, match="zip"):
        mapped(torch.add, (torch.ones(1), torch.ones(1)), (torch.ones(1),))


@pytest.mark.parametrize("ends", [[], [1], [1, 3], [2, 2, 5]])
def test_cut_and_joined_again(ends):
    whole = record(6)
    parts = cut(whole, ends)
    assert len(parts) == len(ends) + 1
    assert [len(part.first.left) for part in parts] == [b - a for a, b in zip([0, *ends], [*ends, 6], strict=True)]
    again = joined(parts)
    for one, other in zip(tensors(again), tensors(whole), strict=True):
        assert torch.equal(one, other)
    assert cut(None, [1, 2]) == [None] * 3


def test_cutting_copies_nothing_and_one_part_is_itself():
    whole = record(6)
    part = cut(whole, [2])[1]
    part.first.left[0] = 99
    assert whole.first.left[2] == 99
    assert joined([whole]) is whole
