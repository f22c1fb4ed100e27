"""A program whose default data type is float64 gets the pictures of one whose default is float32."""

from dataclasses import replace

import pytest
import torch

from kornia_cag import PGD, CAGCollate, ContextBank, ObjectBank, PairSampler, Recapture
from kornia_cag.core.records import tensors
from kornia_cag.evaluation.averaged import Averaged
from kornia_cag.evaluation.real import handwriting
from kornia_cag.training.recipes import RECIPES, SIGNS

JPEG = replace(SIGNS, name="jpeg", ranges=replace(SIGNS.ranges, camera=replace(SIGNS.ranges.camera, jpeg=(30.0, 90.0))))


@pytest.fixture
def default(request):
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def compare(default, make):
    """What is made under both defaults, to the bit, and in the same data type."""
    default(torch.float32)
    one = make()
    default(torch.float64)
    other = make()
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_banks(default):
    def make():
        objects = ObjectBank.from_glyphs("ab", size=32).with_ink((255, 0, 9)).with_thickness((1,))
        return objects.pyramid.atlas, objects.opacity, ContextBank.procedural(count=12, size=16).pyramid.atlas

    compare(default, make)


@pytest.mark.parametrize("recipe", [*RECIPES.values(), JPEG], ids=lambda recipe: recipe.name)
def test_batches(default, recipe):
    def make():
        objects, contexts = ObjectBank.from_glyphs("0123", size=64), ContextBank.procedural(count=8, size=64)
        small = replace(recipe, samples_per_class=None)  # there are eight contexts
        rows = next(iter(small.pairs(objects, len(contexts), batch_size=8)))
        strength = recipe.strength
        collate = CAGCollate(objects, contexts, recipe.size, ranges=recipe.ranges, strength=strength, returns="batch")
        return [*tensors(collate(rows))]

    compare(default, make)


def test_what_looks_at_batches(default):
    """Networks are the user's, and of the user's data type: here one of float32."""
    default(torch.float32)
    torch.manual_seed(0)
    images, labels, keys = torch.rand(4, 3, 16, 16), torch.arange(4), torch.arange(4)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 10))

    def make():
        attack = PGD(eps=0.1, steps=2, transform=Recapture())
        pictures = handwriting(28).images[:9]
        return attack(network, images, labels, keys=keys), pictures, Averaged(network, 3)(images).detach()

    compare(default, make)


@pytest.fixture
def elsewhere():
    """Another default device, on which nothing can be computed."""
    yield lambda: torch.set_default_device("meta")
    torch.set_default_device(None)


def test_the_default_device_has_no_part_in_what_is_on_another(elsewhere, tmp_path):
    def make():
        objects, contexts = ObjectBank.from_glyphs("0123", size=32, device="cpu"), procedural()
        given = ObjectBank.from_tensors(images, [1, 0], device="cpu"), ObjectBank.from_tensors(images, device="cpu")
        rows = next(iter(PairSampler(objects.labels, len(contexts), batch_size=8)))
        batch = CAGCollate(objects, contexts, 24, ranges=SIGNS.ranges, returns="batch")(rows)
        pictures = handwriting(28).images[:9]
        return batch.images, batch.boxes, *(bank.labels for bank in given), pictures

    def procedural():
        return ContextBank.procedural(count=8, size=32, device="cpu")

    images = torch.zeros(2, 4, 20, 20)
    images[:, 3, 4:-4, 4:-4] = 1
    expected = make()
    elsewhere()
    for one, other in zip(make(), expected, strict=True):
        assert str(one.device) == "cpu"
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
