import shutil
from dataclasses import replace

import pytest
import torch
from tinyrun import TINY, everything, training

from kornia_cag import PGD, InputError
from kornia_cag.core.storage import write_torch


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


def stopped_at(*steps, path):
    """A training that has saved at each of these steps; everything in it at each."""
    run, states = training(), []
    for step in steps:
        run.run(save=path, stop=lambda step=step: run.steps == step)
        states.append({name: value.clone() for name, value in everything(run).items()})
    return states


def same(run, state):
    found = everything(run)
    return found.keys() == state.keys() and all(torch.equal(found[name], value) for name, value in state.items())


def harmed(path, how):
    if how == "missing":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:-2000])
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["missing", "cut short", "empty"])
def test_where_the_last_save_is_damaged_the_one_before_goes_on(how, tmp_path):
    path = tmp_path / "x.pt"
    _, before, last = stopped_at(1, 2, 3, path=path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.previous.pt", "x.pt"]
    harmed(path, how)
    run = training()
    with pytest.warns(UserWarning, match=r"x\.pt.* Going on from '.*x\.previous\.pt', the save before\.$"):
        run.load(path)
    assert run.steps == 2
    assert same(run, before)
    run.run(save=path, stop=lambda: run.steps == 3)
    assert same(run, last)
    again = training()
    again.load(path)
    assert same(again, last)


def test_a_damaged_save_does_not_take_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "x.pt"
    _, before, _ = stopped_at(1, 2, 3, path=path)
    harmed(path, "cut short")
    run = training()
    with pytest.warns(UserWarning, match="the save before"):
        run.load(path)
    run.save(path)
    assert training().load(tmp_path / "x.previous.pt") is None
    assert same(run, before)
    run.run(save=path, stop=lambda: run.steps == 4)
    harmed(path, "empty")
    again = training()
    with pytest.warns(UserWarning, match="the save before"):
        again.load(path)
    assert again.steps == 2


def test_another_runs_save_is_not_kept(tmp_path):
    path = tmp_path / "x.pt"
    training(seed=4).save(path)
    training().save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


def test_where_both_saves_are_damaged_the_last_is_named(tmp_path):
    path = tmp_path / "x.pt"
    stopped_at(1, 2, path=path)
    harmed(path, "empty")
    harmed(tmp_path / "x.previous.pt", "empty")
    with pytest.raises(InputError, match=r"^path: expected a run saved by kornia-cag train, got '.*x\.pt'") as caught:
        training().load(path)
    assert "previous" not in str(caught.value)


def test_a_folder_that_vanishes_is_made_again(tmp_path):
    path, run = tmp_path / "run" / "x.pt", training()
    path.parent.mkdir()
    run.run(save=path, stop=lambda: run.steps == 1)
    shutil.rmtree(path.parent)
    with pytest.warns(UserWarning, match=r"run: it was removed while it was in use; it is made again"):
        run.run(save=path)
    finished = training()
    finished.load(path)
    assert same(finished, everything(run))


def test_a_folder_that_was_never_there_is_not_made(tmp_path):
    with pytest.raises(OSError, match="never"):
        training().save(tmp_path / "never" / "x.pt")
    assert not (tmp_path / "never").exists()


def test_the_save_before_is_found_where_a_link_leads(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "x.pt").symlink_to(tmp_path / "large" / "y.pt")
    _, before, _ = stopped_at(1, 2, 3, path=tmp_path / "x.pt")
    harmed(tmp_path / "large" / "y.pt", "cut short")
    run = training()
    with pytest.warns(UserWarning, match=r"y\.previous\.pt', the save before"):
        run.load(tmp_path / "x.pt")
    assert same(run, before)


def test_a_save_takes_a_name_as_text(tmp_path):
    run = training()
    run.save(str(tmp_path / "x.pt"))
    training().load(tmp_path / "x.pt")
