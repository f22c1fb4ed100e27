import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_contexts
from PIL import Image
from pngs import GREY, png
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate, InputError, ObjectBank, PairSampler
from kornia_cag.sampling.photos import PhotoRows, photo_bank, photo_rows
from kornia_cag.sampling.rows import FIX, Rows


@pytest.mark.parametrize(("canvas", "size"), [((2, 2), 8), ((32, 20), 64), ((20, 33), 128), ((5000, 1), 4096)])
def test_photos_are_twice_as_fine_as_the_canvas(canvas, size):
    assert photo_bank([torch.zeros(3, 4, 4)], canvas=canvas, device=torch.device("cpu")).size == size


def test_photos_of_all_sizes_keep_their_middle(device):
    wide = torch.zeros(3, 20, 50)
    wide[:, :, 15:35] = 0.4
    tall = (wide.mT * 255).round().byte()
    bank = photo_bank([wide, tall, (tall[:1], 7)], canvas=(8, 8), device=device)
    assert (len(bank), bank.device.type) == (3, device.type)
    assert (bank.pyramid.level(0) == 102).all()


RGB = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
PLANES = torch.from_numpy(RGB).permute(2, 0, 1)


def picture_file(path, **options):
    Image.fromarray(RGB).save(path, **options)
    return path


def encoded():
    buffer = io.BytesIO()
    picture_file(buffer, format="PNG")
    return buffer.getvalue()


def shown(item):
    """What the bank makes of an item: its pixels, as the bank is exactly as fine."""
    return photo_bank([item], canvas=(8, 8), device=torch.device("cpu")).pyramid.level(0)[0]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda image: image,
        lambda image: (image, 7),
        lambda image: (7, "cat", image),
        lambda image: {"label": "cat.png", "image": image},
        lambda image: {"boxes": np.zeros((2, 4)), "views": [image, 1]},
        lambda image: ((torch.zeros(4), image), {"label": 1}),
    ],
)
def test_every_kind_of_image_in_every_kind_of_item(tmp_path, wrap):
    path = picture_file(tmp_path / "a.PNG", format="PNG")
    images = [
        *(RGB, RGB[..., ::-1][..., ::-1], PLANES, PLANES.float() / 255, Image.fromarray(RGB)),
        *(encoded(), bytearray(encoded()), path, str(path)),
        *(
            {"bytes": encoded(), "path": None},
            {"bytes": None, "path": str(path)},
            {"bytes": encoded(), "path": "x.jpg"},
        ),
    ]
    for image in images:
        assert torch.equal(shown(wrap(image)), PLANES), image


@pytest.mark.parametrize("image", [RGB[..., 0], RGB[..., :1], np.asfortranarray(RGB[..., 0]), PLANES[:1]])
def test_grey_is_spread_over_the_channels(image):
    assert torch.equal(shown(image), PLANES[:1].expand(3, -1, -1))


def test_16_bit_greys_are_scaled_as_those_of_files_are():
    image = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert torch.equal(shown(image), PLANES[:1].expand(3, -1, -1))


def test_a_label_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture_file(tmp_path / "cat", format="PNG")  # the name of a class, not of a picture
    assert torch.equal(shown(("cat", "dog.png", RGB)), PLANES)
    with pytest.raises(InputError, match=r"items\[0\]: .*'dog\.png', where there is no such file"):
        shown(("cat", "dog.png"))


def test_the_first_image_wins():
    assert torch.equal(shown({"image": RGB, "depth": np.zeros((16, 16, 3), np.uint8)}), PLANES)
    with pytest.raises(InputError, match=r"got uint8 array \(16, 16, 4\)"):  # and not the mask behind it
        shown((np.zeros((16, 16, 4), np.uint8), np.zeros((16, 16), np.uint8)))


def test_a_mask_before_the_photograph_is_not_taken_for_it():
    mask = np.zeros((16, 16), np.uint8)
    for name in ("image", "img"):
        assert torch.equal(shown({"mask": mask, name: RGB}), PLANES)
        assert torch.equal(shown((3, {"mask": mask, name: RGB})), PLANES)


def test_the_label_of_a_photo_is_not_used():
    collate = CAGCollate(ObjectBank.from_glyphs("ab", size=16), None, size=16)
    images, labels = collate([(RGB, 7), (RGB, 9)])
    assert sorted(labels.tolist()) == [0, 1]
    assert images.shape == (2, 3, 16, 16)


FLATTEN = r"Flatten it, for example: image = image\.convert\('RGBA'\); Image\.alpha_composite"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (1, r"expected a PIL image, a tensor \(3, h, w\), .* with one, got 1\. Let the data set return the photo"),
        ((1, "a"), r"got \(1, 'a'\)\. Let the data set"),
        (torch.zeros(2, 3, 8, 8), r"got float32 \(2, 3, 8, 8\)\. Give each item one image"),
        (torch.zeros(8, 8), r"got float32 \(8, 8\)\. Add a channel: image\[None\]"),
        (torch.zeros(4, 8, 8), r"expected uint8 or float32 \(3, h, w\).*got float32 \(4, 8, 8\).*image\[:3\]"),
        (torch.zeros(2, 8, 8), "Give one or three channels"),
        (torch.zeros(8, 8, 3), r"got float32 \(8, 8, 3\).*image\.permute\(2, 0, 1\)"),
        (torch.zeros(8, 8, 4), r"image\[\.\.\., :3\]\.permute\(2, 0, 1\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), r"got int64.*image\.to\(torch\.uint8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.float64), r"got float64.*image\.float\(\)"),
        (torch.zeros(3, 0, 8), "expected at least one pixel"),
        (torch.linspace(-1, 1, 192).reshape(3, 8, 8), r"expected values in \[0, 1\], got -1 to 1\. Undo the normal"),
        (torch.full((3, 8, 8), math.nan), "got NaN"),
        (np.zeros((8, 8, 4), np.uint8), r"got uint8 array \(8, 8, 4\)\. Flatten alpha.*image\[\.\.\., :3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"image\.transpose\(1, 2, 0\)"),
        (np.zeros((4, 8, 8), np.uint8), r"image\[:3\]\.transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 3)), r"got float64 array.*\(255 \* image\)\.round\(\)\.astype\('uint8'\)"),
        (np.zeros((8, 8)), r"got float64 array \(8, 8\).*astype\('uint8'\)"),
        (np.zeros((8, 8, 3), np.uint16), r"\(image // 257\)\.astype\('uint8'\)"),
        (np.zeros((8, 8, 3), bool), r"255 \* image\.astype\('uint8'\)"),
        (np.zeros((0, 8, 3), np.uint8), "expected at least one pixel"),
        (b"no picture", r"expected a picture \(AVIF"),
        ({"bytes": b"", "path": None}, "got an empty one"),
        (Path("missing.png"), r"missing\.png: .*no such file"),
        (Path("missing\0.png"), "NUL"),
        (Image.new("RGBA", (8, 8)), "expected a PIL image without transparency, got RGBA, 8 x 8. " + FLATTEN),
        (Image.new("LA", (8, 8)), FLATTEN),
        (Image.new("F", (8, 8)), "got F, 8 x 8. Scale its numbers"),
        (Image.new("I", (8, 8), 70_000), "expected 8 or 16 bits per channel, got 32 bits"),
        (Image.new("LAB", (8, 8)), "Convert it to RGB"),
        (Image.new("RGB", (0, 8)), "expected at least one pixel, got RGB, 0 x 8"),
    ],
)
def test_items_without_a_usable_image_are_told_what_to_change(item, message, untyped):
    with pytest.raises(InputError, match=rf"items\[1\]: .*{message}") as caught:
        photo_bank([torch.zeros(3, 8, 8), item], canvas=(16, 16), device=torch.device("cpu"))
    assert "\n" not in str(caught.value)
    assert "PairSampler" not in str(caught.value)
    assert "batch_sampler" not in str(caught.value)


def transparent(mode):
    """An image of a mode whose left half is transparent by ``info`` or by its alpha; the right half is one level."""
    alpha = Image.new("L", (16, 16), 255)
    alpha.paste(0, (0, 0, 8, 16))
    if mode in ("RGBA", "LA"):
        image = Image.new(mode.removesuffix("A"), (16, 16), 255 if mode == "LA" else (255, 255, 255))
        image.putalpha(alpha)
        return image
    image, buffer = alpha.convert(mode), io.BytesIO()
    image.save(buffer, "PNG", transparency=(0, 0, 0) if mode == "RGB" else image.getpixel((0, 0)) if mode == "P" else 0)
    opened = Image.open(buffer)
    assert opened.mode == mode
    return opened


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1", "RGBA", "LA"])
def test_a_transparent_item_is_refused_and_the_way_out_leads_out(mode):
    image = transparent(mode)
    with pytest.raises(
        InputError, match=rf"items\[0\]: .*without transparency, got {mode}, 16 x 16.*{FLATTEN}"
    ) as caught:
        shown(image)
    first, second = re.search(r"example: (.*); (Image.*)\.$", str(caught.value)).groups()
    names = {"image": image, "Image": Image}
    exec(first, names)
    flat = shown(eval(second, names))
    assert (flat == 255).all()  # the left half as white as the background, the right half as it was


def test_a_transparent_item_of_16_bits_has_a_way_out_too():
    levels = np.repeat([[0, 65535]], 8, axis=1).repeat(16, axis=0)
    image = Image.open(io.BytesIO(png(levels, 16, GREY, (b"tRNS", b"\0\0"))))
    with pytest.raises(InputError, match=r"got I.*with a transparent level.* del image\.info\['transparency'\]"):
        shown(image)
    del image.info["transparency"]
    assert shown(image).float().mean() == 127.5


def test_an_item_that_cannot_be_decoded_is_named():
    with pytest.raises(InputError, match=r"items\[0\]: expected a whole picture"):
        shown(Image.open(io.BytesIO(encoded()[:200])))
    with pytest.raises(InputError, match=r"items\[0\]: expected a whole picture"):
        shown(encoded()[:200])


@pytest.mark.parametrize(
    ("items", "first"),
    [
        ([0, 1], "0"),
        ([torch.arange(5)], "int64 (5,)"),
        ([torch.zeros(8, 5, dtype=torch.int64)], "int64 (8, 5)"),
    ],
)
def test_what_is_neither_rows_nor_photos_is_told_so(items, first, untyped):
    with pytest.raises(InputError) as caught:
        photo_bank(items, canvas=(16, 16), device=torch.device("cpu"))
    assert (
        str(caught.value)
        == f"rows: expected those of a PairSampler, or photos, got a list that begins with {first}. {FIX}"
    )


def test_photo_rows_count_on():
    labels = torch.tensor([0, 1, 1, 2])
    photos = PhotoRows(labels, seed=4)
    for start, count in ((0, 3), (3, 5)):
        rows = photos(count)
        assert torch.equal(rows.table, photo_rows(labels, count=count, seed=4, epoch=0, start=start).table)
        assert rows.contexts.tolist() == list(range(count))
        assert (rows.seed.unique().tolist(), rows.epoch.unique().tolist()) == ([4], [0])
    state = photos.state_dict()
    resumed = PhotoRows(labels, seed=4)
    resumed.load_state_dict(state)
    assert torch.equal(resumed(2).table, photos(2).table)
    photos.set_epoch(3)
    assert torch.equal(photos(6).table, photo_rows(labels, count=6, seed=4, epoch=3, start=0).table)


def test_objects_on_items_do_not_depend_on_how_samples_are_cut_into_batches():
    labels = torch.tensor([0, 1, 1, 2])

    def objects(*counts):
        photos = PhotoRows(labels, seed=4)
        rows = Rows.cat([photos(count) for count in counts])
        return rows.objects[rows.index.argsort()]

    assert torch.equal(objects(12), objects(5, 1, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda photos: PhotoRows(torch.arange(3), seed=-1), "seed: expected an integer of at least 0 and at most"),
        (lambda photos: photos.set_epoch(-1), "epoch: expected an integer of at least 0 and at most"),
        (lambda photos: photos.load_state_dict({}), "state['photos']: expected seed, epoch and index, got {}."),
        (lambda photos: photos.load_state_dict({"seed": 4, "epoch": 0, "index": -1}),
         "state['photos']['index']: expected an integer of at least 0, got -1."),
        (lambda photos: photos.load_state_dict({"seed": 5, "epoch": 0, "index": 0}),
         "state: expected the state of a collate with seed=4, got seed=5. Build it like the saved one."),
    ],
)  # fmt: skip
def test_a_count_that_cannot_be_is_refused(call, message, untyped):
    photos = PhotoRows(torch.arange(3), seed=4)
    with pytest.raises(InputError) as caught:
        call(photos)
    assert str(caught.value).startswith(message)
    assert photos.state_dict() == {"seed": 4, "epoch": 0, "index": 0}


def test_objects_on_items_are_balanced():
    """Consecutive samples: classes differ by at most one; within a class, objects are alike."""
    labels = torch.tensor([0, 1, 1, 1, 2])
    counts = torch.zeros(5, dtype=torch.int64)
    for epoch in range(150):
        for start, count in ((0, 7), (7, 8), (15, 3)):
            rows = photo_rows(labels, count=count, seed=2, epoch=epoch, start=start)
            assert sorted(rows.index.tolist()) == list(range(start, start + count))
            classes = labels[rows.objects].bincount(minlength=3)
            assert classes.max() - classes.min() <= 1
            counts += rows.objects.bincount(minlength=5)
    assert counts.sum() == 2700
    assert counts[0] == counts[4] == 900
    assert (counts[1:4] - 300).square().sum() / 300 < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


def test_a_slot_sees_changing_classes_on_items():
    """So that a chain has something to offer, although the batch size is a multiple of the classes."""
    labels = torch.arange(5)
    slots = torch.stack([photo_rows(labels, count=10, seed=0, epoch=0, start=10 * i).objects for i in range(40)])
    changed = (slots[1:] != slots[:-1]).float().mean()
    assert 0.7 < changed < 0.9


@pytest.mark.parametrize("how", ["batch_size", "sampler"])
def test_a_pair_sampler_given_otherwise_than_as_batch_sampler_is_said(how, untyped):
    square = torch.nn.functional.pad(torch.ones(4, 4, 4), (2, 2, 2, 2))
    objects = ObjectBank.from_tensors([square, square], size=8)
    pairs = PairSampler(objects.labels, 4, batch_size=2)
    options: dict[str, Any] = {"batch_size": 2} if how == "batch_size" else {"sampler": pairs}
    collate = CAGCollate(objects, None if how == "batch_size" else make_contexts(count=4), 16)
    loader: Any = DataLoader(pairs.dataset, collate_fn=collate, **options)
    with pytest.raises(InputError, match=r"^rows: expected .* batch_sampler=pairs"):
        next(iter(loader))
