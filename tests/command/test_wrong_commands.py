"""Wrong commands end in one line and the right status, whatever their options say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kornia_cag.command import cli
from kornia_cag.training.recipes import DIGITS, RECIPES
from kornia_cag.training.run import Training

HUGE = "9" * 30

VALUES = [
    *(f"train digits {option}" for option in (
        "--steps=0", f"--steps={HUGE}", "--steps=1.5", "--steps=", "--images=-1", f"--images={HUGE}", "--images=1e3",
        "--batch-size=1", "--batch-size=-3", "--batch-size=1000000000", f"--batch-size={HUGE}", "--size=15",
        "--size=20000", f"--size={HUGE}", "--size=0x20", "--seed=-1", f"--seed={HUGE}", "--threads=0", "--threads=-2",
        f"--threads={HUGE}", "--threads=two", "--eps=inf", "--eps=-0.1", "--eps=1e400", "--eps-object=nan --eps=0.1",
        f"--eps=0.1 --attack-steps={HUGE}", "--hold-out=nan", "--hold-out=1", "--hold-out=-1", "--hold-out=0.5",
        "--device=", "--device=gpu", "--device=meta", "--device=cuda:99", "--device=cpu:", "--device=cpu:1",
        "--key=black",
        "--scene-attack=best", "--model=", "--model=a:", "--model=:b", "--model=a:b:c", "--model=..:x",
        "--model=os:kill", "--model=torch.nn:Identity", "--model=torch.nn:Linear", "--unknown", "--steps 2 --images 3",
    )),
    *(f"ablate digits --images=8 {option}" for option in (
        "--seeds=0", f"--seeds={HUGE}", f"--seed={HUGE}", "--only nothing", "--size=20000", "--threads=0",
    )),
    *(f"preview digits {option}" for option in (
        "--rows=0", "--rows=101", f"--columns={HUGE}", "--zoom=17", "--size=20000", "--model-from=missing",
        "--rows=100 --columns=100 --zoom=16 --size=2000",
    )),
    *(f"inspect digits {option}" for option in (f"--batch-size={HUGE}", f"--size={HUGE}", "--seed=-1")),
    *(f"bench digits --no-compile {option}" for option in (
        "--seconds=0", "--seconds=nan", "--seconds=601", "--batch-size=1000000000", "--size=20000",
    )),
    *("", "nonsense", "train", "train nonsense", "evaluate", "evaluate missing", "evaluate missing --device=nope"),
    *("predict", "predict missing", "predict missing photo.png", "export missing", "export missing --out=m.onnx"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setitem(RECIPES, "digits", replace(DIGITS, size=16, images=48, batch_size=8, width=4, procedural=6))
    monkeypatch.chdir(tmp_path)
    np.savez("real.npz", images=np.zeros((10, 20, 20), np.uint8), labels=np.arange(10))


def outcome(command, capsys):
    """Status, and the lines on standard error that are not progress."""
    try:
        status = cli.main(command.split())
    except SystemExit as stopped:  # argparse's way
        status = stopped.code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return status, [line for line in err.splitlines() if line.startswith("kornia-cag")]


@pytest.mark.parametrize("command", VALUES)
def test_a_wrong_value_is_said_in_one_line(command, capsys):
    status, lines = outcome(command, capsys)
    assert (status, len(lines)) == (2, 1)
    assert len(lines[0]) < 500
    assert not list(Path().rglob("checkpoint.pt"))  # nothing was begun


@pytest.mark.parametrize("arguments", [
    ["train", "digits", "--objects", "no\nfolder"], ["train", "digits", "--objects", "no\rfolder\udcff"],
    ["train", "digits", "--out", "file/a\nb"], ["train", "digits", "--out", "d/" * 3000], ["train", "di\ngits"],
    ["train", "digits", "--device", "cpu\n"], ["evaluate", "no\x1b[31m\nmodel"], ["evaluate", "d/" * 3000],
    ["preview", "digits", "--out", "no\nfolder/a.png"],
], ids=ascii)  # fmt: skip
def test_names_of_many_lines_or_without_end_are_said_in_one_line(arguments, capsys):
    Path("file").touch()
    try:
        status = cli.main(arguments)
    except SystemExit as stopped:  # argparse's way
        status = stopped.code
    assert status == 2
    err = capsys.readouterr().err
    assert err.startswith("kornia-cag: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 2500


@pytest.mark.parametrize("option", [f"--views={HUGE}", "--views=0", f"--attack=pgd --attack-steps={HUGE}",
                                    f"--attack=pgd --restarts={HUGE}", f"--attack=pgd --count={HUGE}",
                                    "--attack=pgd --eps nan", "--attack=l3"])  # fmt: skip
def test_a_wrong_measurement_is_said_in_one_line(option, capsys):
    assert outcome("train digits --steps=1", capsys)[0] == 0
    status, lines = outcome(f"evaluate runs/digits --real real.npz {option}", capsys)
    assert (status, len(lines)) == (2, 1)


def test_a_run_that_is_not_there_is_not_begun(capsys):
    assert outcome("train digits --resume --out o", capsys)[0] == 2
    assert not Path("o").exists()


# --- networks that fail


class Net(nn.Module):
    """Takes pictures of 16 x 16; fails as it is told, counted in batches of eight pictures in training."""

    def __init__(self, fail, at=3):
        super().__init__()
        self.linear, self.fail, self.at, self.batches = nn.Linear(768, 10), fail, at, 0

    def forward(self, images):
        self.batches += self.training and len(images) == 8
        logits = self.linear(images.flatten(1))
        return self.fail(logits) if self.batches >= self.at else logits


def broken(logits):
    raise KeyError("no such layer")


def breaks(logits):
    logits.register_hook(broken)
    return logits


def measured(logits):
    return logits if logits.requires_grad else broken(logits)


NETWORKS = {
    "forward": (lambda: Net(broken), "'own:net', which raised KeyError: 'no such layer' (test_wrong_commands.py:"),
    "leaves": (lambda: Net(leaves), "'own:net', which raised SystemExit: no licence (test_wrong_commands.py:"),
    "backward": (lambda: Net(breaks), "'own:net', which raised KeyError: 'no such layer' (test_wrong_commands.py:"),
    "no gradient": (lambda: Net(torch.Tensor.detach), "'own:net', which raised RuntimeError: element 0 of tensors"),
    "fewer logits": (lambda: Net(lambda x: x[:, :7]), "logits (b, 10), also in train mode, got float32 (8, 7) for 8"),
    "fewer rows": (lambda: Net(lambda x: x[:3]), "logits (b, 10), also in train mode, got float32 (3, 10) for 8 pict"),
    "a tuple": (lambda: Net(lambda x: (x, x)), "logits (b, 10), also in train mode, got (tensor("),
    "measured": (lambda: Net(measured, at=0), "'own:net', which raised KeyError"),
}
EARLY = {
    "no gradient": (lambda: Net(torch.Tensor.detach, at=0), "expected logits with gradients"),
    "another graph": (
        lambda: Net(lambda x: torch.zeros_like(x, requires_grad=True) * 1, at=0),
        "expected a network whose parameters take part in its logits, got that of 'own:net', none of which",
    ),
    "backward": (lambda: Net(breaks, at=0), "expected a network that backward() works on, got that of"),
    "leaves": (lambda: Net(leaves, at=0), "'own:net', which raised SystemExit: no licence"),
    "leaves when made": (lambda: leaves(None), "'own:net', which raised SystemExit: no licence"),
    "an error without text": (lambda: Net(speechless, at=0), "'own:net', which raised Speechless: no text"),
    "no repr": (lambda: Speechless(), "'own:net', which returned one Speechless"),
    "meta": (lambda: Net(broken, at=9).to("meta"), "a network with weights, got that of 'own:net', some of which are"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "some of which have no shape yet. Let the funct"),
    "weights": (lambda: nn.utils.skip_init(Nothing), "expected a network with finite weights, got that of 'own:net'"),
}


class Speechless(Exception):
    def __str__(self):
        raise AttributeError("no text")

    __repr__ = __str__


def speechless(logits):
    raise Speechless


def leaves(logits):
    raise SystemExit("no licence")


class Nothing(Net):
    def __init__(self, device=None):
        super().__init__(broken)
        nn.init.constant_(self.linear.weight, float("nan"))


@pytest.fixture
def own(monkeypatch):
    """Let ``--model own:net`` be the network that is given."""

    def install(make):
        monkeypatch.setattr("kornia_cag.training.makers._imported", lambda function: lambda classes, size: make())

    return install


@pytest.mark.parametrize("name", EARLY)
def test_what_can_be_seen_early_is(name, own, capsys):
    make, message = EARLY[name]
    own(Nothing if name == "weights" else make)
    status, (line,) = outcome("train digits --model own:net", capsys)
    assert status == 2
    assert message in line
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_fails_late_is_named_and_the_checkpoint_stays(name, own, capsys, monkeypatch):
    make, message = NETWORKS[name]
    own(make)
    run = Training.run
    monkeypatch.setattr(Training, "run", lambda self, **how: run(self, **how | {"save_every": 0.0}))
    monkeypatch.setattr(Training, "seconds_left", lambda self: None)
    if name == "measured":  # is right while a gradient is asked for
        monkeypatch.setattr("kornia_cag.training.makers._check_output", lambda *_: None)
        monkeypatch.setattr("kornia_cag.command.train._prepare", lambda *_: None)
    status, (line,) = outcome("train digits --model own:net --float32 --real real.npz", capsys)
    assert status == 2
    assert message in line
    assert Path("runs/digits/checkpoint.pt").is_file()
    assert Path("runs/digits/model.pt").is_file() == (name == "measured")
    assert not Path("runs/digits/report.json").exists()


def test_an_ablation_keeps_its_rows_when_one_diverges(capsys, monkeypatch):
    update = Training._update

    def spoiled(self, *batch):
        update(self, *batch)
        if self.seed == 1:
            self.learner.watch.step(self.steps, torch.tensor(float("nan")), self.model)
            self.learner.look()

    ablate = "ablate digits --images=16 --seeds=3 --only baseline"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", spoiled)
        status, (line,) = outcome(ablate, capsys)
    assert status == 1
    assert line.startswith("kornia-cag: paper: baseline, seed 1: training: expected finite numbers, got a loss that is")
    file = Path("runs/ablation-digits/ablation.json")
    before = json.loads(file.read_text())["runs"]
    assert [(run["row"], run["seed"]) for run in before] == [("paper: baseline", 0)]
    assert outcome(f"{ablate} --resume", capsys) == (0, [])
    after = json.loads(file.read_text())["runs"]
    assert (after[0], [run["seed"] for run in after]) == (before[0], [0, 1, 2])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 40000000000000 bytes. Error code 12 (Cannot allocate memory)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has"),
    ],
    ids=["python", "torch", "cuda"],
)  # fmt: skip
def test_memory_that_is_used_up_is_said_with_a_hint(error, capsys, monkeypatch):
    def exhaust(*_, **__):
        raise error

    monkeypatch.setattr(Training, "run", exhaust)
    status, (line,) = outcome("train digits", capsys)
    assert status == 2
    assert line.endswith(" Try a smaller --batch-size.")
    assert "err ==" not in line


@pytest.mark.parametrize(("error", "hint"), [(MemoryError, "Close other programs."),
                                             (torch.OutOfMemoryError, "Try --device cpu.")])  # fmt: skip
def test_nobody_on_a_cpu_is_sent_to_it(error, hint, capsys, monkeypatch):
    def exhaust(_):
        raise error

    monkeypatch.setattr("kornia_cag.command.inspect.inspect", exhaust)
    status, (line,) = outcome("inspect digits", capsys)
    assert (status, line) == (2, f"kornia-cag: out of memory. {hint}")


def test_another_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(Training, "run", lambda *_, **__: broken(None))
    with pytest.raises(KeyError):
        cli.main(["train", "digits"])


def test_a_budget_in_grey_levels_is_told_a_number_that_the_command_takes(capsys):
    assert cli.main(["train", "signs", "--objects", ".", "--eps=8"]) == 2
    assert "write 8/255 for eight grey levels" in capsys.readouterr().err
