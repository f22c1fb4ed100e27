"""A disk that fills: whatever was written before stays readable, nothing half is left, one line says it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import kornia_cag
from kornia_cag.command import cli
from kornia_cag.core import storage
from kornia_cag.core.storage import read_json
from kornia_cag.training.network import load_network
from kornia_cag.training.recipes import DIGITS, RECIPES
from kornia_cag.training.run import Training

SIZE = 4  # MiB
TINY = replace(DIGITS, size=16, batch_size=8, width=8, procedural=6, views=1)
SMALL = ("--images", "16", "--real", "real.npz", "--out", "disk/o")
RUN = ("train", "digits", *SMALL)
FEW = ("ablate", "digits", "--seeds", "1", *SMALL, "--only")
COMMANDS = {
    "train": RUN,
    "train again": (*RUN, "--resume"),
    "train another": (*RUN, "--seed", "1"),
    "evaluate": ("evaluate", "model.pt", "--real", "real.npz", "--errors", "disk/errors.png"),
    "preview": ("preview", "digits", "--out", "disk/sheet.png"),
    "ablate": (*FEW, "holes", "elastic", "--resume"),
}


def real():
    """Few pictures to measure on."""
    pictures = np.random.default_rng(0).integers(0, 255, (10, 20, 20), dtype=np.uint8)
    np.savez("real.npz", images=pictures, labels=np.arange(10))


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(RECIPES, "digits", TINY)
    monkeypatch.chdir(tmp_path)
    Path("disk").mkdir()
    real()


@pytest.fixture
def fill():
    """A small disk on ``disk``, and a function that fills it."""
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "none", "disk"], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    disk = Path("disk").absolute()

    def full():
        with (disk / "ballast").open("wb") as file:
            left = os.statvfs(disk)
            file.write(b"\0" * (left.f_bavail * left.f_frsize))

    yield full
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def refuse(monkeypatch):
    """The same where nothing can be mounted: from some file on, no byte can be flushed."""

    def full():
        monkeypatch.setattr(
            storage.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )

    return full


def contents(folder):
    """All files below a folder but for the lock, by name."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name not in (".lock", "ballast")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a run and an ablation wrote while there was room."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "digits", TINY)
        patch.chdir(folder)
        real()
        for name, command in (("run", RUN), ("ablation", (*FEW, "holes"))):
            assert cli.main([*command]) == 0
            Path("disk/o").rename(name)
    return folder


def before(made, command):
    """What is there when the disk fills."""
    if command not in ("train", "preview"):
        shutil.copytree(made / ("ablation" if command == "ablate" else "run"), "disk/o")
    shutil.copy(made / "run/model.pt", "model.pt")
    Path("disk/errors.png").write_bytes(b"a sheet of before")
    Path("disk/sheet.png").write_bytes(b"a sheet of before")


def check(command, capsys):
    """One line, status 2, and each file of before, in its place or set aside."""
    known = contents("disk")
    capsys.readouterr()
    assert cli.main([*COMMANDS[command]]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kornia-cag: ")]  # not progress
    assert "No space left on device: " in said[-1]
    assert len(said) == (2 if command == "train another" else 1)  # where the earlier run is now
    left = contents("disk")
    assert not [name for name in left if "partial" in name or ".holder" in name]
    for name, data in known.items():
        aside = name.replace("disk/o/", "disk/o/earlier-1/")
        assert left.get(name, left.get(aside)) == data, name


@pytest.mark.parametrize("command", COMMANDS)
def test_a_small_disk_that_fills(fill, made, capsys, command):
    before(made, command)
    fill()
    check(command, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_any_disk_that_fills(refuse, made, capsys, command):
    before(made, command)
    refuse()
    check(command, capsys)


def test_a_disk_that_fills_in_an_ablation_keeps_every_row_of_before(fill, capsys, monkeypatch):
    """The disk fills while the third row trains; with room again the first two are kept, and the third follows."""
    trained = []

    def train(self, **options):
        trained.append(1)
        true(self, **options)
        if len(trained) == 3:
            fill()

    true = Training.run
    monkeypatch.setattr(Training, "run", train)
    rows = (*FEW, "holes", "elastic", "thickness")
    assert cli.main([*rows]) == 2
    out, err = capsys.readouterr()
    assert err.count("kornia-cag: ") == 1
    assert "without thickness, seed 0: " in out  # told, though not kept
    kept = read_json("disk/o/ablation.json", "file", "an ablation")["runs"]
    assert [run["row"] for run in kept] == ["without elastic", "without holes"]
    Path("disk/ballast").unlink()
    assert cli.main([*rows, "--resume"]) == 0
    runs = json.loads(Path("disk/o/ablation.json").read_text())["runs"]
    assert runs[:2] == kept
    assert (len(runs), len(trained)) == (3, 4)


def test_an_ablation_whose_output_nobody_reads_keeps_the_row_that_is_done(fill, monkeypatch):
    def gone(*texts, file=None, **_):
        if file is None and "seed 0" in texts[0]:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("builtins.print", gone)
    assert cli.main([*FEW, "holes"]) == 2
    kept = read_json("disk/o/ablation.json", "file", "an ablation")["runs"]
    assert [run["row"] for run in kept] == ["without holes"]


def test_a_run_goes_on_when_there_is_room_again(fill, made, monkeypatch):
    """The disk fills between two saves: the checkpoint of before is taken up, bit for bit."""
    true, saves = Training.save, []

    def save(self, path):
        saves.append(path)
        if len(saves) == 2:
            fill()
        true(self, path)

    train = Training.run
    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", save)
        patch.setattr(Training, "run", lambda self, **options: train(self, **{**options, "save_every": 0.0}))
        assert cli.main([*RUN]) == 2
    Path("disk/ballast").unlink()
    assert cli.main([*RUN, "--resume"]) == 0
    one, other = (load_network(path).network.state_dict() for path in (made / "run", "disk/o"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("--version",), ("inspect", "digits")])
def test_what_is_printed_to_a_full_disk_is_missed(arguments, buffered):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(kornia_cag.__file__).parent.parent),
        "PYTHONUNBUFFERED": buffered,
    }
    command = [sys.executable, "-m", "kornia_cag", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert (done.returncode, done.stderr) == (2, "kornia-cag: [Errno 28] No space left on device\n")


def test_a_file_may_not_grow_beyond_a_limit():
    """A quota ends as a full disk does."""
    resource = pytest.importorskip("resource")
    storage.write_bytes("a", b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: 'a'"):
            storage.write_bytes("a", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(".").keys() == {"a", "real.npz"}
    assert Path("a").read_bytes() == b"before"
