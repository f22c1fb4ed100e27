import sys

import pytest
import torch
from conftest import make_contexts, make_objects
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kornia_cag import InputError
from kornia_cag.evaluation.robustness import Curve, Pictures, _others, autoattack, composites, correct, curve
from kornia_cag.training.recipes import SIGNS


class Split(nn.Module):
    """Two classes: brightness of the left half against 0.5, and of the right half times ``trust``."""

    def __init__(self, trust: float) -> None:
        super().__init__()
        self.trust = nn.Parameter(torch.tensor(trust))

    def forward(self, x):
        half = x.shape[-1] // 2
        score = (x[..., :half] - 0.5).mean((1, 2, 3)) + self.trust * (x[..., half:] - 0.5).mean((1, 2, 3))
        return torch.stack([score, -score], dim=1)


def pictures(masked=True):
    """The object is the left half, bright for class 0; the context is grey."""
    labels = torch.arange(40) % 2
    images = torch.full((40, 3, 8, 8), 0.5)
    images[..., :4] += 0.2 * (1 - 2 * labels)[:, None, None, None]
    masks = torch.zeros(40, 1, 8, 8)
    masks[..., :4] = 1
    return Pictures(images, labels, masks if masked else None)


def test_a_model_that_looks_at_the_object_alone_withstands_any_context():
    found = curve(Split(0.0), pictures(), [0.0, 0.1, 1.0], steps=3)
    assert found == Curve((0.0, 0.1, 1.0), (1.0, 1.0, 1.0), 40)


def test_a_model_that_looks_at_the_context_falls_where_its_budget_outweighs_the_object():
    found = curve(Split(1.0), pictures(), [0.0, 0.1, 0.19, 0.21, 1.0], steps=5)
    assert found.accuracy == (1.0, 1.0, 1.0, 0.0, 0.0)


def test_without_masks_every_pixel_may_change():
    found = curve(Split(0.0), pictures(masked=False), [0.0, 0.19, 0.21], steps=5, starts=["random"])
    assert found.accuracy == (1.0, 1.0, 0.0)


def test_budgets_in_l2_bound_the_whole_change():
    """The score moves by at most eps / sqrt(n) where n values of mean weight 1 may change."""
    given = pictures(masked=False)
    n = 3 * 8 * 4  # of the left half, which alone counts
    found = curve(Split(0.0), given, [0.0, 0.19 * n**0.5, 0.21 * n**0.5], norm="l2", steps=5, starts=["random"])
    assert found.accuracy == (1.0, 1.0, 0.0)


def test_a_model_that_works_in_place_spoils_no_pictures():
    class InPlace(Split):
        def forward(self, x):
            return super().forward(x.sub_(0.5).add_(0.5).mul_(1.0).clamp_(0.45, 0.55))

    given = pictures(masked=False)
    before = given.images.clone()
    curve(InPlace(0.0), given, [0.0, 0.1], steps=2, starts=["random"])
    assert torch.equal(given.images, before)


def test_restarts_are_other_random_starts_and_only_lower_the_curve():
    """A model that is fooled from a few points of the box alone: more of them are found."""

    class Pitted(Split):
        def forward(self, x):
            pit = (torch.sin(4000 * x.flatten(1)[:, :1]) > 0.8).float()
            return super().forward(x) * (1 - 2 * pit)

    given = pictures(masked=False)
    shares = [curve(Pitted(0.0), given, [0.05], steps=1, starts=["random"], restarts=n).accuracy[0] for n in (1, 4, 12)]
    assert shares[0] > shares[1] > shares[2]
    assert curve(Split(0.0), given, [0.1], steps=2, starts=["clean"], restarts=3).accuracy == (1.0,)


def test_the_previous_picture_alone_can_mislead():
    """A model of no gradient in the context: only a start that is already there fools it."""

    class Step(Split):
        def forward(self, x):
            return super().forward(torch.cat([x[..., :4], (x[..., 4:] > 0.6).float() + 0 * x[..., 4:]], dim=-1))

    given = pictures()
    given.images[..., 4:] = (1 - given.labels).float()[:, None, None, None]  # each shows its own class in the context
    assert curve(Step(3.0), given, [0.0], starts=["clean"]).accuracy == (1.0,)
    assert curve(Step(3.0), given, [1.0], steps=1, starts=["clean"]).accuracy == (1.0,)
    assert curve(Step(3.0), given, [1.0], steps=1, starts=["previous"]).accuracy == (0.0,)


def test_a_model_is_no_better_for_being_sure_of_itself():
    class Loud(Split):
        def forward(self, x):
            return 1000 * super().forward(x)

    assert curve(Loud(1.0), pictures(), [0.1, 0.25, 1.0]) == Curve((0.1, 0.25, 1.0), (1.0, 0.0, 0.0), 40)


def test_the_model_is_left_as_it_was():
    model = Split(1.0).train()
    model.norm = nn.BatchNorm2d(3).eval()
    curve(model, pictures(), [0.5], steps=1)
    assert model.training
    assert not model.norm.training
    assert model.trust.grad is None


def test_an_answer_of_nan_is_wrong():
    class Silent(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), torch.nan)

    pictures = Pictures(torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    assert not correct(Silent(), pictures.images, pictures.labels).any()


def test_a_model_without_an_answer_has_no_accuracy():
    class Silent(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 4), torch.nan)

    some = Pictures(torch.rand(4, 3, 8, 8), torch.arange(4))
    with pytest.raises(InputError, match=r"^model: expected finite logits, got others for 4 of 4 pictures\."):
        curve(Silent(), some, [0.0])


def test_what_cannot_be_measured_is_refused(untyped):
    images, labels, net = torch.rand(4, 3, 8, 8), torch.arange(4), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    pictures = Pictures(images, labels)
    for call, words in (
        (
            lambda: Pictures(255 * images, labels),
            r"images: expected values in \[0, 1\], got values from",
        ),
        (lambda: Pictures((255 * images).byte(), labels), "images: expected float"),
        (lambda: Pictures(images, labels[:3]), r"labels: expected int64 \(4\)"),
        (lambda: Pictures(images[:0], labels[:0]), "images: expected at least one picture, got none"),
        (lambda: curve(net, (images, labels), [0.1]), "pictures: expected Pictures"),
        (lambda: curve(lambda x: x, pictures, [0.1]), "model: expected Module"),
        (lambda: curve(net, pictures, 0.1), r"eps: expected a sequence of budgets, got 0\.1"),
        (lambda: curve(net, pictures, []), r"eps: expected a sequence of budgets, got \[\]"),
        (lambda: curve(net, pictures, [0], norm="l1"), "norm: expected one of 'linf', 'l2', got 'l1'"),
        (lambda: curve(net, pictures, [0], starts="random"), "starts: expected a sequence of some of .*got 'random'"),
        (lambda: curve(net, pictures, [0], starts=("rnadom",)), "starts: expected one of .*got 'rnadom'"),
        (lambda: curve(net, pictures, [0], steps=0), "steps: expected an integer of at least 1"),
        (lambda: curve(net, pictures, [0], batch_size=0), "batch_size: expected an integer of at least 1"),
        (lambda: curve(nn.Identity(), pictures, [0]), "model output: expected .*Wrap a model"),
    ):
        with pytest.raises(InputError, match=words):
            call()


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_others_are_the_next_of_another_class(labels):
    found = _others(torch.tensor(labels)).tolist()
    for i, other in enumerate(found):
        later = [(i + step) % len(labels) for step in range(len(labels))]
        assert other == next((j for j in later if labels[j] != labels[i]), other)
        assert labels[other] != labels[i] or len(set(labels)) == 1


def test_others_are_of_another_class():
    labels = torch.tensor([0, 0, 1, 2, 2, 0])
    other = _others(labels)
    assert other.tolist() == [2, 2, 3, 5, 5, 2]
    assert (labels[other] != labels).all()


def test_composites_are_balanced_and_repeat():
    objects, contexts = make_objects(), make_contexts()
    one, other = (composites(objects, contexts, 16, SIGNS.ranges, 70, seed=5) for _ in range(2))
    assert torch.equal(one.images, other.images)
    assert one.masks.shape == (70, 1, 16, 16)
    counts = torch.bincount(one.labels, minlength=len(objects.classes))
    assert counts.max() - counts.min() <= 2
    assert not torch.equal(composites(objects, contexts, 16, SIGNS.ranges, 70, seed=6).images, one.images)


@pytest.mark.usefixtures("untyped")
def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="eps: expected a number"):
        curve(Split(1.0), pictures(), [1.5])
    with pytest.raises(InputError, match="starts: expected a sequence of some of"):
        curve(Split(1.0), pictures(), [0.5], starts=[])


def test_autoattack_agrees_on_a_model_that_is_easy_to_fool():
    pytest.importorskip("torchattacks")

    class Four(Split):  # its losses compare the largest three logits
        def forward(self, x):
            two = super().forward(x)
            return torch.cat([two, two.new_full((len(two), 2), -9.0)], dim=1)

    model = Four(0.0).train()
    state = torch.get_rng_state()
    found = autoattack(model, pictures(), [0.0, 0.15, 0.25])
    assert found == Curve((0.0, 0.15, 0.25), (1.0, 1.0, 0.0), 40)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_autoattack_needs_four_classes():
    pytest.importorskip("torchattacks")
    with pytest.raises(InputError, match=r"model: expected logits of at least 4 classes, .*, got 2"):
        autoattack(Split(1.0), pictures(), [0.1])


def test_autoattack_needs_torchattacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(InputError, match="attack: expected torchattacks, which holds AutoAttack, got none"):
        autoattack(Split(1.0), pictures(), [0.1])
