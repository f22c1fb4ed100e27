import json
import re
import time
from dataclasses import replace

import pytest
import torch
from tinyrun import TINY, everything, training
from torch import nn

from kornia_cag import ScenePGD
from kornia_cag.core.storage import write_json
from kornia_cag.evaluation.accuracy import Accuracy, evaluate
from kornia_cag.evaluation.real import RealSet


class Stop(Exception):
    """Stands in for a person at the keyboard."""


def stop_after(count):
    lines = []

    def log(share, word):
        lines.append(word)
        if len(lines) == count:
            raise Stop

    return log


# --- learning


def test_loss_falls(device):
    recipe = replace(TINY, attack=None, reset=None, strength=0.1, learning_rate=1e-2, width=8)
    run = training(recipe, images=600, device=device)
    batches = list(run.pairs)  # an epoch that the training takes too
    images, labels = (torch.cat(parts) for parts in zip(*map(run.collate, batches), strict=True))

    def loss():
        with torch.no_grad():
            return nn.functional.cross_entropy(run.model.eval()(images), labels).item()

    before = loss()
    run.run()
    assert run.seen >= 600
    assert loss() < 0.5 * before
    assert run.result.training is False
    real = RealSet(images.cpu(), labels.cpu(), "composites")
    assert evaluate(run.result, real, run.objects.classes, run.objects.device).share > 0.5  # a guess has 0.1


def test_a_budget_is_met_by_the_last_batch():
    run = training(images=20)
    run.run()
    assert run.seen == 24
    run.run()  # nothing is left to do
    assert run.seen == 24


def test_the_same_seed_gives_the_same_run():
    runs = []
    for seed in (3, 3, 4):
        runs.append(training(images=40, seed=seed))
        runs[-1].run()
    one, same, other = (run.model[-1].weight for run in runs)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# --- resume


@pytest.mark.parametrize("stop", [1, 2, 4, 5, 8])
def test_stop_and_resume_is_bit_identical(stop, tmp_path):
    """Dropout, chain, attack, ramp and averaged weights included; the fourth batch ends an epoch."""
    straight = training()
    straight.run()
    want = everything(straight)

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Stop):
        training().run(save=path, save_every=0.0, log=stop_after(stop), log_every=0.0)
    torch.manual_seed(12345)  # a new process has another random state
    again = training()
    again.load(path)
    assert again.seen == 30 * (stop // 4) + 8 * (stop % 4)
    again.run()
    got = everything(again)
    assert want.keys() == got.keys()
    assert [name for name in want if not torch.equal(want[name], got[name])] == []
    assert straight.seen == again.seen == 76
    before = {"checkpoint.previous.pt"} if stop > 1 else set()
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.pt", *before}


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_with_all_adversaries_resumes_bit_for_bit(stop, tmp_path):
    recipe = replace(TINY, hard_pairing=True, scene_attack=ScenePGD(steps=1, fraction=0.5))
    straight = training(recipe)
    straight.monitor.every = 2
    straight.run()
    path = tmp_path / "checkpoint.pt"
    first = training(recipe)
    first.monitor.every = 2
    with pytest.raises(Stop):
        first.run(save=path, save_every=0.0, log=stop_after(stop), log_every=0.0)
    again = training(recipe)
    again.monitor.every = 2
    again.load(path)
    again.run()
    want, got = everything(straight), everything(again)
    assert [name for name in want if not torch.equal(want[name], got[name])] == []
    assert straight.monitor.report() == again.monitor.report()
    assert len(straight.monitor.report()["looks"]) == 5
    assert straight.collate.chain.pairing.confusion is not None


def test_an_attacked_run_reports_whether_it_overfits():
    run = training()
    run.monitor.every = 4
    run.run()
    assert [look[0] for look in run.report(None, None)["overfitting"]["looks"]] == [4, 8]
    assert training(replace(TINY, attack=None)).monitor is None


def test_time_goes_on(tmp_path):
    run = training(images=16)
    run.run(save=tmp_path / "x.pt")
    again = training(images=16)
    again.load(tmp_path / "x.pt")
    assert again.seconds == run.seconds > 0


def test_progress_tells_share_loss_and_speed():
    lines = []
    training(images=16).run(log=lambda *told: lines.append(told), log_every=0.0)
    assert [share for share, _ in lines] == [0.5, 1.0]
    assert all(re.fullmatch(r"loss \d+\.\d{3}  [\d,]+ images/s", word) for _, word in lines)


# --- a stop


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_run_that_is_stopped_is_saved_and_goes_on(stop, tmp_path):
    straight = training()
    straight.run()
    want = everything(straight)
    run = training()
    run.run(save=tmp_path / "x.pt", stop=lambda: run.steps == stop)
    assert run.steps == stop
    again = training()
    again.load(tmp_path / "x.pt")
    rng = torch.get_rng_state()
    again.run()
    got = everything(again)
    torch.set_rng_state(rng)
    run.run()  # in the same process, too
    for other in (got, everything(run)):
        assert [name for name in want if not torch.equal(want[name], other[name])] == []


def test_compiling_is_no_part_of_a_runs_time(monkeypatch):
    run = training(images=16)
    run._compiled = False  # as with compile=True
    twin, late = run._twin, [0.0]

    def slow():
        late[0] += 1000.0
        return twin()

    monkeypatch.setattr(run, "_twin", slow)
    clock = time.perf_counter
    monkeypatch.setattr("kornia_cag.training.run.time.perf_counter", lambda: clock() + late[0])
    run.run()
    assert run.steps == 2
    assert late == [1000.0]  # once
    assert run.seconds < 1000


# --- plan and report


def test_report_is_json_without_addresses_and_paths(tmp_path):
    run = training(images=16)
    run.run()
    real = RealSet(torch.rand(4, 3, 16, 16), torch.arange(4), "four pictures")
    predicted = torch.zeros(4, dtype=torch.int64)
    write_json(
        tmp_path / "report.json",
        run.report(Accuracy(0.25, {"a": 1.0, "b": None}, (("a", "b", 3),), 0.125, predicted, torch.arange(4)), real),
    )
    text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert report["accuracy"] == 0.25
    assert report["real"] == {"name": "four pictures", "pictures": 4}
    assert report["confusions"] == [["a", "b", 3]]
    assert (report["recipe"], report["seed"], report["images"]) == ("digits", 3, 16)
    assert report["per_class"] == {"a": 1.0, "b": None}
    assert (report["mean_per_class"], report["calibration_error"]) == (1.0, 0.125)
    assert (report["steps"], report["loss"] > 0) == (2, True)
    assert str(tmp_path) not in text
    assert report["versions"]["torch"] == torch.__version__
    unmeasured = run.report(None, None)
    assert unmeasured["accuracy"] is unmeasured["real"] is unmeasured["per_class"] is None
    json.dumps(unmeasured)


def test_the_plan_is_json_all_through():
    plan = training().plan()
    text = json.dumps(plan)
    assert json.loads(text) == plan
    assert plan["recipe"]["attack"]["loss"] == "kornia_cag.adversary.losses:cross_entropy"
    assert plan["recipe"]["attack"]["eps"] == 0.05
    assert plan["recipe"]["ranges"]["pose"]["angle"] == [-15, 15]
    assert plan["recipe"]["strength"] == {"class": "Ramp", "start": 0, "stop": 2}
    assert plan["classes"] == list("0123456789")
    assert "0x" not in text  # else no other process could resume
    assert "(" not in text
