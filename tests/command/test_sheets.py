import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.command.sheets import magnified, save_rows, save_sheet, sheet

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
