"""Training on several ranks from the command line: how they end, what is said of it, and how it goes on."""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from ranked import environment
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from kornia_cag.command import cli
from kornia_cag.command.launching import _told
from kornia_cag.command.results import resume_threads
from kornia_cag.core import ranks
from kornia_cag.core.checks import Interrupted
from kornia_cag.training.network import load_network
from kornia_cag.training.recipes import RECIPES

SIZED = ("--size", "16", "--batch-size", "7", "--images", "350", "--float32", "--device", "cpu")
TRAIN = ("train", "digits", *SIZED, "--model", "rankjobs:traced", "--set", "procedural=6", "--set", "thickness=[1]")


@pytest.fixture
def started(tmp_path):
    """Starts a command that notes its samples under a name; kills it with all its ranks if it is still there."""
    processes = []

    def start(name, *arguments, sleep=0.0):
        told = environment(RANKJOBS_TRACE=tmp_path / name, RANKJOBS_SLEEP=sleep)
        command = [sys.executable, "-m", "kornia_cag", *TRAIN, "--out", str(tmp_path / "out"), *arguments]
        processes.append(subprocess.Popen(command, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
    for file in tmp_path.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


def traced(folder, name):
    """The samples of every rank's batches."""
    files = sorted(folder.glob(f"{name}-*.txt"))
    return [[line.split() for line in file.read_text().splitlines()] for file in files]


def batches(parts, steps):
    """The samples of the first batches over all ranks."""
    return [sorted(sample for part in parts for sample in part[step]) for step in range(steps)]


def wait_for(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def ours(text):
    """The lines that end a command."""
    return [line for line in text.splitlines() if line.startswith("kornia-cag: ") and "warning: " not in line]


def test_a_killed_rank_ends_all_in_one_line_and_two_ranks_go_on(tmp_path, started):
    out = tmp_path / "out"
    first = started("first", "--nproc", "4", sleep=0.2)
    wait_for((out / "checkpoint.pt").is_file)
    os.kill(int((tmp_path / "first-2.pid").read_text()), signal.SIGKILL)
    _, said = first.communicate(timeout=30)
    assert first.returncode == 128 + signal.SIGKILL
    assert ours(said) == [
        "kornia-cag: rank 2 was killed by SIGKILL, and the others stopped; repeat the command with --resume to continue"
    ]
    assert all(line.startswith(("kornia-cag: ", "digits: ")) for line in said.splitlines())
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    assert 0 < saved["steps"] < 50
    assert not {"ranks", "world_size", "rank"} & {*saved["plan"], *saved["loader"]}
    second = started("second", "--nproc", "2", "--resume")
    printed, said = second.communicate(timeout=180)
    assert second.returncode == 0, said
    assert "trained on 35" in printed
    begun, rest = traced(tmp_path, "first"), traced(tmp_path, "second")
    assert (len(begun), len(rest)) == (4, 2)
    assert batches(begun, saved["steps"]) + batches(rest, len(rest[0])) == expected()
    assert load_network(out, "cpu", function="rankjobs:traced").share == 1


def expected():
    """The batches of a single process with the options of these tests."""
    recipe = replace(RECIPES["digits"], size=16, batch_size=7, procedural=6, thickness=(1,))
    objects, contexts = recipe.objects(None, device="cpu"), recipe.contexts(None, device="cpu", seed=0)
    pairs, found, seen = recipe.pairs(objects, len(contexts)), [], 0
    while True:
        for rows in pairs:
            found.append(sorted(f"{epoch}:{index}" for epoch, index in zip(rows.epoch, rows.index, strict=True)))
            seen += len(rows)
            if seen >= 350:
                return found


def test_ctrl_c_stops_all_ranks_after_one_step(tmp_path, started):
    process = started("run", "--nproc", "2", sleep=0.1)
    wait_for((tmp_path / "out" / "checkpoint.pt").is_file)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert ours(said) == ["kornia-cag: interrupted; repeat the command with --resume to continue"]
    steps = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["steps"]
    assert [len(part) for part in traced(tmp_path, "run")] == [steps, steps]


def test_what_is_wrong_on_all_ranks_is_told_once(started):
    process = started("run", "--nproc", "2", "--batch-size", "1")
    _, said = process.communicate(timeout=180)
    assert process.returncode == 2
    (line,) = ours(said)
    assert line.startswith("kornia-cag: --batch-size: expected at least 2, ")


def test_what_is_wrong_on_one_rank_ends_all_and_is_told_by_it(started, monkeypatch):
    monkeypatch.setenv("RANKJOBS_FAILS", "1")
    process = started("run", "--nproc", "2", "--model", "rankjobs:odd")
    _, said = process.communicate(timeout=180)
    assert process.returncode == 2
    (line,) = ours(said)
    assert "that of 'rankjobs:odd', which raised ValueError: a rank of its own mind" in line


@pytest.fixture
def under_torchrun(monkeypatch):
    def told(rank, count=2):
        names = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "nowhere", "MASTER_PORT": 1}
        for name, value in names.items():
            monkeypatch.setenv(name, str(value))

    return told


@pytest.mark.parametrize(
    "command", [("preview", "digits"), ("bench",), ("recipe", "list"), ("predict", "run", "photo")]
)
def test_torchrun_around_another_command_is_refused_once(command, under_torchrun, capsys):
    for rank in (0, 1):
        under_torchrun(rank)
        assert cli.main(command) == 2
    assert capsys.readouterr() == (
        "", f"kornia-cag: torchrun: expected kornia-cag train, which alone runs on several ranks, got kornia-cag "
            f"{command[0]}. Run it without torchrun.\n",
    )  # fmt: skip


@pytest.mark.parametrize(("options", "message"), [
    (("--nproc", "3"), "--nproc: expected to be left out under torchrun, which starts the ranks, got 3."),
    (("--device", "cuda:1"), "--device: expected auto, cpu or cuda with several ranks, each of which has a GPU of its"),
])  # fmt: skip
def test_options_that_torchrun_decides(options, message, under_torchrun, capsys):
    under_torchrun(0)
    assert cli.main(("train", "digits", *options)) == 2
    assert message in capsys.readouterr().err


def test_ranks_do_not_take_up_the_threads_of_a_single_process(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text('{"threads": 3}')
    options = argparse.Namespace(threads=None, resume=True, command="train")
    monkeypatch.setattr(torch, "set_num_threads", pytest.fail)
    monkeypatch.setattr(ranks, "here", lambda: (0, 2))
    resume_threads(options, tmp_path)
    assert capsys.readouterr().err == ""


def ended(*codes):
    """What is told of ranks that ended with these statuses, in this order."""
    failures = {}
    for rank, code in enumerate(codes):
        failures[rank] = ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="none")
        failures[rank].timestamp = rank
    return _told(failures, argparse.Namespace(command="train"))


@pytest.mark.parametrize(("codes", "status", "said"), [
    ((-15, 3, -9), 137, "kornia-cag: rank 2 was killed by SIGKILL, and the others stopped\n"),
    ((-11, -9), 139, "kornia-cag: rank 0 was killed by SIGSEGV, and the others stopped\n"),
    ((3, -15, 143, 2), 2, ""),
    ((3, 1), 1, ""),
    ((3, -15), 3, "kornia-cag: the ranks lost each other\n"),
])  # fmt: skip
def test_of_several_ranks_that_ended_the_first_to_blame_is_told(codes, status, said, capsys):
    assert ended(*codes) == status
    assert capsys.readouterr().err == said


def test_ranks_that_a_signal_ended_count_as_interrupted():
    with pytest.raises(Interrupted) as raised:
        ended(3, 130, 130)
    assert raised.value.args == (signal.SIGINT,)


def test_nproc_is_a_number_of_ranks(capsys):
    assert cli.main(("train", "digits", "--nproc", "0")) == 2
    assert re.match(r"kornia-cag: --nproc: expected an integer of at least 1, got 0\.", capsys.readouterr().err)


def test_one_rank_is_a_process_as_ever(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert not ranks.told()
