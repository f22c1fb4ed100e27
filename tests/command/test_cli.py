import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kornia_cag
from kornia_cag import PGD
from kornia_cag.command.options import chosen_recipe
from kornia_cag.command.usage import parsed
from kornia_cag.core.storage import write_torch
from kornia_cag.training.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("tiny")


def test_version_and_help(run):
    assert run("--version") == (0, f"kornia-cag {kornia_cag.__version__}\n", "")
    status, out, _ = run("train", "--help")
    assert status == 0
    assert "--resume" in out


# --- what does not: status 2, one line, no traceback


def opaque():
    Path("opaque").mkdir()
    Image.new("RGB", (20, 20)).save("opaque/a.png")


def both_layouts():
    opaque()
    Path("opaque/b").mkdir()


def text_among_pictures():
    opaque()
    Path("opaque").rename("mixed")
    Path("mixed/notes.txt").write_text("no picture")


def damaged():
    Path("damaged").mkdir()
    Path("damaged/a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")


def occupied():
    Path("occupied").write_text("a file")


def pipe():
    os.mkfifo("pipe.png")


def damaged_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    Path("runs/digits/checkpoint.pt").write_bytes(b"damaged\ntwo lines")


def pickled_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    torch.save({"plan": Path("x")}, "runs/digits/checkpoint.pt")


def other_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    write_torch("runs/digits/checkpoint.pt", {"plan": {"seed": 5}})


def bad_npz():
    Path("bad.npz").write_bytes(b"PK\3\4")


def other_classes():
    np.savez("bad.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.array([0, 10]))


def other_folders():
    Path("real/eleven").mkdir(parents=True)


def begun():
    Path("begun").mkdir()
    Path("begun/config.json").touch()


def own(source, name="mine"):
    return lambda: Path(f"{name}.py").write_text(source)


MISTAKES = [
    ("train digits --objects missing", None, "--objects: expected a folder, got 'missing', which is not there"),
    ("train digits --objects empty", lambda: Path("empty").mkdir(), "empty: expected pictures"),
    ("train digits --objects occupied", occupied, "--objects: expected a folder, got 'occupied', which is a file"),
    ("train digits --objects opaque", opaque, "a.png: expected a picture with transparency"),
    ("train digits --objects opaque --key white", opaque, "no white pixel on the border"),
    ("train digits --objects opaque", both_layouts, "either one picture per class or one sub-folder per class"),
    ("train digits --objects damaged", damaged, "damaged/a.png: "),
    ("train signs", None, "--objects: expected a folder with one clean picture per class"),
    ("train digits --contexts missing", None, "--contexts: expected a folder, got 'missing', which is not"),
    ("train digits --contexts damaged", damaged, "damaged/a.png: "),
    ("train digits --real missing.npz", None, "real: expected an .npz file or a folder"),
    ("train digits --real bad.npz", bad_npz, "real: expected an .npz file with arrays 'images' and 'labels'"),
    ("train digits --real bad.npz", other_classes, "real labels: expected class ids 0 to 9, got 0 to 10"),
    ("train digits --real real", other_folders, "real: expected sub-folders named after the classes"),
    ("train digits --images 0", None, "--images: expected an integer of at least 1, got 0"),
    ("train digits --images -5", None, "--images: expected an integer of at least 1, got -5"),
    ("train digits --steps 0", None, "--steps: expected an integer of at least 1, got 0"),
    ("train digits --steps 3 --images 40", None, "--steps: expected either --steps or --images, got both"),
    (
        "train digits --batch-size 0",
        None,
        "--batch-size: expected an integer of at least 1 and at most 2147483647, got 0",
    ),
    ("train digits --size 8", None, "--size: expected an integer of at least 16 and at most 32768, got 8"),
    ("train digits --eps 8", None, "eps: expected a number in [0, 1], got 8.0"),
    ("train digits --eps nan", None, "eps: expected a number in [0, 1], got nan"),
    ("train digits --eps 0.1 --attack-steps 0", None, "--attack-steps: expected an integer of at least 1, got 0"),
    ("train digits --eps-object 0.1", None, "--eps-object: expected to be used with --eps, got no --eps"),
    ("train digits --attack-steps 2", None, "--attack-steps: expected to be used with --eps, got no --eps"),
    ("train digits --eps 0.1 --no-attack", None, "--eps: expected to be used without --no-attack, got both"),
    ("train digits --scene-attack worst --no-attack", None, "--scene-attack: expected to be used without --no-attack"),
    ("train digits --hard-pairing --no-chain", None, "--hard-pairing: expected to be used without --no-chain"),
    (
        "train photo-digits --hard-pairing",
        None,
        "--hard-pairing: expected a recipe with a chain, whose slots it orders",
    ),
    ("train digits --model mine", own("mine = 1"), "--model: expected module:function, such as mymodels:small"),
    ("train digits --model a/b:c", None, "--model: expected module:function"),
    ("train digits --model own_missing:net", None, "--model: expected a function that can be imported"),
    ("train digits --model own1:other", own("", "own1"), "has no attribute 'other'"),
    ("train digits --model own2:net", own("1 / 0", "own2"), "ZeroDivisionError"),
    ("train digits --model own3:net", own("net = 3", "own3"), "--model: expected a function, got 'own3:net'"),
    (
        "train digits --model own4:net",
        own("def net(): pass", "own4"),
        "--model: expected a function of (classes, size)",
    ),
    ("train digits --model own5:net", own("def net(c, s): return 7", "own5"), "a function that returns a torch.nn.Mod"),
    (
        "train digits --model own6:net",
        own("from torch.nn import Flatten\ndef net(c, s): return Flatten()", "own6"),
        "--model: expected a network with parameters to train, got that of 'own6:net', which has none",
    ),
    (
        "train digits --model own7:net",
        own("from torch import nn\ndef net(c, s): return nn.Linear(7, 7)", "own7"),
        "--model: expected a network that takes pictures (b, 3, 16, 16), got that of 'own7:net', which raised Runtime",
    ),
    (
        "train digits --model own8:net",
        own("from torch import nn\ndef net(c, s): return nn.Sequential(nn.Flatten(), nn.Linear(768, 7))", "own8"),
        "a network that returns logits (b, 10), also in train mode, got float32 (2, 7) for two pictures, from 'own8",
    ),
    ("train digits --out opaque/a.png", opaque, "--out: expected a folder, got 'opaque/a.png', which is a file"),
    ("evaluate begun", begun, "model: expected a training that has saved something, got 'begun', which has no check"),
    ("evaluate missing", None, "model: expected a folder with a model.pt, or such a file, got 'missing'"),
    ("evaluate empty", lambda: Path("empty").mkdir(), "model: expected a folder with a model.pt"),
    ("evaluate damaged/a.png", damaged, "model: expected a model saved by kornia-cag train"),
    ("evaluate x.pt", lambda: write_torch("x.pt", {"a": 1}), "model: expected a model saved by kornia-cag train"),
    ("preview digits --model-from missing --eps 0.1", None, "model: expected a folder with a model.pt"),
    ("preview digits --perturbation --no-attack", None, "--perturbation: expected to be used without --no-attack"),
    ("inspect", None, "--objects: expected a folder with one clean picture per class"),
    ("inspect signs", None, "--objects: expected a folder"),
    ("inspect digits --batch-size 0", None, "--batch-size: expected an integer of at least 1 and at most 2147"),
    ("train digits --seed -1", None, "--seed: expected an integer of at least 0, got -1"),
    ("train digits --seed 99999999999999999999", None, "seed: expected an integer"),
    ("train digits --device tpu", None, "--device: expected auto, or a device of this machine"),
    ("train digits --device meta", None, "--device: expected auto, or a device of this machine"),
    ("train digits --device cuda:99", None, "--device: expected auto, or a device of this machine"),
    ("train digits --resume", None, "--resume: expected a saved run in 'runs/digits', got none"),
    ("train digits --resume", damaged_checkpoint, "--resume: expected a run saved by kornia-cag train"),
    ("train digits --resume", pickled_checkpoint, "--resume: expected a run saved by kornia-cag train"),
    ("train digits --resume", other_checkpoint, "--resume: expected the options of the saved run, got recipe"),
    ("train digits --out occupied", occupied, "occupied"),
    ("train digits --out occupied/deeper", occupied, "occupied/deeper"),
    ("preview digits --rows 0", None, "--rows: expected an integer of at least 1 and at most 100, got 0"),
    ("preview digits --columns -1", None, "--columns: expected an integer of at least 1"),
    ("preview digits --zoom 99", None, "--zoom: expected an integer of at least 1 and at most 16, got 99"),
    ("preview digits --seed -1", None, "--seed: expected an integer of at least 0"),
    ("preview digits --device tpu", None, "--device: expected auto, or a device of this machine"),
    ("preview digits --out missing/x.png", None, "missing/x.png"),
    ("preview digits --out pipe.png", pipe, "--out: expected a file in a folder that exists, got 'pipe.png'"),
    (
        "preview digits --out sheet.text",
        None,
        "--out: expected a picture file that Pillow can write, such as preview.png",
    ),
    ("preview signs", None, "--objects: expected a folder"),
    ("preview digits --model-from x", None, "--model-from: expected to be used with something that needs a model"),
    ("train signs --objects opaque", opaque, "Add an alpha channel, or pass --key white if its background is white"),
    (
        "train signs --objects mixed",
        text_among_pictures,
        "mixed: expected only what can be used, got 2 problems: (1) notes.txt: ",
    ),
    ("train paper-digits --size 32", None, "--size: expected 28, which the network of 'paper-digits' takes, got 32"),
    ("train paper-digits --batch-size 1 --size 28", None, "--batch-size: expected at least 2"),
]


@pytest.mark.parametrize(("command", "prepare", "message"), MISTAKES, ids=[f"{c[:40]}" for c, _, _ in MISTAKES])
def test_a_mistake_is_said_in_one_line(run, command, prepare, message):
    if prepare is not None:
        prepare()
    status, _, err = run(*command.split())
    assert status == 2
    assert err.startswith("kornia-cag: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "required: COMMAND"),
        ("paint", "invalid choice: 'paint'"),
        ("train cats", "RECIPE: expected one of cutouts, "),
        ("train paper-sings", "or a file such as mine.yaml, got 'paper-sings'. Did you mean paper-signs?"),
        ("train digits --set size", "--set: expected FIELD=VALUE, such as ranges.pose.angle=-30,30, got 'size'"),
        ("recipe", "required: list|show"),
        ("train digits --images many", "--images: invalid int value: 'many'"),
        ("train digits --seed 1.5", "--seed: invalid int value"),
        ("train digits --key black", "--key: invalid choice: 'black'"),
        (
            "train digits --fast",
            "--fast: expected an option of kornia-cag train, got an unknown one (see kornia-cag tr",
        ),
        (
            "preview --colums 4",
            "--colums: expected an option of kornia-cag preview, got an unknown one. Did you mean --co",
        ),
        (
            "evaluate o --reel=a b",
            "--reel: expected an option of kornia-cag evaluate, got an unknown one. Did you mean --",
        ),
        (
            "predict o a --seed 1",
            "--seed: expected an option of kornia-cag predict, got an unknown one (see kornia-cag p",
        ),
        ("train -o x", "-o: expected an option of kornia-cag train, got an unknown one (see"),
        (
            "--threads 1 train",
            "--threads: expected an option of kornia-cag, got an unknown one (see kornia-cag --help)",
        ),
        (
            "recipe show signs --st a=1",
            "--st: expected an option of kornia-cag recipe show, got an unknown one. Did you ",
        ),
        ("train digits -- --seed", "unrecognized arguments: --seed"),
        ("preview digits --rows x", "--rows: invalid int value"),
        ("train digits --eps little", "--eps: expected a number, or a fraction such as 8/255, got 'little'"),
        ("evaluate", "required: RUN"),
        ("inspect cats", "got 'cats'"),
    ],
)
def test_a_command_line_that_cannot_be_read(run, command, message):
    status, out, err = run(*command.split())
    assert (status, out) == (2, "")
    assert err.startswith("kornia-cag: ")
    assert err.count("\n") == 1
    assert message in err


def test_options_may_be_abbreviated_and_their_values_may_begin_with_a_dash():
    options = parsed(["train", "digits", "--imag", "8", "--seed", "-1", "--out=-x", "--set", "ranges.pose.angle=-3,3"])
    assert (options.images, options.seed, options.out, len(options.set)) == (8, -1, "-x", 1)


@pytest.mark.parametrize("command", [
    "train digits --steps 1", "preview digits --rows 1", "inspect digits", "evaluate runs/digits",
    "predict runs/digits a.png", "export runs/digits --out a.pt2"
])  # fmt: skip
def test_every_command_takes_a_number_of_threads(run, monkeypatch, command):
    seen = []
    Image.new("RGB", (20, 20), "red").save("a.png")
    assert run("train", "digits", "--steps", 1)[0] == 0
    monkeypatch.setattr(torch, "set_num_threads", lambda count, set=torch.set_num_threads: seen.append(count) or set(1))
    assert run(*command.split(), "--threads", 2)[0] == 0
    assert seen[0] == 2
    assert run(*command.split(), "--threads", 0)[2].startswith(
        "kornia-cag: --threads: expected an integer of at least 1"
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["train", "digits", "--objects", "missing"], 2), (["preview", "digits", "--rows", "1"], 0)],
)
def test_the_process_itself(arguments, status):
    """Exit status and silence on standard error, warnings included, of the real thing."""
    root = str(Path(kornia_cag.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "kornia_cag", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == status
    assert done.stderr.count("kornia-cag: ") == (1 if status else 0)
    assert "Traceback" not in done.stderr


def test_a_recipes_step_stays_the_same_share_of_the_larger_budget(monkeypatch):
    monkeypatch.setitem(RECIPES, "signs", replace(RECIPES["signs"], attack=PGD(eps=0.1, eps_object=0.05, alpha=0.05)))
    assert chosen_recipe(parsed(["train", "signs", "--eps-object", "0.2"])).attack.alpha == pytest.approx(0.1)
    assert chosen_recipe(parsed(["train", "signs", "--eps", "0.2"])).attack.alpha == pytest.approx(0.1)
    assert chosen_recipe(parsed(["train", "signs", "--eps", "8/255"])).attack.eps == 8 / 255
    assert chosen_recipe(parsed(["train", "signs", "--attack-steps", "3"])).attack.alpha == pytest.approx(0.05)


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["train", "--help"], ["train", "signs", "--sedd", "1"]])
def test_the_command_line_is_read_before_torch_is_loaded(command):
    script = f"""
import sys
sys.argv[1:] = {command!r}
from kornia_cag.__main__ import main
try:
    main()
finally:
    print("torch" in sys.modules, "numpy" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    heavy = "False False" if "--sedd" not in command else "True True"  # a message may hold any character
    assert done.stderr.splitlines()[-1] == heavy
