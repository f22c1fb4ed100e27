"""Exported networks say what the run says, or are not there."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from kornia_cag import InputError
from kornia_cag.training import exported
from kornia_cag.training.exported import export_network
from kornia_cag.training.network import Trained, load_network, save_network
from kornia_cag.training.recipes import DIGITS

pytestmark = pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")  # torch 2.13, of its own weights

CLASSES = ("stop", "give way", "no entry")
RECIPE = replace(DIGITS, size=16, width=4, views=2)
PAGE = Path(__file__).parents[2] / "docs/how-to/export.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, and both exports of it."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_network(folder / "model.pt", RECIPE.model(3), RECIPE, CLASSES, None)
    trained = load_network(folder)
    for name in ("signs.onnx", "signs.pt2"):
        assert export_network(trained, folder / name) < 1e-4
    return folder, trained


@pytest.mark.parametrize("count", [1, 5])
def test_onnx_says_what_the_run_says_in_batches_of_any_size(run, count):
    folder, trained = run
    images = torch.rand(count, 3, 16, 16)
    session = onnxruntime.InferenceSession(folder / "signs.onnx")
    logits = session.run(["logits"], {"images": images.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), trained.network(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 5])
def test_a_program_says_what_the_run_says(run, count):
    folder, trained = run
    images = torch.rand(count, 3, 16, 16)
    with torch.no_grad():
        found = torch.export.load(folder / "signs.pt2").module()(images)
        torch.testing.assert_close(found, trained.network(images))


def test_what_is_told_in_the_file(run):
    folder, _ = run
    extra = {"kornia_cag.json": ""}
    torch.export.load(folder / "signs.pt2", extra_files=extra)
    model = onnx.load(folder / "signs.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told == json.loads(extra["kornia_cag.json"])
    assert json.loads(told["classes"]) == list(CLASSES)
    assert (told["size"], told["fit"], told["recipe"], told["averaged"]) == ("16", "squash", "digits", "2")
    assert told["input"].startswith("images: float32 (batch, 3, 16, 16), RGB in [0, 1]. Resize the whole picture")
    (given,), (output,) = model.graph.input, model.graph.output
    assert (given.name, output.name) == ("images", "logits")
    for value, sides in ((given, ["batch", 3, 16, 16]), (output, ["batch", 3])):
        assert [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim] == sides
    assert [entry.version for entry in model.opset_import if not entry.domain] == [exported.OPSET]
    onnx.checker.check_model(model)


def test_the_page_reads_both(run, monkeypatch, capsys):
    folder, trained = run
    monkeypatch.chdir(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    reading, program, _ = blocks()
    names = {}
    exec(compile(reading.replace("photo.jpg", "photo.png"), PAGE.name, "exec"), names)
    name, share = capsys.readouterr().out.rsplit(maxsplit=1)
    (found,) = trained.predict("photo.png", top=1)
    assert name == found.name
    assert float(share) == pytest.approx(found.probability, abs=0.01)  # Pillow resizes in 8 bits
    exec(compile(program, PAGE.name, "exec"), names)
    assert names["classes"] == list(CLASSES)
    assert names["logits"].shape == (5, 3)


class Own(nn.Module):
    """A network of the user's own."""

    def __init__(self, classes, size):
        super().__init__()
        self.linear = nn.Linear(3 * size * size, classes)

    def forward(self, images):
        return self.linear(images.flatten(1))


class Branching(Own):
    """Looks at values."""

    def forward(self, images):
        return super().forward(images if images.mean() > 0.5 else 1 - images)


class Counting(Own):
    """Takes the size of the batch for a constant."""

    def forward(self, images):
        return super().forward(images) + torch.zeros(len(images), 1)


class Drifting(Own):
    """Not the same twice."""

    def forward(self, images):
        return super().forward(images) + torch.rand(images.shape[0], 1)


def own(kind):
    torch.manual_seed(0)
    return Trained(kind(3, 16).eval(), replace(RECIPE, views=1), CLASSES)


def test_a_network_of_ones_own(tmp_path):
    assert export_network(own(Own), tmp_path / "own.pt2", images=torch.rand(3, 3, 16, 16)) == 0


def test_how_to_prepare_pictures_is_told_as_the_recipe_has_it(tmp_path):
    trained = own(Own)
    trained = trained._replace(recipe=replace(trained.recipe, fit="cover"))
    export_network(trained, tmp_path / "own.pt2", images=torch.rand(3, 3, 16, 16))
    extra = {"kornia_cag.json": ""}
    torch.export.load(tmp_path / "own.pt2", extra_files=extra)
    told = json.loads(extra["kornia_cag.json"])
    assert (told["fit"], told["averaged"]) == ("cover", "1")
    assert "RGB in [0, 1]. Resize square views of the picture" in told["input"]


def test_too_little_memory_is_not_taken_for_a_fault_of_the_network(tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch.export, "export", full)
    with pytest.raises(torch.OutOfMemoryError):
        export_network(own(Own), tmp_path / "own.pt2")


@pytest.mark.parametrize("kind", [Branching, Counting])
def test_a_network_that_cannot_be_traced_is_refused_in_one_line(tmp_path, kind):
    with pytest.raises(
        InputError, match=r"^network: expected a network that torch\.export can trace, got \w+: "
    ) as told:
        export_network(own(kind), tmp_path / "own.pt2")
    assert "\n" not in str(told.value)
    assert str(told.value).endswith("images.shape[0], not len(images).")
    assert list(tmp_path.iterdir()) == []


def test_what_says_something_else_is_never_written(tmp_path):
    place = tmp_path / "model.pt2"
    place.write_bytes(b"an earlier one")
    with pytest.raises(
        InputError, match=r"^network: expected an export with the same classes, and logits within 0\.001"
    ):
        export_network(own(Drifting), place)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert place.read_bytes() == b"an earlier one"


def test_wrong_arguments(tmp_path, monkeypatch):
    trained = own(Own)
    for name, message in (("x.txt", "format: expected onnx or torch, or a file that ends in"), ("no/x.pt2", "path: ")):
        with pytest.raises(InputError, match=f"^{message}"):
            export_network(trained, tmp_path / name)
    with pytest.raises(InputError, match=r"^images: expected float32 \(n, 3, 16, 16\)"):
        export_network(trained, tmp_path / "x.pt2", images=torch.rand(2, 3, 8, 8))
    for images in (torch.rand(0, 3, 16, 16), 255 * torch.rand(2, 3, 16, 16)):
        with pytest.raises(InputError, match=r"^images: expected (at least one pixel|values in \[0, 1\]), got "):
            export_network(trained, tmp_path / "x.pt2", images=images)
    monkeypatch.setattr(exported, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(
        InputError,
        match=r"^format: expected the packages onnx, onnxscript, onnxruntime, got no onnxruntime\. Install what is "
        r'missing: pip install "kornia_cag\[export\]"\.$',
    ):
        export_network(trained, tmp_path / "x.onnx")


def test_a_network_or_an_export_that_gives_nan_is_refused(tmp_path):
    class NotANumber(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)) * float("nan")

    with pytest.raises(InputError, match=r"^network: expected finite logits, got others for 1 of 1 pictures\."):
        export_network(Trained(NotANumber(), RECIPE, CLASSES), tmp_path / "m.pt2")
    plain = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = (
        torch.tensor([1.0, 0.1, 0.1]).view(3, 1, 1).expand(2, 3, 16, 16)
    )  # the first class, which argmax says of NaN
    with pytest.raises(InputError, match="logits off by up to nan"):
        exported._compared(plain, lambda part: torch.full((len(part), 3), float("nan")), images)
    assert not any(tmp_path.iterdir())
