"""Composing in eager mode launches no more kernels, writes no more bytes and copies no more often than it did."""

import pytest
import torch
from counting import Counts, counted

from kornia_cag.scenes.layout import Layout
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.training.recipes import DIGITS, PHOTO_DIGITS, SIGNS

OUTPUT = 512 * 3 * 64 * 64 * 4  # bytes of the images


@pytest.mark.parametrize(
    ("ranges", "kernels", "outputs"),
    [
        pytest.param(SceneRange(), 189, 16, id="default"),
        pytest.param(SIGNS.ranges, 291, 21, id="signs"),
        pytest.param(DIGITS.ranges, 381, 27, id="digits"),
        pytest.param(PHOTO_DIGITS.ranges, 382, 28, id="photo-digits"),
    ],
)
def test_a_batch_of_512(ranges: SceneRange, kernels: int, outputs: float, untyped: None) -> None:
    counts = counted(ranges, 64, 512)
    assert counts.operations.total() <= kernels, counts.operations.most_common(20)
    assert counts.written <= outputs * OUTPUT
    assert counts.copies == 1  # of the rows


def test_a_layout_costs_so_many_kernels_for_each_object(untyped: None) -> None:
    layout = SceneRange(layout=Layout(stacked=0.2, overlap=0.5))
    counts = [[counted(ranges, 64, 64, layers) for layers in (2, 3)] for ranges in (SceneRange(), layout)]
    assert {each.copies for both in counts for each in both} == {1}
    plain, laid = (three.operations.total() - two.operations.total() for two, three in counts)
    assert plain <= 97
    assert laid - plain <= 194


def test_what_is_counted() -> None:
    host = torch.arange(6.0)
    with Counts() as counts:
        there = host.to("meta")
        torch.empty(9, device="meta")
        there.view(2, 3)[:, 1:].mT.expand(5, -1, -1).unbind(0)
        there.add_(host.sum()).mul(2)  # what is 0-dimensional goes with the launch
        torch.stack([there, there])
        torch.tensor([1, 2], device="meta")
        there.copy_(host)
        host + host
    assert counts.operations == {"_to_copy": 1, "add_": 1, "mul": 1, "stack": 1, "copy_": 1}
    assert counts.written == 4 * 6 * 6
    assert counts.copies == 3


def test_what_waits_for_the_device_raises() -> None:
    with Counts(), pytest.raises((NotImplementedError, RuntimeError)):
        torch.ones(3, device="meta").sum().item()
