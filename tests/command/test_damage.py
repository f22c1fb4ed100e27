"""Files of runs with one bit flipped, and with values of other types: every one is refused, in one line.

``pytest tests/command/test_damage.py --damage 1000`` tries a thousand of each kind of file.
"""

import copy
import hashlib
import json
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from kornia_cag import PGD, InputError
from kornia_cag.command import ablate, cli, evaluate, results
from kornia_cag.command.usage import parsed
from kornia_cag.core.storage import read_json, read_torch, write_torch
from kornia_cag.training.network import load_network
from kornia_cag.training.recipes import DIGITS, RECIPES
from kornia_cag.training.run import Training

TINY = replace(DIGITS, size=16, images=48, batch_size=8, width=4, procedural=6, thickness=(1,), views=1,
               attack=PGD(eps=0.05, steps=1))  # fmt: skip
FILES = ("run/model.pt", "run/checkpoint.pt", "run/config.json", "run/report.json", "ablation/ablation.json")
DEEP: list[Any] = []
for _ in range(150):
    DEEP = [DEEP]


def training() -> Training:
    return Training(TINY, TINY.objects(None), TINY.contexts(None))


class Kind(NamedTuple):
    """How a file is read by those who use it, and what is done with what was read."""

    read: Callable[[Path], Any]
    use: Callable[[Any], Any] = lambda value: None


class Resumed:
    """Takes a saved run; the same one goes on until a file is taken."""

    def __init__(self) -> None:
        self.run: Training | None = None

    def __call__(self, path: Path) -> Training:
        run = self.run = self.run or training()
        run.load(path)
        self.run = None
        return run


def seen(path: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:  # the photographs come later
        patch.setattr(evaluate, "given_folder", lambda *_: "photos")
        patch.setattr(evaluate.ContextBank, "from_folder", lambda *_, **__: TINY.contexts(None, seed=9))
        options = parsed(["evaluate", str(path.parent)])
        return evaluate._unseen(options, torch.device("cpu"), TINY.texels)


def ablated(path: Path) -> Any:
    plan = read_json(path.parent / "plan.json", "file", "the plan")
    return ablate._ablated_before(path, plan, resume=True)


KINDS = {
    "model.pt": Kind(load_network, lambda trained: trained.network(torch.rand(2, 3, 16, 16))),
    "checkpoint.pt": Kind(Resumed(), lambda run: (run.run(), run.report(None, None))),
    "config.json": Kind(seen),
    "report.json": Kind(lambda path: results.check_documents(path.parent, "--resume")),
    "ablation.json": Kind(ablated, lambda done: ablate.markdown(ablate.summary([*done.values()]))),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and an ablation."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "digits", TINY)
        patch.chdir(folder)
        assert cli.main(["train", "digits", "--images", "24", "--out", "run"]) == 0
        few = ("--images", "8", "--seeds", "2", "--only", "holes")
        assert cli.main(["ablate", "digits", *few, "--out", "ablation"]) == 0
        saved = read_json("ablation/ablation.json", "file", "an ablation")
        Path("ablation/plan.json").write_bytes(signed(saved["plan"]))
        run = training()  # half-way
        run.budget = 24
        run.run(save=Path("run/checkpoint.pt"))
        state = read_torch("run/checkpoint.pt", "file", "a run")
        write_torch("run/checkpoint.pt", {**state, "plan": training().plan()})
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "digits", TINY)


def signed(value: Any) -> bytes:
    """JSON with a right checksum, whatever it says."""
    text = json.dumps({**value, "sha256": "0" * 64}, indent=2) + "\n"
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()).encode()


def refusal(kind: Kind, path: Path) -> str | None:
    """What is said of a file, if it is not taken: one line that names it, or the option that it does not suit."""
    try:
        kind.use(kind.read(path))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        other = re.match("(path: expected the arguments|--resume: expected the options) of the saved", str(error))
        assert str(path) in str(error) or other  # noqa: PT017
        return str(error)
    return None


def placed(runs: Path, name: str, folder: Path) -> tuple[Kind, Path]:
    """How to read a file, and where to write one like it."""
    for file in (runs / name).parent.glob("plan.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return KINDS[Path(name).name], folder / Path(name).name


# --- a bit


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_noticed(runs, tmp_path, request, name):
    kind, path = placed(runs, name, tmp_path)
    data = (runs / name).read_bytes()
    path.write_bytes(data)
    assert refusal(kind, path) is None  # as it is
    bits = random.Random(name)
    for _ in range(request.config.getoption("--damage")):
        bit = bits.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert refusal(kind, path) is not None, bit


# --- types


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways into what is nested, to branches and leaves."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


def put(value: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A copy with one place changed."""
    if not at:
        return change(value)
    inner = dict(value) if isinstance(value, dict) else list(value)
    inner[at[0]] = put(inner[at[0]], at[1:], change)
    return tuple(inner) if isinstance(value, tuple) else inner


PLAIN = (None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 10**400, 0.5, -0.5, 1e308, "", "x", "digits", "os:kill",
         [], {}, [0], [[]], {"a": 1}, {"step": 0}, DEEP, "x" * 10_000)  # fmt: skip
ODD = (float("nan"), float("inf"), b"x", (), (1, 2), {1: 2}, {None: 0}, {"a"}, torch.zeros(()), torch.zeros(0),
       torch.zeros(3), torch.ones(2, 2, dtype=torch.int64), torch.zeros(1).expand(10**12), torch.tensor(float("nan")),
       torch.zeros(2, 3).to_sparse(), torch.zeros(2, dtype=torch.complex64), torch.Size([3]), torch.float32,
       torch.device("cpu"), torch.nn.Parameter(torch.zeros(2)))  # fmt: skip


def confused(value: Any, chance: random.Random, others: tuple[Any, ...]) -> Any:
    """The same with another value somewhere: of another type, missing, more, or nested in something."""

    def change(old: Any) -> Any:
        kind = chance.randrange(5)
        if kind == 0 and isinstance(old, dict) and old:
            gone = chance.choice([*old])
            return {key: item for key, item in old.items() if key != gone}
        if kind == 1 and isinstance(old, dict):
            return {**old, "more": chance.choice(others)}
        if kind == 2 and isinstance(old, list | tuple) and old:
            return old[:-1] if chance.random() < 0.5 else type(old)([*old, chance.choice(others)])
        if kind == 3:
            return chance.choice(({"a": old}, [old], [[old]]))
        return chance.choice(others)

    depth = chance.randint(1, 6)
    return put(value, chance.choice([at for at in places(value) if len(at) <= depth]), change)


@pytest.mark.parametrize("name", FILES)
def test_values_of_other_types_are_refused_in_one_line(runs, tmp_path, request, name):
    kind, path = placed(runs, name, tmp_path)
    chance, refusals = random.Random(name), 0
    load = read_torch if path.suffix == ".pt" else read_json
    value = load(runs / name, "file", "one of a run")
    count = request.config.getoption("--damage")
    for _ in range(count):
        if path.suffix == ".pt":
            with warnings.catch_warnings(action="ignore"):  # of torch, that sparse tensors are in beta
                write_torch(path, confused(copy.copy(value), chance, PLAIN + ODD))
        else:
            other = confused(value, chance, PLAIN)
            path.write_bytes(signed(other if isinstance(other, dict) else {"its content": other}))
        refusals += refusal(kind, path) is not None  # some do no harm, such as what nothing reads
    print(f"{name}: {refusals} of {count} refused, the others harmless")
    assert refusals >= {"config.json": 0, "report.json": 0, "ablation.json": 0.3}.get(path.name, 0.8) * count
