import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.command.sheets import brightened, magnified, nearly_black, save_rows, save_sheet, sheet

GREY, YELLOW = (128, 128, 128), (255, 220, 0)


def test_layout(device):
    images = torch.zeros(5, 3, 4, 6, device=device)
    images[:, 0] = torch.arange(5, device=device)[:, None, None] / 5
    canvas = sheet(images, 2, zoom=3)
    assert canvas.shape == (3 * (4 * 3 + 1) + 1, 2 * (6 * 3 + 1) + 1, 3)
    for i in range(5):
        top, left = 1 + i // 2 * 13, 1 + i % 2 * 19
        assert (canvas[top : top + 12, left : left + 18] == (51 * i, 0, 0)).all()
    for line in (canvas[::13], canvas[:, ::19].transpose(1, 0, 2)):
        assert (line == GREY).all()
    assert (canvas[27:39, 20:38] == GREY).all()  # the sixth place is empty


def test_bytes_are_shown_as_they_are(tmp_path):
    images = torch.tensor([[[[0, 255], [128, 64]]]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert (sheet(images, 1) == sheet(images / 255, 1)).all()
    for name, shown in (("a", images), ("b", images / 255)):
        save_rows(tmp_path / f"{name}.png", [("one", shown), ("two", shown.repeat(2, 1, 1, 1))])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pixels_are_enlarged_whole_and_clamped():
    images = torch.tensor([[[[-0.01, 1.01], [0.5, 0.25]]]]).expand(1, 3, 2, 2)
    canvas = sheet(images, 1, zoom=2)
    assert canvas[1:5, 1:5, 1].tolist() == [[0, 0, 255, 255]] * 2 + [[128, 128, 64, 64]] * 2


def test_convention_boxes_are_half_open(device):
    """A box (1, 2, 4, 5) outlines columns 1 to 3 and rows 2 to 4; an object out of sight has none."""
    images = torch.zeros(2, 3, 8, 8, device=device)
    boxes = torch.tensor([[1.0, 2, 4, 5], [torch.nan] * 4], device=device)
    canvas = sheet(images, 2, zoom=1, boxes=boxes)
    first = (canvas[1:9, 1:9] == YELLOW).all(axis=2)
    want = np.zeros((8, 8), bool)
    want[2:5, 1:4] = True
    want[3, 2] = False
    assert (first == want).all()
    assert (canvas[1:9, 10:18] == 0).all()
    large = (sheet(images, 2, zoom=3, boxes=boxes)[1:25, 1:25] == YELLOW).all(axis=2)
    assert (np.argwhere(large).min(axis=0).tolist(), np.argwhere(large).max(axis=0).tolist()) == ([6, 3], [14, 11])


def test_names_lie_below_their_pictures():
    images = torch.rand(3, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    plain, named = sheet(images, 2), sheet(images, 2, names=["stop", "знак", "speed_limit_of_30"])
    foot = 2 * 13 + 4  # two lines, as one name needs
    assert named.shape == (plain.shape[0] + 2 * foot, plain.shape[1], 3)
    for i in range(3):
        top, left = 1 + i // 2 * (41 + foot), 1 + i % 2 * 61
        assert (named[top : top + 40, left : left + 60] == plain[1 + i // 2 * 41 :, left : left + 60][:40]).all()
        name = named[top + 40 : top + 40 + foot, left : left + 60]
        assert (name[[0, -1]] == 255).all()
        assert (name[2:15] < 100).any()
        assert (name[15:28] < 100).any() == (i == 2)


def test_dark_pictures_are_shown_once_more_brightened():
    images = torch.full((3, 3, 10, 10), 0.01)
    images[0, :, 6:, 6:] = 0.1  # 16 % of it
    images[1, 0] = 0.6
    assert nearly_black(images).tolist() == [True, False, True]
    assert nearly_black((images * 255).round().byte()).tolist() == [True, False, True]
    plain, shown = sheet(images, 3, zoom=4), sheet(images, 3, zoom=4, insets=True)
    apart = (plain != shown).any(axis=(0, 2)).nonzero()[0]
    assert set(apart) == {*range(21, 41), *range(103, 123)}  # the right halves of the first and the third
    inset = shown[21:41, 21:41]
    assert (inset[0] == 255).all()
    assert (inset[:, 0] == 255).all()
    assert (inset[13:, 13:] == 255).all()  # a tenth of white, as bright as it gets
    assert inset[1:11, 1:11].max() == pytest.approx(255 * 0.1**0.7, abs=1)  # a tenth of that, lifted
    assert (shown[21:41, 103:123] == 255).all()  # of one grey
    bright = brightened(torch.zeros(1, 3, 4, 4))
    assert (bright == 0).all()  # black stays black
    images[2, :, 0] = 1  # a tenth is a lamp or a highlight, eleven pixels are more
    assert nearly_black(images)[2]
    images[2, :, 1, 0] = 1
    assert not nearly_black(images)[2]


def test_what_is_nearly_black_is_a_matter_of_light():
    """The eye sees little of a blue that is as strong as a green that it sees well."""
    images = torch.zeros(4, 3, 10, 10)
    images[0, 2], images[1, 1], images[2], images[3] = 0.45, 0.45, 0.22, 0.28
    assert nearly_black(images).tolist() == [True, False, True, False]


def test_brightened_pictures_tell_a_black_object_from_a_dark_background():
    image = torch.full((1, 3, 10, 10), 0.06)
    image[..., 2:5, 2:5], image[..., :3] = 0.03, 0.2
    assert nearly_black(image)
    background, thing = (int(brightened(image)[0, 0, 4, x]) for x in (8, 4))
    assert background - thing > 30  # of 255, and 8 before


def test_a_sheet_with_insets_says_so(tmp_path):
    images = torch.rand(2, 3, 40, 100, generator=torch.Generator().manual_seed(0))
    save_sheet(tmp_path / "a.png", images, 2, insets=True)
    save_sheet(tmp_path / "b.png", images * 0.1, 2, insets=True)
    said, noted = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    assert len(said) == len(sheet(images, 2))
    assert len(noted) > len(said)
    assert (noted[len(said) :] < 100).any()


def test_captions_of_any_length(tmp_path):
    save_rows(tmp_path / "x.png", [("名" * 200 + " as b: 5", torch.rand(1, 3, 28, 28))])
    assert np.asarray(Image.open(tmp_path / "x.png")).shape[1] < 320


def test_saved_sheet_is_the_sheet(tmp_path):
    images = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    save_sheet(tmp_path / "x.png", images, 3, zoom=1)
    assert (np.asarray(Image.open(tmp_path / "x.png")) == sheet(images, 3, zoom=1)).all()


def test_rows_lie_behind_their_captions(tmp_path):
    rows = [("80 as 100: 5", torch.rand(5, 3, 6, 6)), ("a", torch.rand(1, 3, 6, 6))]
    save_rows(tmp_path / "x.png", rows, 3, zoom=2)
    saved = np.asarray(Image.open(tmp_path / "x.png"))
    first, second = sheet(rows[0][1][:3], 3, zoom=2), sheet(rows[1][1], 3, zoom=2)
    assert saved.shape[0] == 2 * first.shape[0]
    margin = saved.shape[1] - first.shape[1]
    assert (saved[: len(first), margin:] == first).all()
    assert (saved[len(first) :, margin : margin + 13] == second[:, :13]).all()
    assert (saved[len(first) + 1 : -1, margin + 15] == GREY).all()
    dark = (saved[:, :margin] < 128).any(axis=(1, 2))  # letters
    assert dark[: len(first)].any()
    assert dark[len(first) :].any()
    with pytest.raises(InputError, match="rows: expected at least one row"):
        save_rows(tmp_path / "x.png", [])


def test_further_sheets_lie_below(tmp_path):
    images, masks = torch.rand(2, 3, 5, 5), torch.rand(2, 1, 5, 5)
    boxes = torch.tensor([[0.0, 0, 5, 5]] * 2)
    save_sheet(tmp_path / "x.png", images, 2, zoom=1, boxes=boxes, below=[masks, images])
    saved = np.asarray(Image.open(tmp_path / "x.png"))
    parts = sheet(images, 2, zoom=1, boxes=boxes), sheet(masks.expand(-1, 3, -1, -1), 2, zoom=1)
    assert (saved == np.concatenate([*parts, sheet(images, 2, zoom=1)])).all()


def test_convention_no_perturbation_is_grey_and_the_budget_black_or_white():
    clean = torch.full((1, 3, 1, 4), 0.5)
    attacked = clean + torch.tensor([-0.1, 0.0, 0.05, 0.1])
    assert torch.allclose(magnified(attacked, clean, 0.1)[0, 0, 0], torch.tensor([0, 0.5, 0.75, 1]), atol=1e-6)
    assert (magnified(clean, clean, 0.0) == 0.5).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": torch.rand(3, 4, 4)}, r"images: expected tensor \(b, 3, h, w\)"),
        ({"images": torch.rand(2, 1, 4, 4)}, "images: "),
        ({"columns": 0}, "columns: expected an integer of at least 1, got 0"),
        ({"zoom": 1.5}, "zoom: expected an integer"),
    ],
)
def test_misuse(options, message, untyped):
    with pytest.raises(InputError, match=message):
        sheet(**{"images": torch.rand(2, 3, 4, 4), **options})


@pytest.mark.parametrize("name", ["sheet", "sheet.text"])
def test_a_name_that_is_no_picture(tmp_path, name):
    with pytest.raises(InputError, match=r"path: expected a picture file that Pillow can write, such as preview\.png"):
        save_sheet(tmp_path / name, torch.rand(2, 3, 4, 4))
