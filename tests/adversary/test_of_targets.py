"""Losses of targets: adversaries attack a detector by what is to be found, over all objects of a scene."""

from dataclasses import replace

import pytest
import torch
from conftest import make_contexts, make_objects
from torch import Tensor, nn

from kornia_cag import (
    PGD,
    CAGCollate,
    InputError,
    PairSampler,
    ScenePGD,
    SceneRange,
    WorstOf,
)
from kornia_cag.adversary.losses import OfTargets
from kornia_cag.scenes.layout import Layout
from kornia_cag.scenes.targets import Targets
from kornia_cag.training.detector import Detector
from kornia_cag.training.recipes import STREET
from kornia_cag.training.task import DetectionTask

RANGES = replace(STREET.ranges, layout=Layout(count=(2, 3), side=(0.2, 0.4)), camera=SceneRange().camera)
TASK = DetectionTask(classes="all", objects=3)
SIZE = 48


def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(5, width=4).eval()


def loss_of(net: Detector) -> OfTargets:
    return OfTargets(lambda maps, targets: net.losses(maps, TASK.targets(targets)))


def batch_of(net, *adversaries, b=12, device="cpu", distractors=0, **options):
    objects, contexts = make_objects(size=64), make_contexts(size=64)
    labels = objects.labels
    if distractors:
        objects = objects + make_objects(size=64).unlabelled()
        labels = objects.labels
    collate = CAGCollate(objects, contexts, SIZE, ranges=RANGES, model=net, adversaries=adversaries, returns="batch",
                         **options)  # fmt: skip
    pairs = PairSampler(labels, len(contexts), batch_size=b, seed=1, objects_per_scene=3,
                        distractors_per_scene=distractors)  # fmt: skip
    return collate(next(iter(pairs)))


def losses(net, batch) -> Tensor:
    with torch.no_grad():
        return net.losses(net(batch.images), TASK.targets(batch))


@pytest.mark.parametrize(
    "adversary", [WorstOf(k=4), ScenePGD(steps=2), PGD(eps=8 / 255, steps=3), PGD(eps=0.1, eps_object=0.02, steps=2)]
)
def test_a_detector_s_loss_rises(adversary) -> None:
    net = detector()
    before = losses(net, batch_of(net))
    after = losses(net, batch_of(net, replace(adversary, loss=loss_of(net))))
    assert after.mean() > before.mean()
    if adversary.chooses_scenes:
        assert bool((after >= before - 1e-4).all())  # the worst is kept
        assert int((after > before + 1e-3).sum()) >= 3


def test_a_scene_attack_moves_every_object() -> None:
    """The gradient reaches the numbers of all layers, not of the lowest alone."""
    net, told = detector(), []

    def loss(maps, targets: Targets) -> Tensor:
        told.append(targets)
        return net.losses(maps, TASK.targets(targets))

    drawn = batch_of(net)
    moved = batch_of(net, ScenePGD(steps=2, reach=0.2, loss=OfTargets(loss)))
    assert all(targets.labels.shape[1] == 3 for targets in told)
    for layer in range(3):
        one, other = (batch.scene.layers[layer] for batch in (drawn, moved))
        both = one.shown & other.shown
        assert bool(((one.color.exposure != other.color.exposure) & both).any())


def test_what_is_left_as_it_was() -> None:
    net = detector().train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    batch_of(net, ScenePGD(steps=1, loss=loss_of(net)), PGD(eps=0.1, steps=2, loss=loss_of(net)))
    assert net.training
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_targets_are_made_for_the_loss_alone() -> None:
    """An attack gets targets although nobody else asks for them."""
    objects, contexts, net = make_objects(size=64), make_contexts(size=64), nn.Flatten()
    seen: list[Targets] = []

    def loss(output, targets: Targets) -> Tensor:
        seen.append(targets)
        return output.sum(dim=1)

    stages = ScenePGD(steps=1, loss=OfTargets(loss)), PGD(eps=0.1, steps=1, loss=OfTargets(loss))
    collate = CAGCollate(objects, contexts, SIZE, model=net, adversaries=stages)
    collate(next(iter(PairSampler(objects.labels, len(contexts), batch_size=4))))
    assert len(seen) == 3
    assert all(targets.boxes.shape == (4, 1, 4) for targets in seen)


def test_a_transform_repeats_the_targets() -> None:
    seen: list[Targets] = []

    def loss(output, targets: Targets) -> Tensor:
        seen.append(targets)
        return output.flatten(1).sum(dim=1)

    attack = PGD(eps=0.1, steps=1, loss=OfTargets(loss), transform=lambda x, keys: x * 0.9, eot_samples=3)
    batch = batch_of(nn.Identity(), attack, b=4)
    assert torch.equal(seen[0].labels, batch.targets.labels.repeat(3, 1))


@pytest.mark.parametrize(("field", "value"), [("target", "random"), ("early_stop", True)])
def test_what_needs_classes_is_refused(field, value) -> None:
    with pytest.raises(InputError, match=f"^{field}: expected to be left out with a loss of targets"):
        PGD(eps=0.1, loss=OfTargets(lambda output, targets: output), **{field: value})


def test_classes_in_place_of_targets_are_refused() -> None:
    attack = PGD(eps=0.1, steps=1, loss=OfTargets(lambda output, targets: output.sum((1, 2, 3))))
    keys = torch.arange(2)
    with pytest.raises(InputError, match=r"^labels: expected Targets, .* Pass batch\.targets"):
        attack(nn.Identity(), torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), keys=keys)


def test_a_budget_of_objects_is_not_for_distractors() -> None:
    """A distractor is part of the context: only pixels of objects with a class keep to their own budget."""
    net = detector()
    batch = batch_of(net, PGD(eps=0.2, eps_object=0.0, steps=2, loss=loss_of(net)), distractors=2)
    known = batch.targets.labels >= 0
    assert bool((~known).any())
    covers = torch.where(known[..., None, None], batch.targets.masks, 0).sum(dim=1, keepdim=True)
    distracting = torch.where(known[..., None, None], 0, batch.targets.masks).sum(dim=1, keepdim=True)
    changed = (batch.images - batch.clean).abs().amax(dim=1, keepdim=True)
    assert float(changed[covers > 0.999].max()) < 1e-3
    assert float(changed[(distracting > 0.999)].max()) > 0.05
