"""``--on-error``: bad files are refused all at once, or skipped aloud."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.usefixtures("tiny"), pytest.mark.filterwarnings("always:.*skipped:UserWarning")]


@pytest.fixture
def folders(signs, photos):
    """Two pictures for each class, and beside them what is no picture."""
    for path in sorted(Path(signs).iterdir()):
        (Path("classes") / path.stem).mkdir(parents=True)
        for name in ("1.png", "2.png"):
            (Path("classes") / path.stem / name).write_bytes(path.read_bytes())
    Path("classes/stop/notes.txt").write_text("x")
    Image.fromarray(np.full((30, 30, 3), 7, np.uint8)).save("classes/stop/opaque.png")
    Path(photos, "broken.jpg").write_bytes(b"x")
    return ("--objects", "classes", "--contexts", photos)


def test_files_are_refused_or_skipped(run, folders):
    status, _, err = run("inspect", "signs", *folders)
    assert status == 2
    assert err.startswith("kornia-cag: classes: expected only what can be used, got 2 problems: (1) stop/notes.txt: ")
    assert err.endswith(" Mend them, or pass --on-error skip.\n")
    assert err.count("\n") == 1
    status, out, err = run("inspect", "signs", *folders, "--on-error", "skip")
    assert status == 0
    assert "objects per class: give way 2, no entry 2, stop 2" in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("kornia-cag: warning: photos: skipped 1 bad file(s): broken.jpg (")
    assert lines[0].startswith("kornia-cag: warning: classes: skipped 2 bad file(s): stop/notes.txt (")
    assert "a picture file, such as .png or .jpg, got another suffix)" in lines[0]
    assert "on-error" not in err  # skipped already
    assert "Take it out" not in err


def test_every_command_that_reads_folders_takes_it(run, folders):
    real = np.zeros((3, 8, 8), np.uint8)
    np.savez("real.npz", images=real, labels=np.arange(3))
    skip = (*folders, "--on-error", "skip")
    assert run("train", "signs", *skip, "--steps", 1, "--out", "o")[0] == 0
    assert run("preview", "signs", *skip, "--rows", 1, "--columns", 2)[0] == 0
    ablation = ("--real", "real.npz", "--steps", 1, "--seeds", 1, "--only", "recipe")
    assert run("ablate", "signs", *skip, *ablation)[0] == 0
    status, _, err = run("evaluate", "o", "--real", "real.npz", "--on-error", "skip")
    assert (status, err) == (2, "kornia-cag: --on-error: expected to be used with --attack context, got no --attack.\n")
    Image.fromarray(np.full((30, 30, 3), 99, np.uint8)).save("photos/new.jpg")
    attack = ("--attack", "context", "--eps", 0, "--count", 2, "--attack-steps", 1)
    assert run("evaluate", "o", *attack, *folders)[0] == 2
    assert run("evaluate", "o", *attack, *skip)[0] == 0
