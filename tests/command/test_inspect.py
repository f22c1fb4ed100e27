import json

import pytest

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.parametrize("balanced", [True, False])
def test_inspect_reports_bank_and_balance(run, signs, photos, balanced):
    options = ("--objects", signs, "--contexts", photos, "--batch-size", 6, *(() if balanced else ("--no-balanced",)))
    status, out, err = run("inspect", *options, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["objects_per_class"] == {"give way": 1, "no entry": 1, "stop": 1}
    assert "contexts=8" in told["contexts"]
    spread = {name: value[1] - value[0] for name, value in told.items() if isinstance(value, list)}
    assert spread.keys() == {"contexts_per_object", "objects_per_context", "samples_per_class",
                             "samples_per_class_and_batch"}  # fmt: skip
    assert (set(spread.values()) == {0}) == balanced
    status, out, _ = run("inspect", "signs", *options)
    assert status == 0
    assert "PairSampler(3 objects of 3 classes, 8 contexts" in out
    assert "objects per class: give way 1, no entry 1, stop 1" in out
    if balanced:
        assert "samples per class and batch: 2 to 2" in out
