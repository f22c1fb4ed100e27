"""What a detector finds in photographs of any kind and size, in their own pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from kornia_cag import InputError, load_network
from kornia_cag.core import memory
from kornia_cag.evaluation.detection import Found
from kornia_cag.training.network import Trained, save_network
from kornia_cag.training.recipes import SIGNS, STREET


class Brightest(nn.Module):
    """Finds what is white."""

    def detect(self, images: Tensor, *, threshold: float) -> list[Found]:
        white = (images[0].amin(dim=0) > 0.9).nonzero()
        if not len(white):
            return [Found(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))]
        (top, left), (bottom, right) = white.amin(dim=0).tolist(), (white.amax(dim=0) + 1).tolist()
        return [Found(torch.tensor([[left, top, right, bottom]]).float(), torch.zeros(1, dtype=torch.int64),
                      torch.tensor([0.75]))]  # fmt: skip


TRAINED = Trained(Brightest(), STREET, ("a", "b"))


def painted(width: int = 60, height: int = 40) -> Image.Image:
    picture = Image.new("RGB", (width, height), (90, 20, 20))
    picture.paste((255, 255, 255), (10, 4, 30, 24))
    return picture


def test_paths_and_pictures_in_memory_say_the_same(tmp_path: Path) -> None:
    painted().save(tmp_path / "a.png")
    array = np.asarray(painted())
    given = [tmp_path / "a.png", painted(), torch.from_numpy(array.copy()).permute(2, 0, 1),
             torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255, array]  # fmt: skip
    seen = list(TRAINED.detect(given))
    assert [one.path for one in seen] == [str(tmp_path / "a.png"), *(f"photos[{place}]" for place in range(1, 5))]
    for one in seen:
        assert one.size == (40, 60)
        (found,) = one.objects
        assert (found.name, found.probability, found.box) == ("sign", 0.75, (10.0, 4.0, 30.0, 24.0))


def test_a_picture_is_seen_as_a_viewer_shows_it(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    painted().save(tmp_path / "a.png", exif=turned)
    (one,) = TRAINED.detect(tmp_path / "a.png")
    assert one.size == (60, 40)
    assert one.objects[0].box == (16.0, 10.0, 36.0, 30.0)


def test_bad_files_raise_or_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    painted().save(tmp_path / "good.png")
    with pytest.raises(InputError, match=r"bad\.png"):
        list(TRAINED.detect(tmp_path))
    with pytest.warns(UserWarning, match=r"skipped 1 picture"):
        (one,) = TRAINED.detect(tmp_path, on_error="skip")
    assert len(one.objects) == 1


def test_a_picture_that_fits_no_memory_is_refused_by_its_true_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 60 * 40 * 92)
    assert list(TRAINED.detect(painted()))
    monkeypatch.setattr(memory, "machine_memory", lambda: 60 * 40 * 92 - 1)
    with pytest.raises(
        InputError, match=r"^photos: .* 1 image of 60 x 40 pixels, which takes .* Make the picture smal"
    ):
        list(TRAINED.detect(painted()))


def test_numbers_that_are_none_are_the_network_s_fault() -> None:
    class Lost(Brightest):
        def detect(self, images: Tensor, *, threshold: float) -> list[Found]:
            return [one._replace(scores=one.scores * torch.nan) for one in super().detect(images, threshold=threshold)]

    with pytest.raises(InputError, match=r"^photos: expected finite boxes and scores of the network"):
        list(Trained(Lost(), STREET, ("a",)).detect(painted()))


def test_who_finds_names_no_pictures_and_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^network: expected one that names pictures, .* Call detect"):
        TRAINED.predict(painted())
    with pytest.raises(InputError, match=r"^network: expected one that finds objects, .* Call predict"):
        Trained(nn.Identity(), SIGNS, ("a", "b")).detect(painted())


def test_a_saved_detector_takes_pictures_of_any_size(tmp_path: Path) -> None:
    recipe = replace(STREET, width=4, size=32)
    save_network(tmp_path / "model.pt", recipe.model(1), recipe, ("a", "b", "c"), None)
    trained = load_network(tmp_path)
    assert (trained.names, trained.classes) == (("sign",), ("a", "b", "c"))
    one, other = trained.detect([painted(), painted(101, 67)], threshold=0.0)
    assert one.size == (40, 60)
    assert other.size == (67, 101)
    assert 0 < len(one.objects) < len(other.objects)
    shares = [found.probability for found in other.objects]
    assert shares == sorted(shares, reverse=True)
