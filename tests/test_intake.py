import math

import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.intake import are_items, check_rows, photo_bank, photo_rows

ROW = torch.arange(5)


@pytest.mark.parametrize(
    ("batch", "want"),
    [
        (torch.zeros(2, 5, dtype=torch.int64), False),
        ([ROW, ROW], False),
        ([], False),
        ([torch.zeros(3, 4, 4)], True),
        ([(torch.zeros(3, 4, 4), 1)], True),
        ([{"image": None}], True),
        ([1, 2], True),
    ],
)
def test_items_are_told_from_rows(batch, want):
    assert are_items(batch) == want


def test_rows_pass_as_they_are():
    table = torch.stack([ROW, ROW + 1])
    assert check_rows(table, 2, 3) is table
    assert torch.equal(check_rows([ROW, ROW + 1], 2, 3), table)
    for counts, name in (((1, 3), "object"), ((2, 2), "context")):
        with pytest.raises(InputError, match=f"rows: expected {name} ids"):
            check_rows(table, *counts)
    with pytest.raises(InputError, match="rows: expected object ids from 0 to 1, got -1 to 0"):
        check_rows(table - 1, 2, 3)


@pytest.mark.parametrize(("canvas", "size"), [((2, 2), 8), ((32, 20), 64), ((20, 33), 128), ((5000, 1), 4096)])
def test_photos_are_twice_as_fine_as_the_canvas(canvas, size):
    assert photo_bank([torch.zeros(3, 4, 4)], canvas, torch.device("cpu")).size == size


def test_photos_of_all_sizes_keep_their_middle(device):
    wide = torch.zeros(3, 20, 50)
    wide[:, :, 15:35] = 0.4
    tall = (wide.mT * 255).round().byte()
    bank = photo_bank([wide, tall, (tall[:1], 7)], (8, 8), device)
    assert (len(bank), bank.device.type) == (3, device.type)
    assert (bank.pyramid.level(0) == 102).all()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (1, r"expected a PIL image, a tensor \(3, h, w\), or a tuple, list or dict with one, got 1"),
        ((1, "a"), r"got \(1, 'a'\).*batch_sampler=pairs"),
        (torch.zeros(2, 3, 8, 8), r"got float32 \(2, 3, 8, 8\)"),
        (torch.zeros(4, 8, 8), r"expected uint8 or float32 \(3, h, w\), got float32 \(4, 8, 8\)"),
        (torch.zeros(8, 8, 3), r"got float32 \(8, 8, 3\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "got int64"),
        (torch.zeros(3, 0, 8), "expected at least one pixel"),
        (torch.linspace(-1, 1, 192).reshape(3, 8, 8), r"expected values in \[0, 1\], got -1 to 1\. Leave normal"),
        (torch.full((3, 8, 8), math.nan), "got nan to nan"),
        (Image.new("RGBA", (8, 8)), "expected a PIL image of mode RGB or .* got RGBA, 8 x 8. Flatten alpha"),
        (Image.new("F", (8, 8)), "got F, 8 x 8"),
        (Image.new("RGB", (0, 8)), "got RGB, 0 x 8"),
    ],
)
def test_items_without_a_usable_image_are_named(item, message, untyped):
    with pytest.raises(InputError, match=rf"items\[1\]: .*{message}"):
        photo_bank([torch.zeros(3, 8, 8), item], (16, 16), torch.device("cpu"))


def test_objects_on_items_are_balanced():
    """Consecutive samples: classes differ by at most one; within a class, objects are alike."""
    labels = torch.tensor([0, 1, 1, 1, 2])
    counts = torch.zeros(5, dtype=torch.int64)
    for epoch in range(150):
        for start, count in ((0, 7), (7, 8), (15, 3)):
            rows = photo_rows(labels, count, seed=2, epoch=epoch, start=start)
            assert sorted(rows[:, 2].tolist()) == list(range(start, start + count))
            classes = labels[rows[:, 0]].bincount(minlength=3)
            assert classes.max() - classes.min() <= 1
            counts += rows[:, 0].bincount(minlength=5)
    assert counts.sum() == 2700
    assert counts[0] == counts[4] == 900
    assert (counts[1:4] - 300).square().sum() / 300 < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


def test_a_slot_sees_changing_classes_on_items():
    """So that a chain has something to offer, although the batch size is a multiple of the classes."""
    labels = torch.arange(5)
    slots = torch.stack([photo_rows(labels, 10, seed=0, epoch=0, start=10 * i)[:, 0] for i in range(40)])
    changed = (slots[1:] != slots[:-1]).float().mean()
    assert 0.7 < changed < 0.9
