import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = zlib.crc32("\0".join(sorted(f"{number}.png" for number in range(20))).encode())


@pytest.fixture
def many(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "many" / f"{number}.png")
    return "many"


def test_photographs_are_streamed_and_a_run_goes_on(run, tiny, many):
    given = "train", "digits", "--contexts", many, "--context-slots", 6, "--device", "cpu"
    status, out, err = run(*given, "--out", "whole")
    assert (status, err) == (0, "")
    assert "ContextStream(slots=6, size=64" in out
    about = json.loads(Path("whole/config.json").read_text())
    assert about["contexts"] == {"count": 6, "size": 64, "epochs": 1, "files": {"count": 20, "crc": NAMES}}
    assert about["trained_on"] is None
    assert Path("whole/preview.png").stat().st_size > 0
    assert run(*given, "--out", "whole", "--resume")[0] == 0
    status, _, err = run("evaluate", "whole", "--attack", "context", "--contexts", many)
    assert status == 2
    assert "expected a run that records which photographs it saw, got one with --context-slots" in err


def test_a_run_does_not_go_on_with_other_photographs(run, tiny, many):
    given = "train", "digits", "--context-slots", 6, "--device", "cpu", "--out", "whole"
    assert run(*given, "--contexts", many)[0] == 0
    Path(many).rename("moved")
    assert run(*given, "--contexts", "moved", "--resume")[0] == 0
    Path("moved/3.png").rename("moved/new.png")
    status, _, err = run(*given, "--contexts", "moved", "--resume")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "--resume: expected the options of the saved run, got contexts.files.crc" in err


@pytest.mark.filterwarnings("ignore:contexts. skipped:UserWarning")
def test_a_run_says_what_became_of_the_photographs(run, tiny, many):
    given = "train", "digits", "--contexts", many, "--device", "cpu", "--on-error", "skip"
    Path(many, "3.png").write_bytes(Path(many, "3.png").read_bytes()[:-40])
    status, out, _ = run(*given, "--context-slots", 20, "--out", "fewer")
    assert status == 0
    *_, line, wrote = out.splitlines()
    about = json.loads(Path("fewer/report.json").read_text())["contexts"]
    assert wrote.startswith("wrote ")
    assert about["skipped"] >= 1
    assert about["usable"] == 19
    assert line == (
        f"contexts from 20 files: {about['skipped']} skipped as unusable, {about['waited']} s waited for; "
        "only 19 for 20 slots, some of which held the same"
    )
    status, out, _ = run(*given, "--context-slots", 6, "--out", "enough", "--json")
    assert set(json.loads(out)["contexts"]) == {"skipped", "waited"}


@pytest.mark.parametrize(("options", "said"), [
    ((), "--context-slots: expected to be used with --contexts DIR, got no photographs"),
    (("--contexts", "many", "--hold-out", 0.5), "--hold-out: expected to be used without --context-slots"),
    (("--contexts", "many", "--context-slots", 0), "--context-slots: expected an integer of at least 1"),
])  # fmt: skip
def test_what_does_not_go_with_slots_is_refused(run, tiny, many, options, said):
    status, _, err = run("train", "digits", "--context-slots", 6, "--device", "cpu", *options)
    assert status == 2
    assert said in err
