from dataclasses import replace

import pytest
import torch
from tinyrun import TINY, breaks_at, training

from kornia_cag import Diverged
from kornia_cag.training.schedule import average


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
    assert {p.name for p in tmp_path.iterdir()} == {"x.pt", "x.previous.pt"}


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


def test_a_step_reads_nothing_back(monkeypatch):
    """Only the log reads the loss."""
    run = training(images=16)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda _: pytest.fail("waited for the device"))
    run.run()
