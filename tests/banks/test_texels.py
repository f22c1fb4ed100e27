import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_contexts, make_objects
from PIL import Image

from kornia_cag import CAGCollate, Composer, ContextBank, ObjectBank, SceneRange
from kornia_cag.banks.pyramid import build_pyramid
from kornia_cag.banks.texels import MEMORY, _bytes, chosen_texels, file_sides, for_contexts, for_objects
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.training.recipes import RECIPES

pytestmark = pytest.mark.filterwarnings("error")


def cut_out(height: int, width: int, side: int | None = None) -> torch.Tensor:
    """An object of these sides on a canvas of ``side``."""
    side = side or max(height, width) + 2
    picture = torch.zeros(4, side, side, dtype=torch.uint8)
    picture[:, 1 : 1 + height, 1 : 1 + width] = 255
    return picture


@pytest.mark.parametrize(
    ("wanted", "count", "side"),
    [(1, 1, 64), (64, 1, 64), (65, 1, 128), (400, 1, 512), (9000, 1, 512), (512, 600, 512), (512, 700, 256),
     (512, 10**6, 64)],
)  # fmt: skip
def test_auto_holds_what_is_wanted_within_its_limits(wanted, count, side):
    assert chosen_texels("auto", wanted, count) == side
    assert chosen_texels(128, wanted, count) == 128
    assert side == 64 or count * _bytes(side) <= MEMORY


@pytest.mark.parametrize("size", [64, 512])
def test_the_size_of_a_bank_is_known_before_it_is_made(size):
    made = build_pyramid(torch.zeros(3, 4, size, size, dtype=torch.uint8), replicate=False).atlas.numel()
    assert made == pytest.approx(3 * _bytes(size), rel=0.05)


def test_objects_keep_their_pixels():
    """What is seen counts, not the clear border; 112 of 128 texels are the object's."""
    for seen, side in ((56, 64), (57, 128), (112, 128), (113, 256)):
        assert ObjectBank.from_tensors([cut_out(9, 9), cut_out(20, seen, 300)]).size == side
    assert for_objects([56, 112]) == 128


def test_contexts_keep_the_pixels_of_half_of_them():
    """One huge photograph does not decide."""
    many = [torch.zeros(3, 70, 200), torch.zeros(3, 300, 60), torch.zeros(3, 1000, 900)]
    assert ContextBank.from_tensors(many).size == 128
    assert for_contexts([(70, 200), (300, 60), (1000, 900)]) == 70


def test_folders_are_measured_by_headers(tmp_path, monkeypatch):
    for name, side, height in (("a", 150, 100), ("b", 40, 38)):
        Image.fromarray(cut_out(height, side - 2).permute(1, 2, 0).numpy()).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(file_sides(sorted(tmp_path.iterdir()))) == [(40, 40), (150, 150)]
    (tmp_path / "c.png").unlink()
    assert ObjectBank.from_folder(tmp_path).size == 256
    photos = tmp_path / "photos"
    photos.mkdir()
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.fromarray(np.zeros((100, 300, 3), np.uint8)).save(photos / "x.jpg", exif=exif)
    assert ContextBank.from_folder(photos).size == 128
    monkeypatch.setattr(Image.Image, "load", None)  # sides need no pixels
    assert file_sides([photos / "x.jpg"]) == [(300, 100)]


def test_a_bad_file_is_warned_of_once(tmp_path):
    Image.fromarray(cut_out(20, 20).permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.warns(UserWarning, match="skipped 1 bad file") as caught:
        ObjectBank.from_folder(tmp_path, on_error="skip")
    assert len(caught) == 1


def test_what_has_no_pixels_of_its_own():
    assert ObjectBank.from_glyphs("a").size == 256
    assert ContextBank.procedural("solid", count=2).size == 128


@pytest.mark.parametrize(
    ("objects", "contexts", "size", "ranges", "named"),
    [
        (64, 64, 64, SceneRange(), ()),
        (64, 256, 224, SceneRange(), ("objects",)),
        (256, 64, 224, SceneRange(), ("contexts",)),
        (64, 64, (224, 128), SceneRange(), ("objects", "contexts")),
        (256, 256, 224, SceneRange(), ()),
        (64, 256, 224, SceneRange(pose=PoseRange(scale=(0.1, 0.2))), ()),
        (64, 256, 224, SceneRange(framing=Framing(side=0.2)), ()),
        (64, 256, 224, SceneRange(pose=PoseRange(scale=(0.1, 0.2)), framing=Framing()), ("objects",)),
    ],
)
@pytest.mark.parametrize("kind", [Composer, CAGCollate])
def test_a_bank_that_is_coarse_for_the_canvas_is_warned_of(objects, contexts, size, ranges, named, kind):
    banks = make_objects(size=objects), make_contexts(count=2, size=contexts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kind(*banks, size if isinstance(size, tuple) else (size, size), ranges=ranges)
    assert [str(w.message).partition(":")[0] for w in caught] == list(named)
    if not hasattr(kind.__init__, "__wrapped__"):  # run-time shape checks stand between
        assert {w.filename for w in caught} <= {__file__}  # the user's own line
    assert all(
        "they will look soft. Build it with size=256; from files, with pictures of about that size." in str(w.message)
        for w in caught
    )


def test_photos_are_as_fine_as_the_canvas_and_objects_are_warned_of_once():
    with pytest.warns(
        UserWarning, match=r"^objects: the bank holds 32 x 32 pixels a picture, 28 .* up to 91:"
    ) as caught:
        collate = CAGCollate(make_objects(), None, 96)
    assert len(caught) == 1
    for _ in range(2):
        collate([torch.zeros(3, 20, 20)])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [None, 130])
def test_recipes_have_banks_for_their_canvas(name, size):
    recipe = RECIPES[name]
    size = size or recipe.size
    texels = type(recipe).texels.fget(type("Any", (), {"size": size}))
    Composer(make_objects(size=texels), make_contexts(count=2, size=texels), (size, size), recipe.ranges)
    assert texels == {28: 64, 40: 64, 64: 64, 96: 128, 130: 256, 192: 256}[size]


def test_thickness_of_a_recipe_follows_its_canvas():
    small, large = (replace(RECIPES["digits"], size=size).objects(None) for size in (28, 100))
    assert (small.size, large.size) == (64, 128)
    one, other = (bank.pyramid.level(0)[:5, 3].float().mean((1, 2)) for bank in (small, large))
    torch.testing.assert_close(one, other, rtol=0.08, atol=0.5)
