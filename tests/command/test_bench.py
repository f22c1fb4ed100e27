import json

import pytest

pytestmark = pytest.mark.usefixtures("tiny")


def test_bench_prints_a_table_with_an_answer(run):
    status, out, _ = run("bench", "--no-compile", "--seconds", "0.01")
    assert status == 0
    for name in ("composition, eager", "OpenCV loader, ", "Pillow loader, ", "training step", "FGSM"):
        assert name in out
    answer, scenes = out.rstrip().splitlines()[-2:]
    assert answer.startswith("Composition takes ")
    assert scenes.startswith("With its ScenePGD a batch takes ")


def test_bench_in_json_on_objects_of_ones_own(run, signs, photos):
    options = ["--batch-size", "3", "--size", "24", "--no-compile", "--seconds", "0.01", "--json"]
    status, out, _ = run("bench", "signs", "--objects", signs, "--contexts", photos, *options)
    assert status == 0
    report = json.loads(out)
    assert (report["batch_size"], report["size"], report["recipe"]) == (3, 24, "signs")
    assert "torch" in report["versions"]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9"])
def test_bench_refuses_a_time_that_is_none(run, seconds):
    status, _, error = run("bench", "--no-compile", "--seconds", seconds)
    assert status == 2
    assert "--seconds: expected a number in [0.01, 600]" in error
