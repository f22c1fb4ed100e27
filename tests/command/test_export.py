import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_cag.command import export as command
from kornia_cag.evaluation.real import load_real
from kornia_cag.training.makers import untried
from kornia_cag.training.network import save_network
from kornia_cag.training.recipes import DIGITS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = replace(DIGITS, size=16, width=4, views=1)
    save_network(Path("model.pt"), recipe.model(10), recipe, tuple("0123456789"), None)


def test_a_model_is_written_and_compared(run):
    assert run("export", "model.pt", "--out", "m.pt2") == (
        0, "wrote m.pt2: the same classes on 64 composites, logits within 0\n", "",
    )  # fmt: skip
    np.savez("real.npz", images=np.random.default_rng(0).integers(0, 255, (20, 9, 9), dtype=np.uint8),
             labels=np.arange(20) % 10)  # fmt: skip
    status, out, _ = run("export", "model.pt", "--out", "other", "--format", "torch", "--real", "real.npz")
    assert (status, out) == (0, "wrote other: the same classes on the 20 pictures of real.npz, logits within 0\n")
    assert Path("other").is_file()


def test_pictures_to_compare_on_are_those_of_the_option(run, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (20, 9, 9), dtype=np.uint8)
    np.savez("real.npz", images=images, labels=np.arange(20) % 10)
    given = []
    monkeypatch.setattr(command, "export_network", lambda *_, images, **__: given.append(images) or 0.0)
    assert run("export", "model.pt", "--out", "m.pt2", "--real", "real.npz")[0] == 0
    assert torch.equal(given[0], load_real("real.npz", tuple("0123456789"), 16).images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "m.txt"), "--format: expected onnx or torch, or a file that ends in .onnx or .pt2, got none, and "
                             "'m.txt'."),
        (("--out", "no/m.onnx"), "--out: expected a file in a folder that exists, got 'no/m.onnx'."),
        (("--out", "m.pt2", "--views", 0), "--views: expected an integer of at least 1, got 0."),
        (("--out", "m.pt2", "--real", "none.npz"), "--real: expected an .npz file or a folder, got 'none.npz', "
                                                   "which is neither. Check the path."),
    ],
)  # fmt: skip
def test_wrong_commands_end_in_one_line(run, arguments, message):
    assert run("export", "model.pt", *arguments) == (2, "", f"kornia-cag: {message}\n")


@pytest.mark.parametrize("model", [".", "model.pt"])
def test_the_model_itself_is_not_overwritten(run, model):
    Path("link").symlink_to("model.pt")
    before = Path("model.pt").read_bytes()
    for out in ("model.pt", "link"):
        status, _, err = run("export", model, "--out", out, "--format", "torch")
        assert (status, err) == (2, f"kornia-cag: --out: expected another file than the model itself, got {out!r}.\n")
    assert Path("model.pt").read_bytes() == before


def test_no_file_of_the_run_is_overwritten(run, monkeypatch):
    monkeypatch.setattr(command, "export_network", lambda *_, **__: pytest.fail("the work has begun"))
    Path("checkpoint.pt").write_bytes(b"weeks")
    for out in ("checkpoint.pt", "./config.json", "report.json"):
        for model in (".", "model.pt"):
            assert run("export", model, "--out", out, "--format", "torch") == (
                2, "", f"kornia-cag: --out: expected another file than those of the run, got {out!r}.\n",
            )  # fmt: skip
    np.savez("real.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.arange(2))
    status, _, err = run("export", "model.pt", "--out", "real.npz", "--format", "torch", "--real", "real.npz")
    assert (status, err) == (
        2, "kornia-cag: --out: expected another file than that of --real, which is only read, got 'real.npz'.\n",
    )  # fmt: skip


def test_a_place_that_cannot_be_written_is_refused_before_the_work(run, monkeypatch):
    monkeypatch.setattr(command, "export_network", lambda *_, **__: pytest.fail("the work has begun"))
    for out in (os.devnull, "."):
        status, said, err = run("export", "model.pt", "--out", out, "--format", "torch")
        assert (status, said, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"kornia-cag: --out: expected the name of a file, got {out!r}, which is a")

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("kornia_cag.core.storage.tempfile.TemporaryFile", refuse)
    assert run("export", "model.pt", "--out", "m.pt2")[::2] == (
        2, "kornia-cag: --out: expected a file in a folder that can be written to, got 'm.pt2' (permission denied).\n",
    )  # fmt: skip


def test_a_path_of_two_lines_is_printed_in_one(run, monkeypatch):
    monkeypatch.setattr(command, "export_network", lambda *_, **__: 0.0)
    assert run("export", "model.pt", "--out", "a\nb.pt2")[:2] == (
        0, "wrote a\\nb.pt2: the same classes on 64 composites, logits within 0\n",
    )  # fmt: skip


def test_a_network_that_cannot_be_exported(run):
    Path("branching.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, classes, size):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(3 * size * size, classes)\n"
        "    def forward(self, images):\n"
        "        return self.linear((images if images.sum() > 3 else -images).flatten(1))\n"
    )
    recipe = replace(DIGITS, size=16, views=1)
    save_network(Path("model.pt"), untried(recipe, 10, "branching:Net"), recipe, tuple("0123456789"), "branching:Net")
    status, out, err = run("export", "model.pt", "--model", "branching:Net", "--out", "m.pt2")
    assert (status, out, err.count("\n"), run.progress) == (2, "", 1, [])  # nor what torch prints
    assert err.startswith("kornia-cag: model: expected a network that torch.export can trace, got ")
    assert not Path("m.pt2").exists()
