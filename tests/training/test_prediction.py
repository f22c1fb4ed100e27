"""Predictions: which pictures are meant, how they are read, and what is said of them."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kornia_cag
from kornia_cag import InputError
from kornia_cag.evaluation.accuracy import evaluate
from kornia_cag.evaluation.real import load_real
from kornia_cag.training import prediction
from kornia_cag.training.network import Trained, save_network
from kornia_cag.training.prediction import Refused, located
from kornia_cag.training.recipes import DIGITS, SIGNS

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Brightest(torch.nn.Module):
    """Says which channel has most light."""

    def forward(self, images):
        return 10 * images.mean(dim=(2, 3))


def seeing(fit="squash"):
    return Trained(Brightest(), replace(SIGNS, size=16, fit=fit), tuple(COLOURS))


def plain(colour, size=(20, 20)):
    return Image.new("RGB", size, COLOURS[colour])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures, some of them in a folder below, and other files."""
    monkeypatch.chdir(tmp_path)
    for name, colour in (("b.png", "blue"), ("a.jpg", "red"), ("below/c.png", "green"), ("x[1].png", "green")):
        place = tmp_path / "photos" / name
        place.parent.mkdir(exist_ok=True, parents=True)
        plain(colour).save(place)
    return tmp_path / "photos"


def told(found):
    return [(one.path, one.name) for one in found]


ALL = [("photos/a.jpg", "red"), ("photos/b.png", "blue"), ("photos/below/c.png", "green"), ("photos/x[1].png", "green")]


@pytest.mark.parametrize(
    ("photos", "expected"),
    [
        ("photos/a.jpg", ALL[:1]),
        (Path("photos"), ALL),
        ("photos/*.png", [ALL[1], ALL[3]]),
        ("photos/**/*.png", ALL[1:]),
        ("photos/x[1].png", ALL[3:]),  # a name before it is a pattern
        ("photos/[ab].*", ALL[:2]),
        ("photo?", ALL),
        (["photos/b.png", Path("photos/a.jpg")], [ALL[1], ALL[0]]),
    ],
)
def test_files_folders_and_patterns(folder, photos, expected):
    assert told(seeing().predict(photos)) == expected


def test_pictures_in_memory(folder):
    red, blue = plain("red"), np.asarray(plain("blue"))
    tensor = torch.from_numpy(blue.copy()).permute(2, 0, 1)
    encoded = io.BytesIO()
    red.save(encoded, "PNG")
    mixed = [red, blue, tensor, tensor.float() / 255, encoded.getvalue(), (blue, 3), "photos/a.jpg"]
    found = list(seeing().predict(mixed))
    assert [one.path for one in found] == [*(f"photos[{i}]" for i in range(6)), "photos/a.jpg"]
    assert [one.name for one in found] == ["red", "blue", "blue", "blue", "red", "blue", "red"]
    for one in (red, blue, tensor, encoded.getvalue(), {"image": red}):
        (found,) = seeing().predict(one)
        assert found.path == "photos"
    batch = torch.stack([tensor, tensor.flip(0)])
    assert [one.name for one in seeing().predict(batch)] == ["blue", "red"]
    assert [one.name for one in seeing().predict(photo for photo in (red, blue))] == ["red", "blue"]
    for wrong in (3, None):
        with pytest.raises(InputError, match=r"^photos: expected a path, a picture, or several, got "):
            next(seeing().predict(wrong))


def test_names_come_with_probabilities(untyped):
    (found,) = seeing().predict(plain("green"), top=2)
    (every,) = seeing().predict(plain("green"), top=9)
    assert (found.name, found.probability) == found.ranked[0]
    assert found.name == "green"
    assert (len(found.ranked), len(every.ranked)) == (2, 3)
    assert sum(share for _, share in every.ranked) == pytest.approx(1)
    expected = torch.tensor([0.0, 10.0, 0.0]).softmax(0)[1]
    assert found.probability == pytest.approx(float(expected))
    for top in (0, 1.5):
        with pytest.raises(InputError, match=r"^top: expected an integer"):
            seeing().predict(plain("green"), top=top)


def rotated(path):
    """Blue above red as stored, red above blue as shown."""
    stored = np.asarray(plain("red")).copy()
    stored[:10] = COLOURS["blue"]
    exif = Image.Exif()
    exif[0x0112] = 3  # by half a turn
    Image.fromarray(stored).save(path, exif=exif)


MODES = {
    "16 bit": (lambda path: Image.fromarray(np.full((9, 9), 2**15, np.uint16)).save(path), ".png", 128),
    "cmyk": (lambda path: plain("red").convert("CMYK").save(path, quality=100), ".jpg", COLOURS["red"]),
    "palette": (lambda path: plain("red").quantize(4).save(path), ".png", COLOURS["red"]),
    "transparent": (lambda path: Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(path), ".png", 255),
    "half transparent": (lambda path: Image.new("RGBA", (9, 9), (0, 0, 0, 51)).save(path), ".png", 204),
    "tiny": (lambda path: plain("blue", (1, 1)).save(path), ".png", COLOURS["blue"]),
    "large": (lambda path: plain("green", (3000, 2000)).save(path), ".jpg", COLOURS["green"]),
    "animated": (lambda path: plain("red").save(path, save_all=True, append_images=[plain("blue")]), ".gif",
                 COLOURS["red"]),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fit", ["squash", "cover"])
def test_pictures_of_any_mode_and_size(tmp_path, mode, fit):
    """Seen as a viewer shows them; transparent ones on white."""
    write, suffix, expected = MODES[mode]
    write(tmp_path / f"photo{suffix}")
    views: list[torch.Tensor] = []
    trained = seeing(fit)
    trained.network.register_forward_hook(lambda network, images, logits: views.append(images[0]))
    list(trained.predict(tmp_path))
    colour = torch.as_tensor(expected).expand(3)[:, None, None].expand_as(views[0][0]) / 255
    torch.testing.assert_close(views[0][0], colour, atol=0.02, rtol=0)


def test_pictures_are_seen_upright(tmp_path):
    rotated(tmp_path / "photo.jpg")
    seen: list[torch.Tensor] = []
    trained = seeing()
    trained.network.register_forward_hook(lambda network, images, logits: seen.append(images[0][0]))
    list(trained.predict(tmp_path / "photo.jpg"))
    assert seen[0][0, 2].mean() > 0.8 > 0.2 > seen[0][0, -3].mean()  # red above
    assert seen[0][2, -3].mean() > 0.8


@pytest.fixture
def spoilt(folder):
    """Beside pictures, what is none."""
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("text")
    (folder / "below" / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    return folder


def test_what_cannot_be_read_is_named(spoilt):
    found = seeing().predict("photos")
    assert told([next(found), next(found)]) == ALL[:2]
    with pytest.raises(InputError, match=r"^photos/below/cut\.jpg: expected a whole picture, got a truncated"):
        list(found)
    skipping = seeing().predict(["photos", "nowhere/*.png", "gone.png", Image.new("F", (3, 3))], on_error="skip")
    with pytest.warns(UserWarning, match=r"skipped 6 picture\(s\): photos/below/cut.jpg \(expected .*; and 3 more"):
        assert told(skipping) == ALL
    with pytest.warns(UserWarning, match=r"\.png or \.jpg, got another suffix\)$") as warned:
        list(seeing().predict("photos", on_error="skip"))
    assert not [one for one in warned if "on_error" in str(one.message) or "Take it out" in str(one.message)]
    with pytest.raises(InputError, match=r"^on_error: expected one of 'raise', 'skip'"):
        seeing().predict("photos", on_error="report")


def test_what_cannot_be_read_keeps_its_place(folder):
    (folder / "az.txt").write_text("text")
    found = [one.path if isinstance(one, Refused) else one[0] for one in located("photos")]
    assert found == ["photos/a.jpg", "photos/az.txt", "photos/b.png", "photos/below/c.png", "photos/x[1].png"]


def test_each_reason_is_told_once(spoilt):
    found = [one for one in located(["photos", "nowhere/*.png", "photos/a.jpg/b"]) if isinstance(one, Refused)]
    assert [one.path for one in found] == ["photos/notes.txt", "nowhere/*.png"]
    assert found[1].reason == "expected a pattern of files that exist, got no match."
    empty = spoilt / "empty"
    empty.mkdir()
    (only,) = located(empty)
    assert str(only) == f"{empty}: expected pictures, got none."


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("pattern", ["photos/**/*.png", "photos/**", "**/*.png", "p*/**/*.png", "photos/**/**/*.png"])
def test_links_in_circles_lead_to_each_file_once(folder, pattern):
    for place in ("one", "other", "below/up", "below/again"):  # glob would double what it finds at every turn
        (folder / place).symlink_to(folder)
    (folder / "a.jpg").unlink()
    (folder / "below/second.png").symlink_to(folder / "b.png")
    found = list(located(pattern))
    assert sorted(os.path.realpath(path) for _, path in found) == [
        str(folder / name) for name in ("b.png", "below/c.png", "x[1].png")
    ]


def test_a_pattern_that_nothing_matches(folder):
    for pattern in ("nope/**", "nope/**/*.png", "photos/**/*.bmp", "photos/[yz].png"):
        (found,) = located(pattern)
        assert found == Refused(pattern, "expected a pattern of files that exist, got no match.", unmatched=True)
    (folder / "empty").mkdir()
    found = list(located("photos/*"))  # a folder without pictures keeps nothing else back
    assert [one.path for one in found if isinstance(one, Refused)] == ["photos/empty"]
    assert len(found) == 5


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
def test_a_link_named_like_a_pattern_leads_nowhere(tmp_path):
    (tmp_path / "x*.png").symlink_to(tmp_path / "gone")
    (found,) = located(tmp_path / "x*.png")
    assert found == (str(tmp_path / "x*.png"), tmp_path / "x*.png")


def test_pictures_are_read_as_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(prediction, "BATCH", 4)
    asked = []

    def photos():
        for i in range(1000):
            asked.append(i)
            yield plain(tuple(COLOURS)[i % 3])

    found = seeing().predict(photos())
    assert [next(found).name for _ in range(5)] == ["red", "green", "blue", "red", "green"]
    assert len(asked) == 8


def test_wide_pictures_are_seen_in_smaller_batches():
    trained, seen = seeing(), []
    trained.network.register_forward_hook(lambda network, images, logits: seen.append(len(images[0])))
    for size in (256, 512, 4096):
        wide = trained._replace(recipe=replace(trained.recipe, size=size))
        seen.clear()
        list(wide.predict([plain("red", (2, 2))] * (2 if size == 4096 else 20)))
        assert seen == {256: [20], 512: [16, 4], 4096: [1, 1]}[size]


def test_a_picture_is_seen_alike_in_any_batch(monkeypatch):
    photos = [plain(tuple(COLOURS)[i % 3], (20 + 7 * i, 20)) for i in range(9)]
    together = list(seeing("cover").predict(photos))
    monkeypatch.setattr(prediction, "BATCH", 1)
    assert [one.ranked for one in seeing("cover").predict(photos)] == [one.ranked for one in together]


@pytest.mark.parametrize("fit", ["squash", "cover"])
def test_predictions_are_those_that_evaluate_measures(tmp_path, fit):
    rng = np.random.default_rng(0)
    for name in ("red/1.png", "red/2.jpg", "green/3.png", "blue/4.png", "blue/5.jpg", "blue/6.png"):
        (tmp_path / "real" / name).parent.mkdir(exist_ok=True, parents=True)
        pixels = rng.integers(0, 256, (*rng.integers(9, 60, 2), 4), dtype=np.uint8)
        Image.fromarray(pixels if name.endswith("png") else pixels[..., :3].copy()).save(tmp_path / "real" / name)
    trained = seeing(fit)
    real = load_real(tmp_path / "real", trained.classes, 16, fit)
    accuracy = evaluate(trained.network, real, trained.classes, trained.device)
    found = list(trained.predict(tmp_path / "real"))
    assert [trained.classes.index(one.name) for one in found] == accuracy.predicted.tolist()
    assert len(set(accuracy.predicted.tolist())) > 1


def test_an_odd_colour_profile_is_told_once(folder):
    for name in ("a.jpg", "b.png"):
        plain("red").save(folder / name, icc_profile=b"no profile")
    with pytest.warns(
        UserWarning, match=r"read 2 file\(s\) as sRGB, whose colour profile cannot be used: photos/a.jpg"
    ):
        list(seeing().predict("photos"))


def test_the_network_of_a_file_predicts(tmp_path):
    recipe = replace(DIGITS, size=16, width=4)
    save_network(tmp_path / "model.pt", recipe.model(3), recipe, tuple(COLOURS), None)
    (found,) = kornia_cag.load_network(tmp_path).predict(plain("red"), top=1)
    assert found.name in COLOURS


def test_logits_that_are_not_finite_are_no_prediction():
    class Dark(torch.nn.Module):
        """Divides by light."""

        def forward(self, images):
            light = images.mean(dim=(2, 3))
            return light / light.sum(dim=1, keepdim=True)

    trained = Trained(Dark(), replace(SIGNS, size=16), tuple(COLOURS))
    found = trained.predict([plain("red"), Image.new("RGB", (9, 9))])
    assert next(found).name == "red"
    with pytest.raises(InputError, match=r"^photos\[1\]: expected finite logits of the network, got others"):
        next(found)
