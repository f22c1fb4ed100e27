"""A model file is data: loading it imports and calls nothing that it names, and believes nothing that does not fit."""

import importlib
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import tinyrun
import torch
from torch import nn

import kornia_cag
from kornia_cag import InputError, Over
from kornia_cag.core.storage import read_torch, write_torch
from kornia_cag.training.network import load_network, save_network
from kornia_cag.training.recipe_data import changed as edited
from kornia_cag.training.recipes import DIGITS

TINY = replace(DIGITS, size=16, width=4, views=1)
CLASSES = ("a", "b", "c")


class Net(nn.Module):
    """With a buffer that holds infinity, as masks of attention do."""

    def __init__(self, classes, size):
        super().__init__()
        self.linear = nn.Linear(3 * size * size, classes)
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.fixture
def own(tmp_path):
    """A model of a function, and the file that it lies in."""
    path, network = tmp_path / "own.pt", Net(3, 16)
    save_network(path, network, TINY, CLASSES, "ownnets:net")
    return path, network


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.pt"
    save_network(path, TINY.model(3), TINY, CLASSES, None)
    return path


def changed(path, **fields):
    write_torch(path, {**read_torch(path, "file", "a model"), **fields})
    return path


@pytest.mark.parametrize(
    "function", ["os:kill", "helper:net", "builtins:exec", "kornia_cag.training.architectures:convnet"]
)
def test_nothing_that_a_file_names_is_imported_or_called(own, tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    Path("helper.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("called"))
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    path, _ = own
    changed(path, function=function)
    with pytest.raises(InputError) as caught:
        load_network(path)
    assert str(caught.value) == (
        "function: expected the function that builds the network, since nothing named in a file is called, got nothing"
        f"; {str(path)!r} names {function!r}. Pass function={function!r} if you trust it."
    )


def test_the_function_that_the_caller_names_makes_the_network(own, tmp_path, monkeypatch):
    path, network = own
    images = torch.rand(2, 3, 16, 16)
    monkeypatch.chdir(tmp_path)
    Path("othernets.py").write_text(f"from {__name__} import Net\ndef net(classes, size): return Net(classes, size)\n")
    for function in (Net, lambda classes, size: Net(classes, size), "othernets:net"):
        trained = load_network(path, function=function)
        assert torch.equal(trained.network(images), network.eval()(images))
        assert trained.classes == CLASSES


def test_another_function_does_not_fit(own, untyped):
    path, _ = own
    with pytest.raises(
        InputError, match=r"^path: expected weights that fit the network of .*a field '1\.bias', got none"
    ):
        load_network(path, function=lambda classes, size: nn.Sequential(nn.Flatten(), nn.Linear(768, classes)))
    for function in (3, lambda classes: None, "nowhere:net"):
        with pytest.raises(InputError, match=r"^function: expected a function"):
            load_network(path, function=function)


@pytest.mark.parametrize("fields", [{"width": 65536}, {"views": 10**9}, {"network": "dcgan", "width": 65536}])
def test_a_file_cannot_ask_for_more_memory_than_it_brings(plain, monkeypatch, fields):
    monkeypatch.setattr(kornia_cag.training.network, "untried", lambda *_: pytest.fail("built"))  # but for its sizes
    saved = read_torch(plain, "file", "a model")
    with pytest.raises(InputError, match=r"^path: expected "):
        load_network(changed(plain, recipe={**saved["recipe"], **fields}))
    with pytest.raises(InputError, match=r"^path: expected "):
        load_network(changed(plain, recipe={**saved["recipe"], "size": 30_000}))


def test_a_network_of_a_function_is_not_tried_on_pictures_of_the_size_that_a_file_says(own, monkeypatch):
    path, network = own
    monkeypatch.setattr(Net, "forward", lambda *_: pytest.fail("tried"))
    recipe = read_torch(path, "file", "a model")["recipe"] | {"size": 30_000}
    trained = load_network(changed(path, recipe=recipe), function=lambda classes, size: Net(classes, 16))
    assert torch.equal(trained.network.linear.weight, network.linear.weight)
    assert not trained.network.training


def test_a_tensor_may_be_large_only_on_paper(plain):
    """A view with a stride of 0 has any number of values in a few bytes."""
    saved = read_torch(plain, "file", "a model")
    huge = torch.zeros(1).expand(10**12)
    for name in saved["state"]:
        with pytest.raises(InputError, match=rf"\(state\.{re.escape(name)}: expected .*, got float32 \(10+,\)"):
            load_network(changed(plain, state={**saved["state"], name: huge}))


def test_weights_are_finite(plain, own):
    state = read_torch(plain, "file", "a model")["state"]
    name = next(iter(state))
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=rf"state\.{re.escape(name)}: expected finite numbers"):
            load_network(changed(plain, state={**state, name: torch.full_like(state[name], value)}))
    path, _ = own
    changed(path, state={**read_torch(path, "file", "a model")["state"], "mask": torch.full((2,), float("nan"))})
    with pytest.raises(InputError, match=r"state\.mask: expected finite numbers"):
        load_network(path, function=Net)


@pytest.mark.parametrize("path", [None, 3, "missing", "", "a\0b"])
def test_what_is_no_file(path, tmp_path, monkeypatch, untyped):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        load_network(path)


def test_views_are_those_of_the_file_or_of_the_caller(plain):
    one, other = load_network(plain), load_network(plain, views=3)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(one.network(images), load_network(plain).network(images))
    assert (one.recipe.views, other.recipe.views) == (1, 3)


@pytest.fixture
def unfinished(tmp_path):
    """A training after 38 of its 72 images, and the folder of its checkpoint."""
    run = tinyrun.training(replace(tinyrun.TINY, views=2))
    run.run(save=tmp_path / "checkpoint.pt", stop=lambda: run.seen >= 32)
    return run, tmp_path


def test_an_unfinished_training_answers_with_the_weights_that_a_finished_one_would_use(unfinished):
    run, folder = unfinished
    images = torch.rand(2, 3, 16, 16)
    told = r": an unfinished training, of which 52 % is done; .* Resume it with Training\.load\.$"
    for path in (folder, folder / "checkpoint.pt"):
        with pytest.warns(UserWarning, match=f"^{re.escape(str(path))}{told}"):
            trained = load_network(path)
        assert torch.equal(trained.network(images), run.result(images))
        assert trained[1:] == (run.recipe, run.objects.classes, 38 / 72)
    assert not torch.equal(run.result(images), run.model.eval()(images))

    run.run(save=folder / "checkpoint.pt")  # to its end, and stopped before its model was written
    trained = load_network(folder)
    assert torch.equal(trained.network(images), run.result(images))
    save_network(folder / "model.pt", run.learner.average, run.recipe, run.objects.classes, None)
    assert torch.equal(load_network(folder).network(images), trained.network(images))
    assert load_network(folder).share == trained.share == 1


def test_a_model_comes_before_a_checkpoint(unfinished, plain):
    _, folder = unfinished
    plain.rename(folder / "model.pt")
    assert load_network(folder).classes == CLASSES


def test_a_run_that_has_saved_nothing_says_so(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(
        InputError, match=r"^path: expected a training that has saved something, got '.*', which has no"
    ):
        load_network(tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(
        InputError, match=r"^path: expected a folder with a model\.pt, .*model\.pt'\. Name the folder for"
    ):
        load_network(tmp_path / "model.pt")


@pytest.mark.parametrize("fields", [
    {"seen": -1}, {"seen": None}, {"plan": None}, {"plan": {}}, {"plan": {"images": 0}}, {"network": 3},
    {"network": {}}, {"average": {}}, {"average": None},
])  # fmt: skip
def test_a_checkpoint_is_not_believed(unfinished, fields):
    _, folder = unfinished
    changed(folder / "checkpoint.pt", **fields)
    with pytest.raises(InputError, match=r"^path: expected "), warnings.catch_warnings(action="ignore"):
        load_network(folder)


def test_a_checkpoint_says_no_more_of_a_recipe_than_a_file_can_hold(tmp_path):
    class Mine(Over):
        pass

    run = tinyrun.training(replace(tinyrun.TINY, ranges=replace(tinyrun.TINY.ranges, blend=Mine())))
    run.save(tmp_path / "checkpoint.pt")
    run.load(tmp_path / "checkpoint.pt")
    with pytest.raises(
        InputError, match=r"^path: expected a checkpoint whose recipe a file can hold, .* part of your own"
    ):
        load_network(tmp_path)


def test_a_model_of_a_recipe_of_ones_own_loads_anywhere(tmp_path):
    """The file holds the whole recipe, so neither its name nor its fields need to be known where it is read."""
    fields = {"name": "mine", "ranges.pose.angle": (-30, 30), "ranges.blend": "Hard", "attack": {"eps": 0.1}}
    recipe = edited(TINY, {**fields, "scene_attack": {"type": "WorstOf", "loss": "margin"}, "strength": {"stop": 3}})
    save_network(tmp_path / "model.pt", recipe.model(3), recipe, CLASSES, None)
    trained = load_network(tmp_path)
    assert trained.recipe == recipe
    assert trained.network(torch.rand(2, 3, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attack": {"eps": 0.1, "loss": "os:kill"}}, "recipe.attack.loss: expected one of cross_entropy, "),
        ({"ranges": {"blend": {"type": "os.kill"}}}, "recipe.ranges.blend.type: expected one of Over, "),
        ({"ranges": {"pose": {"angle": [30, -30]}}}, "recipe.ranges.pose.angle: expected a pair"),
        ({"ranges": None}, "recipe.ranges: expected the fields of SceneRange, got nothing"),
        ({"size": torch.zeros(3)}, "recipe.size: expected an integer, got float32 (3,)"),
        ({"dropout": float("nan")}, "recipe.dropout: expected a number in [0, 1], got nan"),
        ({"width": 10**400}, "recipe.width: expected an integer of at least 1"),
        ({"more": 1}, "recipe.more: expected one of name, size, "),
        ({5: 1}, "recipe.5: expected one of name, size, "),
        ({"attack": {5: 1}}, "recipe.attack.5: expected one of "),
    ],
)
def test_a_recipe_in_a_file_is_believed_no_more_than_the_rest(plain, monkeypatch, untyped, fields, said):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    saved = read_torch(plain, "file", "a model")
    with pytest.raises(InputError) as caught:
        load_network(changed(plain, recipe={**saved["recipe"], **fields}))
    assert str(caught.value).startswith(f"path: expected a model saved by kornia-cag train, got {str(plain)!r} ({said}")


@pytest.mark.parametrize("recipe", [None, 3, [1], "digits"])
def test_a_file_whose_recipe_is_something_else_says_so(plain, recipe):
    with pytest.raises(InputError, match=r"\(recipe: expected dict, got "):
        load_network(changed(plain, recipe=recipe))
