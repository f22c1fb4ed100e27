import json
import re
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from kornia_cag import PGD, Diverged, InputError, Ramp, ScenePGD
from kornia_cag.core.plain import differences, plain
from kornia_cag.core.storage import write_json, write_torch
from kornia_cag.evaluation.accuracy import Accuracy, evaluate
from kornia_cag.evaluation.real import RealSet
from kornia_cag.training.recipes import DIGITS
from kornia_cag.training.run import Training
from kornia_cag.training.schedule import average, schedule

# Ten glyphs and six contexts make epochs of 30 samples: three batches of 8 and one of 6.
TINY = replace(DIGITS, size=16, images=72, batch_size=8, learning_rate=1e-2, ema=0.9, width=4, procedural=6,
               thickness=(1,), attack=PGD(eps=0.05, steps=1), strength=Ramp(0, 2))  # fmt: skip


def training(recipe=TINY, images=None, seed=3, device="cpu", balanced=True):
    return Training(recipe, recipe.objects(None, device=str(device)), recipe.contexts(None, device=str(device)),
                    images=images, seed=seed, balanced=balanced)  # fmt: skip


def everything(run):
    """All tensors that a run has made, by name."""
    state = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    state |= {f"average.{name}": value for name, value in run.learner.average.state_dict().items()}
    for index, moments in run.learner.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    chain = run.collate.state_dict()["chain"]
    state |= {f"chain.{name}": value for name, value in chain.items() if isinstance(value, torch.Tensor)}
    state |= {f"pairing.{name}": value for name, value in (chain["pairing"] or {}).items()}
    return state | {"loss": run.learner.loss, "rng": torch.get_rng_state()}


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


def test_learning_rate_schedule():
    assert 0 < schedule(0, 10**6) < 1e-4
    assert schedule(20_000, 10**6) > 0.99
    assert schedule(500_000, 10**6) == pytest.approx(0.5)
    assert schedule(10**6, 10**6) == schedule(10**6 + 100, 10**6) == pytest.approx(0)
    assert schedule(1_000, 30_000) < 0.5 < schedule(3_000, 30_000)
    falling = [schedule(seen, 10**6) for seen in range(20_000, 10**6, 20_000)]
    assert falling == sorted(falling, reverse=True)


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
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


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


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: training(seed=4), r"seed 4 \(saved: 3\)"),
        (lambda: training(images=73), r"images 73 \(saved: 72\)"),
        (lambda: training(replace(TINY, learning_rate=2e-2)), r"recipe\.learning_rate 0\.02 \(saved: 0\.01\)"),
        (lambda: training(replace(TINY, attack=PGD(eps=0.06, steps=1))), r"recipe\.attack\.eps 0\.06 \(saved: 0\.05\)"),
        (lambda: training(replace(TINY, attack=None)), r"recipe\.attack null \(saved: \{.*\.\.\.\)"),
        (
            lambda: training(replace(TINY, procedural=7)),
            r"recipe\.procedural 7 \(saved: 6\), contexts\.count 7 \(saved: 6\), contexts\.crc .*",
        ),
        (lambda: training(balanced=False), r"balanced false \(saved: true\)"),
    ],
    ids=["seed", "images", "learning rate", "attack", "no attack", "contexts", "pairing"],
)
def test_another_plan_is_refused(other, difference, tmp_path):
    run = training()
    run.save(tmp_path / "x.pt")
    message = rf"^path: expected the arguments of the saved run, got {difference}\. Repeat the arguments of the first"
    with pytest.raises(InputError, match=message):
        other().load(tmp_path / "x.pt")
    training().load(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint", b"PK\3\4 damaged", b"\x80\2cos\nsystem\n(S'x'\ntR."],
    ids=["", "text", "zip", "code"],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"^path: expected a run saved by kornia-cag train, got .*x\.pt") as caught:
        training().load(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_and_another_file_of_torch_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    training().save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"^path: expected a run saved by kornia-cag train"):
        training().load(path)
    write_torch(path, [1, 2])
    with pytest.raises(InputError, match=r"^path: expected a run saved by kornia-cag train.*another file"):
        training().load(path)
    write_torch(path, {"model": 1})
    with pytest.raises(InputError, match=r"^path: expected a run saved by kornia-cag train.*another file"):
        training().load(path)


# --- what is not finite


def breaks_at(run, step):
    """Let the logits of a step be NaN."""
    run.model.register_forward_hook(lambda model, images, logits: logits * (float("nan") if run.steps == step else 1.0))


@pytest.mark.parametrize("where", ["logits", "weights", "average"])
def test_divergence_ends_a_run_and_keeps_what_was_saved(where, tmp_path, device, monkeypatch):
    run = training(replace(TINY, attack=None), device=device)
    path = tmp_path / "x.pt"
    if where == "logits":
        breaks_at(run, 3)
    else:
        network = run.model if where == "weights" else run.learner.average

        def spoiled(*given):
            average(*given)
            if run.steps == 3:
                next(network.parameters()).data[0] = float("inf")

        monkeypatch.setattr("kornia_cag.training.learner.average", spoiled)
    what = {"logits": "a loss", "weights": "weights", "average": "averaged weights"}[where]
    message = rf"training: expected finite numbers, got {what} that (is|are) not, at step 4\. Try a recipe with a "
    message += rf"learning_rate below 0\.01(, or float32=True)?\. '{path}' still holds step 3: Training\.load reads it"
    with pytest.raises(Diverged, match=message):
        run.run(save=path, save_every=0.0)
    again = training(replace(TINY, attack=None), device=device)
    again.load(path)
    assert again.steps == 3
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_a_run_that_saves_nothing_diverges_too():
    run = training(replace(TINY, attack=None))
    breaks_at(run, 0)
    with pytest.raises(Diverged, match=r"a loss that is not, at step 1\. Try a recipe .* below 0.01[^']*\.$"):
        run.run()


def test_where_looking_waits_a_run_looks_at_the_end_and_says_the_first_step(monkeypatch, tmp_path):
    """As on a GPU: no step looks at a number."""
    run = training(replace(TINY, attack=None))
    breaks_at(run, 2)
    monkeypatch.setattr(run.learner, "look", lambda look=run.learner.look: look() if run.seen >= run.budget else None)
    with pytest.raises(Diverged, match="at step 3"):
        run.run(save=tmp_path / "x.pt")
    assert run.seen >= run.budget
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_minus_infinity_is_averaged_as_it_is():
    run = training(replace(TINY, attack=None), images=24)
    for network in (run.model, run.learner.average):
        network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    run.learner.watch = type(run.learner.watch)(run.model, run.objects.device)
    run.run()
    assert run.learner.average.mask.tolist() == [0.0, -torch.inf]


# --- an estimate, a stop, threads


@pytest.mark.parametrize("first", [0, 1, 4])
def test_an_estimate_leaves_no_trace(first):
    """Of dropout, chain, hard pairing, adversaries, sampler, optimizer and random state."""
    recipe = replace(TINY, hard_pairing=True, scene_attack=ScenePGD(steps=1, fraction=0.5))
    straight = training(recipe)
    straight.run()
    want = everything(straight)
    run = training(recipe)
    if first:
        run.run(stop=lambda: run.steps == first)
    assert run.seconds_left() > 0
    assert (run.steps, run.seen) == (first, 30 * (first // 4) + 8 * (first % 4))
    run.run()
    got = everything(run)
    assert [name for name in want if not torch.equal(want[name], got[name])] == []
    assert straight.seen == run.seen
    assert run.seconds_left() == 0


@pytest.mark.parametrize("error", [None, ValueError, RuntimeError, KeyError])
def test_an_estimate_of_a_network_that_fails_is_none_and_raises_nothing(error):
    run = training(replace(TINY, attack=None))
    if error is None:
        breaks_at(run, 0)
    else:
        run.model.register_forward_pre_hook(lambda model, given: (_ for _ in ()).throw(error("an odd batch")))
    assert run.seconds_left() is None
    assert run.steps == 0


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


def test_another_number_of_threads_is_another_plan(tmp_path):
    run = training()
    assert run.plan()["threads"] == torch.get_num_threads() == 1
    run.save(tmp_path / "x.pt")
    torch.set_num_threads(2)
    try:
        message = r"threads 2 \(saved: 1\)\. Repeat .* Call torch\.set_num_threads\(1\)\.$"
        with pytest.raises(InputError, match=message):
            training().load(tmp_path / "x.pt")
    finally:
        torch.set_num_threads(1)


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


# --- measure and report


class Says(nn.Module):
    """Predicts the class that is written into the first pixel."""

    def forward(self, images):
        return nn.functional.one_hot((images[:, 0, 0, 0] * 10).round().long(), 3).float()


def test_evaluate_counts_per_class_and_confusions(device):
    labels, said = torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 2, 2, 2, 0, 1])
    images = (said / 10)[:, None, None, None].expand(-1, 3, 4, 4)
    accuracy = evaluate(Says(), RealSet(images, labels, "x"), ("a", "b", "c"), device)
    assert accuracy.share == pytest.approx(3 / 7)
    assert accuracy.per_class == pytest.approx({"a": 2 / 3, "b": 1 / 4, "c": None})
    assert accuracy.confusions == (("b", "c", 2), ("a", "c", 1), ("b", "a", 1))


def test_evaluate_does_not_depend_on_its_batches():
    model = training(replace(TINY, attack=None)).model
    images = torch.rand(600, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    real = RealSet(images, torch.arange(600) % 10, "x")
    classes = tuple("0123456789")
    share = evaluate(model, real, classes, torch.device("cpu")).share
    halves = [RealSet(images[i::2], real.labels[i::2], "x") for i in (0, 1)]
    assert share == pytest.approx(sum(evaluate(model, h, classes, torch.device("cpu")).share for h in halves) / 2)


def test_report_is_json_without_addresses_and_paths(tmp_path):
    run = training(images=16)
    run.run()
    real = RealSet(torch.rand(4, 3, 16, 16), torch.arange(4), "four pictures")
    write_json(
        tmp_path / "report.json",
        run.report(Accuracy(0.25, {"a": 1.0, "b": None}, (("a", "b", 3),), torch.zeros(4, dtype=torch.int64)), real),
    )
    text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert report["accuracy"] == 0.25
    assert report["real"] == {"name": "four pictures", "pictures": 4}
    assert report["confusions"] == [["a", "b", 3]]
    assert (report["recipe"], report["seed"], report["images"]) == ("digits", 3, 16)
    assert report["per_class"] == {"a": 1.0, "b": None}
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


def test_plain_values_and_their_differences():
    assert plain({1: (torch.bfloat16, schedule, None)}) == {
        "1": ["bfloat16", "kornia_cag.training.schedule:schedule", None]
    }
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}, "d": 3}) == ["a.b 1 (saved: 2)", "d nothing (saved: 3)"]
    assert len(differences({"a": "x" * 500}, {"a": "y" * 500})[0]) < 100


# --- averaged weights


def test_averaged_weights_are_the_formula(monkeypatch):
    run = training(replace(TINY, ema=0.5), images=40)
    seen = []

    def spy(*given):
        average(*given)
        seen.append({name: value.clone() for name, value in run.model.state_dict().items()})

    monkeypatch.setattr("kornia_cag.training.learner.average", spy)
    run.run()
    assert len(seen) == 5 + 1  # an epoch ends in a batch of 6
    want = {name: value.double() for name, value in seen[0].items()}
    for count, state in enumerate(seen[1:], start=1):
        weight = max(0.5, 9 / (10 + count))
        want = {name: (1 - weight) * want[name] + weight * value.double() for name, value in state.items()}
    for name, value in run.learner.average.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), want[name], rtol=1e-4, atol=1e-6), name
        else:
            assert value == len(seen)
    assert not any(value.requires_grad for value in run.learner.average.parameters())
    assert all(
        a.data_ptr() != m.data_ptr()
        for a, m in zip(run.learner.average.parameters(), run.model.parameters(), strict=True)
    )


def test_a_step_reads_nothing_back(monkeypatch):
    """Only the log reads the loss."""
    run = training(images=16)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda _: pytest.fail("waited for the device"))
    run.run()
