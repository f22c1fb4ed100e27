"""The examples of the page on integrations train for a few steps; each is short enough to be read at a glance."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "docs/integrations"
EXAMPLES = sorted(FOLDER.glob("*.py"))

pytestmark = pytest.mark.filterwarnings("ignore")  # other libraries warn of themselves and of each other


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A folder on the path, and a random state that comes back; nothing stays imported."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    state, names = torch.get_rng_state(), {path.stem for path in EXAMPLES}
    yield
    torch.set_rng_state(state)
    for name in names & sys.modules.keys():
        del sys.modules[name]


def example(name, needs=None):
    if needs is not None:
        reason = f"{needs} is not installed" + (", or lacks the torchvision of this torch" if needs == "timm" else "")
        pytest.importorskip(needs, reason=reason, exc_type=ImportError)
    return importlib.import_module(name)


@pytest.fixture
def seen(monkeypatch):
    """The rows of every batch that a collate has composed, as (epoch, indices)."""
    from kornia_cag import CAGCollate

    found, call = [], CAGCollate.__call__

    def counted(self, rows):
        found.append(rows.table.clone())
        return call(self, rows)

    monkeypatch.setattr(CAGCollate, "__call__", counted)
    return found


def changed(model):
    """Whether a network is another than it was when it was made from the same random state."""
    torch.manual_seed(0)
    fresh = importlib.import_module("given").network()
    return any(not torch.equal(one, other) for one, other in zip(model.parameters(), fresh.parameters(), strict=True))


def assert_epochs(seen, count, samples=40):
    """As many epochs as there were passes; each complete, and no two of the same pairs."""
    table = torch.cat(seen)
    assert table[:, 3].unique().tolist() == list(range(count))
    sets = []
    for epoch in range(count):
        rows = table[table[:, 3] == epoch]
        assert sorted(rows[:, 2].tolist()) == list(range(samples))
        sets.append({(obj, context) for obj, context in rows[:, :2].tolist()})
    assert len({frozenset(pairs) for pairs in sets}) == count


def test_a_plain_loop(seen, capsys):
    torch.manual_seed(0)
    assert changed(example("plain_loop").train(epochs=3, samples_per_class=4))
    assert capsys.readouterr().out.count("loss") == 3
    assert_epochs(seen, 3)


def test_lightning(seen, tmp_path):
    module = example("lightning_trainer", "pytorch_lightning")
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    torch.manual_seed(0)
    trained = module.train(epochs=3, samples_per_class=4, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    assert changed(trained.model)
    assert_epochs(seen, 3)


def test_accelerate(seen):
    module = example("accelerate_loop", "accelerate")
    torch.manual_seed(0)
    assert changed(module.train(epochs=3, samples_per_class=4, cpu=True))
    assert_epochs(seen, 3)


def test_the_trainer_of_hugging_face(seen, tmp_path):
    module = example("hf_trainer", "transformers")
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    torch.manual_seed(0)
    trainer = module.train(str(tmp_path), epochs=3, use_cpu=True, **quiet)
    assert trainer.state.global_step == len(seen) == 9
    assert changed(trainer.model)
    assert_epochs(seen, 3, samples=160)


def test_timm(seen):
    module = example("timm_model", "timm")
    model = module.train("test_resnet", size=32, steps=2)
    images = torch.rand(2, 3, 32, 32)
    assert model.eval()(images).shape == (2, 10)
    assert len(seen) == 2


def test_augmentations_of_kornia():
    module = example("kornia_augmentations")
    torch.manual_seed(0)
    rows = next(iter(module.loader(8).batch_sampler))
    collate = module.loader(8).collate_fn
    torch.manual_seed(1)
    images, _ = collate(rows)
    torch.manual_seed(2)
    others, _ = collate(rows)
    assert images.shape == (8, 3, 28, 28)
    assert 0 <= images.min() <= images.max() <= 1
    assert not torch.equal(images, others)  # of the same scenes


def test_there_is_a_test_for_every_example_and_each_is_short():
    tested = Path(__file__).read_text()
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) <= 40, path.name
        assert f'"{path.stem}"' in tested, path.name
