import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kornia_cag.core.storage import write_json

pytestmark = pytest.mark.usefixtures("tiny")


def test_ablate_keeps_what_is_done(run, tmp_path):
    few = ("ablate", "digits", "--images", 16, "--seeds", 2, "--only", "baseline", "holes")
    status, out, err = run(*few)
    assert (status, err) == (0, "")
    file = tmp_path / "runs" / "ablation-digits" / "ablation.json"
    report = json.loads(file.read_text())
    assert [(r["row"], r["seed"]) for r in report["runs"]] == [
        ("paper: baseline", 0), ("without holes", 0), ("paper: baseline", 1), ("without holes", 1),
    ]  # fmt: skip
    assert [line["seeds"] for line in report["summary"]] == [2, 2]
    assert re.search(r"without holes +\| +\d+\.\d+% ± \d+\.\d+%", out)
    assert (file.parent / "ablation.md").read_text() in out
    assert (file.parent / "ablation.svg").is_file() == ("no plot" not in out)
    before = report["runs"]
    status, out, err = run(*few[:-2], "baseline", "--seeds", 1, "--seed", 2, "--resume")
    assert (status, err) == (0, "")
    runs = json.loads(file.read_text())["runs"]
    assert runs[:4] == before
    assert [(r["row"], r["seed"]) for r in runs[4:]] == [("paper: baseline", 2)]
    Path("pictures").mkdir()
    for i in range(10):
        picture = np.zeros((20, 20, 4), np.uint8)
        picture[4:16, 2 : 8 + i] = 255
        Image.fromarray(picture).save(f"pictures/{i}.png")
    status, _, err = run(*few, "--resume", "--objects", "pictures")
    assert status == 2
    assert "--resume: expected the options of the saved ablation, got objects.crc" in err
    assert run(*few[:-2], "baseline", "--seeds", 1)[2].startswith(
        "kornia-cag: moved the earlier run in 'runs/ablation-digits' to"
    )
    assert json.loads((file.parent / "earlier-1/ablation.json").read_text())["runs"][:4] == before
    for text in ("[]", "{", '{"plan": {}}', None):
        file.write_text(text) if text else write_json(file, {"plan": {}})
        status, _, err = run(*few, "--resume")
        assert status == 2
        assert "--resume: expected results that ablate wrote, got " in err
    assert run(*few[:-2], "baseline", "--seeds", 1)[0] == 0
    status, _, err = run("ablate", "digits", "--images", 32, "--resume")
    assert status == 2
    assert "--resume: expected the options of the saved ablation, got images 32 (saved: 16)" in err


def test_ablate_trains_nothing_twice(run, tmp_path):
    assert run("ablate", "digits", "--images", 16, "--seeds", 1, "--only", "random", "chain")[0] == 0
    first, second = json.loads((tmp_path / "runs/ablation-digits/ablation.json").read_text())["runs"]
    assert second == {**first, "row": "without chain", "same_run_as": "paper: random context"}


def test_ablate_says_which_rows_there_are(run):
    status, _, err = run("ablate", "digits", "--only", "unicorns")
    assert status == 2
    assert "paper: baseline" in err
