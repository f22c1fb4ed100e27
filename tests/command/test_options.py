"""Where the command reads and writes: places that cannot be right are refused before the work."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.command import cli
from kornia_cag.command.sheets import check_picture_name, save_sheet
from kornia_cag.command.values import fraction
from kornia_cag.core.lock import held
from kornia_cag.core.storage import write_json, write_torch
from kornia_cag.training.network import save_network
from kornia_cag.training.recipes import DIGITS, RECIPES

TINY = replace(DIGITS, size=16, images=16, batch_size=8, width=4, procedural=6, views=1)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(RECIPES, "digits", TINY)
    monkeypatch.chdir(tmp_path)
    np.savez("few.npz", images=np.zeros((10, 9, 9), np.uint8), labels=np.arange(10))
    for i in range(2):
        picture = np.zeros((20, 20, 4), np.uint8)
        picture[4:16, 2 : 8 + 9 * i] = 255
        for name, mode in ((f"signs/{i}.png", "RGBA"), (f"real/{i}/a.png", "RGB")):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).convert(mode).save(name)


@pytest.fixture
def refused(capsys):
    """Run a command that is refused; what it says."""

    def call(*arguments):
        try:
            status = cli.main([*arguments])
        except SystemExit as stopped:  # argparse's way
            status = stopped.code
        said = capsys.readouterr().err
        assert status == 2
        assert said.startswith("kornia-cag: ")
        assert said.count("\n") == 1
        return said

    return call


def files():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


@pytest.mark.parametrize("value", ["", "a\0b"])
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train digits", ("--objects", "--contexts", "--real", "--out")),
        ("ablate digits", ("--objects", "--contexts", "--real", "--out")),
        ("evaluate model.pt", ("--objects", "--contexts", "--real", "--errors")),
        ("preview digits", ("--objects", "--contexts", "--out", "--model-from")),
        ("inspect digits", ("--objects", "--contexts")),
        ("bench digits", ("--objects", "--contexts")),
    ],
)
def test_a_place_has_a_name(refused, command, options, value):
    for option in options:
        assert f"argument {option}: expected the name of a file or folder, got {value!r}" in refused(
            *command.split(), option, value
        )
    assert "argument RUN: expected the name of a file or folder" in refused("evaluate", value)


@pytest.mark.parametrize("out", ["signs", "signs/", "./signs/../signs", "signs/run", "signs/a/b", "link", "link/run"])
@pytest.mark.parametrize("command", [("train", "digits"), ("ablate", "digits", "--real", "real")])
def test_results_do_not_land_among_the_objects(refused, out, command):
    Path("link").symlink_to("signs")
    before = files()
    said = refused(*command, "--objects", "signs", "--out", out)
    assert f"--out: expected a place outside of --objects 'signs', which is only read, got {str(Path(out))!r}." in said
    assert files() == before


@pytest.mark.parametrize(
    "command",
    [
        "train digits --contexts signs --out signs",
        "train digits --real real --out real/0",
        "train digits --real real --out real",
        "train digits --objects . ",
        "ablate digits --contexts signs --out signs/x",
        "preview digits --objects signs --out signs/sheet.png",
        "preview digits --contexts . ",
        "evaluate model.pt --real real --errors real/errors.png",
        "evaluate model.pt --attack context --objects signs --contexts real --errors signs/errors.png",
    ],
)
def test_nor_among_any_pictures_that_are_read(refused, command):
    before = files()
    assert "expected a place outside of --" in refused(*command.split())
    assert files() == before


def test_a_place_beside_or_above_is_right(capsys):
    out = ("--objects", "signs", "--out", "signs-run", "--images", "8")
    assert cli.main(["train", "digits", *out]) == 0
    assert cli.main(["preview", "digits", "--objects", "signs", "--contexts", "procedural", "--out", "sheet.png"]) == 0


READ_ONLY = ["psd", "ico", "icns", "msp", "xbm", "hdf", "wmf", "fits", "mpeg", "palm", "cur", "xpm"]


@pytest.mark.parametrize("suffix", READ_ONLY)
def test_a_format_that_pillow_does_not_write_is_refused_before_the_work(refused, monkeypatch, suffix):
    monkeypatch.setattr("kornia_cag.command.preview.load_banks", lambda *_: pytest.fail("worked in vain"))
    monkeypatch.setattr("kornia_cag.command.evaluate.read_model", lambda *_, **__: pytest.fail("worked in vain"))
    wanted = f"expected a picture file that Pillow can write, such as preview.png, got 'x.{suffix}'"
    assert f"--out: {wanted}" in refused("preview", "digits", "--out", f"x.{suffix}")
    assert f"--errors: {wanted}" in refused("evaluate", "model.pt", "--errors", f"x.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "webp", "tiff", "bmp", "gif", "ppm"])
def test_formats_of_pictures_are_written(suffix, tmp_path):
    assert check_picture_name("path", f"x.{suffix}") in Image.SAVE
    save_sheet(tmp_path / f"x.{suffix}", torch.rand(2, 3, 5, 5))
    with Image.open(tmp_path / f"x.{suffix}") as picture:
        assert picture.size == (8 * 11 + 1, 12)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_picture_too_large_for_its_format_is_refused(suffix, capfd):
    with pytest.raises(
        InputError, match=r"path: expected a format that holds 70802 x 12 pixels, got .* Write a \.png\."
    ):
        save_sheet(f"x.{suffix}", torch.zeros(1, 3, 5, 35400), 1, zoom=2)
    assert not Path(f"x.{suffix}").exists()
    assert capfd.readouterr().err == ""  # of the codec


def test_a_folder_in_use_is_refused(refused):
    Path("o").mkdir()
    before = files()
    with held(Path("o")):
        for command in (("train", "digits"), ("ablate", "digits", "--real", "real", "--objects", "signs")):
            said = refused(*command, "--out", "o")
            assert "--out: expected a folder that no other run writes to, got 'o', in use by process " in said
    assert files() == sorted(["o/.lock", *before])


def test_a_model_of_a_function_is_told_it_on_the_command_line(refused, capsys):
    Path("commandnets.py").write_text(
        "from torch import nn\ndef net(classes, size): return nn.Sequential(nn.Flatten(), nn.Linear(768, classes))\n"
    )
    train = ("train", "digits", "--images", "8", "--model", "commandnets:net", "--real", "few.npz", "--out", "o")
    assert cli.main([*train]) == 0
    capsys.readouterr()
    preview = ("preview", "digits", "--eps", "0.1", "--model-from", "o")
    for command in (("evaluate", "o", "--real", "few.npz"), preview):
        assert refused(*command).endswith("names 'commandnets:net'. Pass --model 'commandnets:net' if you trust it.\n")
        assert cli.main([*command, "--model", "commandnets:net"]) == 0
        assert "--model: expected a function that can be imported" in refused(*command, "--model", "elsewhere:net")
    assert "--model: expected to be used with --model-from" in refused(*preview[:-2], "--model", "commandnets:net")


def test_a_model_that_names_what_it_likes_kills_nobody(refused, monkeypatch):
    monkeypatch.setattr("os.kill", lambda *_: pytest.fail("called"))
    save_network(Path("model.pt"), TINY.model(3), TINY, ("a", "b", "c"), "os:kill")
    Path("helper.py").write_text("raise SystemExit('imported')\n")
    assert "names 'os:kill'" in refused("evaluate", "model.pt", "--real", "real")
    assert "names 'os:kill'" in refused("preview", "digits", "--eps", "0.1", "--model-from", "model.pt")


@pytest.mark.parametrize("name", ["config.json", "report.json"])
def test_a_run_with_a_damaged_description_is_not_used(refused, name, capsys):
    assert cli.main(["train", "digits", "--images", "8", "--real", "few.npz", "--out", "o"]) == 0
    capsys.readouterr()  # the progress of a run that is right
    resume = ("train", "digits", "--images", "8", "--real", "few.npz", "--out", "o", "--resume")
    file = Path("o") / name
    file.write_bytes(file.read_bytes().replace(b"digits", b"digitz", 1))
    damaged = f"expected a {name} as train writes it, got 'o/{name}', which is damaged"
    assert f"--resume: {damaged}" in refused(*resume)
    assert f"model: {damaged}" in refused("evaluate", "o")
    file.unlink()
    assert cli.main([*resume]) == 0
    assert cli.main(["evaluate", "o", "--real", "few.npz"]) == 0


def test_nobody_is_told_to_load_without_care(refused):
    torch.save({"a": Path("x")}, "x.pt")  # torch advises weights_only=False
    write_torch("y.pt", {"a": 1})
    write_json("z.pt", {})
    Path("runs/digits").mkdir(parents=True)
    for file in ("x.pt", "y.pt", "z.pt", "signs/0.png"):
        Path("runs/digits/checkpoint.pt").write_bytes(Path(file).read_bytes())
        for said in (refused("evaluate", file), refused("train", "digits", "--resume")):
            assert not any(word in said for word in ("weights_only", "unsafe", "allow_pickle", "trust"))


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), ("1e-2/2", 0.005), ("0/3", 0.0)])
def test_an_eps_is_a_number_or_a_fraction(text, value):
    assert fraction(text) == value


@pytest.mark.parametrize("text", ["", "/", "8/", "/255", "8/0", "1/2/3", "little", "a/b"])
def test_anything_else_is_no_fraction(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"expected a number, or a fraction such as 8/255, got '{text}'"
    ):
        fraction(text)


@pytest.mark.parametrize("command", ["train", "preview", "inspect", "bench", "ablate"])
def test_a_folder_in_the_place_of_a_recipe_is_one_of_objects(refused, command):
    Path("my digit").mkdir()
    for folder, word in (("./signs", "./signs"), ("real", "real"), ("my digit", "'my digit'")):
        said = refused(command, folder)
        assert f"got {folder!r}, a folder. A folder of pictures is given with --objects {word}. (see" in said
    assert "got 'sign'. Did you mean signs?" in refused(command, "sign")
    assert "got 'a\\x00b'" in refused(command, "a\0b")
