import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
    assert about["contexts"] == {"count": 6, "size": 64, "epochs": 1}
    assert about["trained_on"] is None
    assert Path("whole/preview.png").stat().st_size > 0
    assert run(*given, "--out", "whole", "--resume")[0] == 0
    status, _, err = run("evaluate", "whole", "--attack", "context", "--contexts", many)
    assert status == 2
    assert "expected a run that records which photographs it saw, got one with --context-slots" in err


@pytest.mark.parametrize(("options", "said"), [
    ((), "--context-slots: expected to be used with --contexts DIR, got no photographs"),
    (("--contexts", "many", "--hold-out", 0.5), "--hold-out: expected to be used without --context-slots"),
    (("--contexts", "many", "--context-slots", 0), "--context-slots: expected an integer of at least 1"),
])  # fmt: skip
def test_what_does_not_go_with_slots_is_refused(run, tiny, many, options, said):
    status, _, err = run("train", "digits", "--context-slots", 6, "--device", "cpu", *options)
    assert status == 2
    assert said in err
