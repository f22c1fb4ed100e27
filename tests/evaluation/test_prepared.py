"""Squares of pictures that are none."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kornia_cag import InputError
from kornia_cag.banks import tiles
from kornia_cag.evaluation.accuracy import evaluate
from kornia_cag.evaluation.prepared import LONGEST, combined, decisive, prepared, starts
from kornia_cag.evaluation.real import RealSet, load_real


@given(st.integers(1, 500), st.integers(0, 8000))
def test_views_reach_both_ends_and_lie_at_most_half_a_side_apart(short, more):
    found = starts(short + more, short)
    if short + more <= 1.25 * short:
        assert found == [more // 2]
        return
    assert (found[0], found[-1]) == (0, more)
    assert max(b - a for a, b in pairwise(found)) <= -(-short // 2)
    assert len(found) >= 2


def test_usual_shapes_of_photographs():
    sizes = ((900, 900), (1125, 900), (1200, 900), (1350, 900), (1600, 900))
    assert [len(starts(*size)) for size in sizes] == [1, 1, 2, 2, 3]


def some(height, width, count=2):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def test_squash_takes_the_whole_picture_and_cover_undistorted_squares():
    images = some(20, 50)
    whole = F.interpolate(images / 255, (8, 8), mode="bilinear", antialias=True)
    assert torch.equal(prepared(images, 8, "squash"), whole)
    views = prepared(images, 8, "cover").unflatten(0, (2, -1))
    for view, start in enumerate(starts(50, 20)):
        assert torch.equal(views[:, view], prepared(images[..., start : start + 20], 8, "squash"))
    upright = prepared(images.transpose(2, 3), 8, "cover").unflatten(0, (2, -1))
    torch.testing.assert_close(upright, views.transpose(3, 4))


@pytest.mark.parametrize("fit", ["squash", "cover"])
def test_floats_are_prepared_like_bytes(fit):
    images = some(9, 30)
    assert torch.equal(prepared(images / 255, 16, fit), prepared(images, 16, fit))
    beyond = torch.full((1, 3, 4, 4), 1.005)
    assert prepared(beyond, 4, fit).amax() == 1


def test_a_picture_of_any_size(monkeypatch):
    assert prepared(some(1, 1), 16, "cover").shape == (2, 3, 16, 16)
    images = some(400, 600, count=1)
    plain = prepared(images, 8, "cover")
    monkeypatch.setattr(tiles, "HUGE", 10_000)  # larger ones are reduced before they become floats
    reduced = prepared(images, 8, "cover")
    torch.testing.assert_close(reduced, plain, atol=0.01, rtol=0)
    assert not torch.equal(reduced, plain)


def test_an_endless_strip_is_refused():
    assert len(prepared(some(4, 4 * LONGEST), 8, "cover")) == 2 * 31
    with pytest.raises(InputError, match=r"^p: expected a picture at most 16 times as long as wide, got 65 x 4 pixels"):
        prepared(some(4, 65), 8, "cover", argument="p")
    assert len(prepared(some(4, 65), 8, "squash")) == 2


def test_each_class_counts_where_it_is_seen_best():
    logits = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 1.0], [5.0, 4.0]])
    assert combined(logits, [3, 1]).tolist() == [[2, 3], [5, 4]]
    assert combined(logits, None) is logits
    assert decisive(logits, [3, 1], torch.tensor([0, 1])).tolist() == [2, 3]
    assert decisive(logits, None, torch.tensor([0, 1, 0, 1])).tolist() == [0, 1, 2, 3]


class Brightest(torch.nn.Module):
    """Says which channel has most light."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def test_long_photographs_are_measured_by_their_best_view(tmp_path, device):
    images = np.zeros((4, 8, 20, 3), np.uint8)
    images[:, :, :, 0] = 40  # a little red everywhere
    images[1, :, 16:, 1] = 255  # green at the right end
    images[2, :, :3, 2] = 255  # blue at the left
    images[3, :, 16:, 1], images[3, :, :5, 2] = 200, 255  # green at the right end, and more blue at the left
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 2, 1])
    real = load_real(tmp_path / "x.npz", ("red", "green", "blue"), 8, "cover")
    assert (real.views, real.images.shape) == ((4, 4, 4, 4), (16, 3, 8, 8))
    accuracy = evaluate(Brightest(), real, ("red", "green", "blue"), device)
    assert accuracy.confusions == (("green", "blue", 1),)
    assert accuracy.seen_in.tolist()[1:] == [7, 8, 15]  # where the true class is, also of what was misread
    with pytest.raises(InputError, match=r"^real: expected pictures that a network takes whole"):
        real.some(2)
    assert RealSet(real.images[:4], real.labels, "x").some(2).labels.tolist() == [0, 2]


def test_a_folder_may_hold_pictures_of_any_shape(tmp_path):
    for name, size in (("a/1.png", (8, 8)), ("a/2.png", (20, 8)), ("b/1.png", (8, 11))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / name)
    real = load_real(tmp_path, ("a", "b"), 8, "cover")
    assert (real.views, real.labels.tolist(), len(real.images)) == ((1, 4, 2), [0, 0, 1], 7)
    assert load_real(tmp_path, ("a", "b"), 8).views is None
