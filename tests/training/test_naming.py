"""Boxes of one network, names of another."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kornia_cag import InputError
from kornia_cag.evaluation.detection import Found
from kornia_cag.training.naming import Namer, named_by
from kornia_cag.training.network import Trained
from kornia_cag.training.recipes import SIGNS, STREET
from kornia_cag.training.task import DetectionTask


class Boxes(nn.Module):
    """Finds the same boxes everywhere."""

    def __init__(self, *boxes: tuple[float, ...], scores: tuple[float, ...]) -> None:
        super().__init__()
        self.found = Found(torch.tensor(boxes).view(-1, 4), torch.zeros(len(boxes), dtype=torch.int64),
                           torch.tensor(scores))  # fmt: skip

    def detect(self, images: Tensor, *, threshold: float) -> list[Found]:
        return [self.found for _ in images]


class Colour(nn.Module):
    """Red, green or blue: whichever channel is brightest."""

    def forward(self, images: Tensor) -> Tensor:
        return 20 * images.mean(dim=(2, 3))


def painted() -> Tensor:
    """Black, with a green square in the one corner and a blue one in the other."""
    image = torch.zeros(1, 3, 40, 60)
    image[:, 1, :12, :12] = 1
    image[:, 2, 26:, 46:] = 1
    return image


def test_each_box_gets_the_name_of_what_is_in_it() -> None:
    boxes = Boxes((0, 0, 12, 12), (46, 26, 60, 40), scores=(0.9, 0.8))
    (found,) = Namer(boxes, Colour(), 16, "squash").detect(painted(), threshold=0.3)
    assert found.labels.tolist() == [1, 2]
    assert torch.equal(found.boxes, boxes.found.boxes)
    assert (found.scores <= boxes.found.scores).all()
    assert (found.scores > 0.95 * boxes.found.scores).all()


def test_an_unsure_name_makes_an_unsure_find() -> None:
    boxes = Boxes((20, 10, 30, 20), (0, 0, 12, 12), scores=(0.9, 0.8))  # black, green
    (found,) = Namer(boxes, Colour(), 16, "squash").detect(painted(), threshold=0.0)
    assert found.labels.tolist()[0] == 1  # the surest first
    assert found.scores[1] == pytest.approx(0.3)
    (sure,) = Namer(boxes, Colour(), 16, "squash").detect(painted(), threshold=0.5)
    assert sure.labels.tolist() == [1]


def test_nothing_found_and_boxes_of_no_size() -> None:
    (none,) = Namer(Boxes(scores=()), Colour(), 16, "squash").detect(painted(), threshold=0.3)
    assert len(none.boxes) == 0
    (thin,) = Namer(Boxes((60, 40, 60, 40), scores=(0.9,)), Colour(), 16, "cover").detect(painted(), threshold=0.1)
    assert thin.labels.tolist() == [2]


def test_long_boxes_are_seen_in_several_views() -> None:
    boxes = Boxes((0, 0, 60, 10), scores=(0.9,))
    (found,) = Namer(boxes, Colour(), 16, "cover").detect(painted(), threshold=0.1)
    assert found.labels.tolist() == [1]


def test_a_run_named_by_another_has_its_classes() -> None:
    finder = Trained(Boxes((0, 0, 12, 12), scores=(0.9,)), STREET, ("a", "b"))
    namer = Trained(Colour(), replace(SIGNS, size=16), ("red", "green", "blue"))
    both = named_by(finder, namer)
    assert both.names == ("red", "green", "blue")
    assert isinstance(both.recipe.detection, DetectionTask)
    (seen,) = both.detect(painted()[0], threshold=0.1)
    assert [one.name for one in seen.objects] == ["green"]
    assert both.share == 1
    for shares in ((0.25, 0.5), (0.5, 0.25)):
        halves = (one._replace(share=share) for one, share in zip((finder, namer), shares, strict=True))
        assert named_by(*halves).share == 0.25
    with pytest.raises(InputError, match=r"^detector: expected a network that finds objects"):
        named_by(namer, namer)
    with pytest.raises(InputError, match=r"^classifier: expected a network that names pictures"):
        named_by(finder, finder)
