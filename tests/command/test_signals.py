import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import kornia_cag
from kornia_cag.command import cli
from kornia_cag.command.signals import caught, finishing
from kornia_cag.core.checks import Interrupted

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
TRAIN = ("train", "digits", "--size", 16, "--batch-size", 8, "--images", 1600, "--threads", 1, "--float32")


@pytest.fixture(autouse=True)
def usual():
    """Python's own handlers: whoever runs the tests in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    signal.signal(signal.SIGINT, before)


@BOTH
def test_a_signal_raises_at_once(number):
    with pytest.raises(Interrupted) as raised, caught():
        signal.raise_signal(number)
    assert raised.value.args == (number,)


def attend(*work):
    """Whether each piece of work, after a signal or not, found that it should stop."""
    found = []
    try:
        with finishing() as stop:
            for piece in work:
                piece()
                found.append(stop())
    except Interrupted as error:
        return found, error.args[0]
    return found, None


def raiser(error):
    def work():
        raise error

    return work


def idle():
    pass


@BOTH
def test_a_first_signal_lets_a_step_end_and_a_second_does_not(number):
    def send():
        signal.raise_signal(number)

    assert attend(idle, send, idle) == ([False, True, True], number)
    assert attend(send, send, idle) == ([True], number)
    assert attend(idle) == ([False], None)


def test_errors_pass_unless_a_signal_ended_a_helper():
    def send():
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(RuntimeError, match="mine"):
        attend(raiser(RuntimeError("mine")))
    assert attend(send, raiser(RuntimeError("a compiler was ended, too"))) == ([True], signal.SIGINT)
    with pytest.raises(OSError, match="full"):  # nothing was saved, which must be said
        attend(send, raiser(OSError("the disk is full")))


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what runs in the background
    try:
        with finishing() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_thread_has_no_handlers():
    seen = []

    def work():
        with finishing() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


@BOTH
def test_any_command_ends_in_one_line(number, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for command in ("inspect", "train"):
        load = "load_training_banks" if command == "train" else "load_banks"
        monkeypatch.setattr(f"kornia_cag.command.{command}.{load}", lambda *_: signal.raise_signal(number))
    assert cli.main(["inspect", "digits"]) == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert capsys.readouterr().err == f"kornia-cag: {word}\n"
    assert cli.main(["train", "digits"]) == 128 + number  # nothing is saved that could go on
    assert capsys.readouterr().err == f"kornia-cag: {word}\n"


# --- processes


def start(folder, *arguments, **environment):
    root = str(Path(kornia_cag.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [environment.pop("first", None), root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "kornia_cag", *map(str, arguments)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@BOTH
def test_a_signal_while_torch_is_loaded_ends_in_one_line(number, tmp_path):
    (tmp_path / "torch.py").write_text(
        "import time\nprint('here', flush=True)\ntry:\n    time.sleep(60)\nexcept BaseException:\n    pass\n"
    )
    process = start(tmp_path, "inspect", "digits", first=str(tmp_path))
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == f"kornia-cag: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, "10000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")],
    ids=["default", "policy", "count"],
)
def test_threads_that_wait_soon_sleep_unless_told_otherwise(given, count, tmp_path):
    """Seen by what stands in for torch, which reads it when it is loaded."""
    (tmp_path / "torch.py").write_text("import os\nprint(os.environ.get('GOMP_SPINCOUNT'), flush=True)\nos._exit(0)\n")
    process = start(tmp_path, "inspect", "digits", first=str(tmp_path), **given)
    assert process.communicate(timeout=60)[0] == f"{count}\n"


def finished(folder, *arguments):
    process = start(folder, *arguments)
    process.communicate(timeout=240)
    return process.returncode


def interrupted(folder, number, *arguments):
    """Send a signal once the training has told how far it is: status, and what was said on standard error."""
    process = start(folder, *arguments)
    said = []
    for line in process.stderr:
        said.append(line)
        if "images/s" in line:
            process.send_signal(number)
            break
    _, rest = process.communicate(timeout=120)
    return process.returncode, "".join([*said, rest])


def test_a_training_that_is_interrupted_twice_equals_one_that_is_not(tmp_path):
    assert finished(tmp_path, *TRAIN, "--out", "straight") == 0
    first = interrupted(tmp_path, signal.SIGINT, *TRAIN, "--out", "o")
    second = interrupted(tmp_path, signal.SIGTERM, *TRAIN, "--out", "o", "--resume")
    for (status, said), number, word in ((first, 2, "interrupted"), (second, 15, "terminated")):
        assert status == 128 + number, said
        assert said.endswith(f"kornia-cag: {word}; repeat the command with --resume to continue\n")
        assert said.count("kornia-cag:") == 1
        assert "Traceback" not in said
    assert not (tmp_path / "o/model.pt").exists()
    steps = torch.load(tmp_path / "o/checkpoint.pt", weights_only=True)["steps"]
    assert 0 < steps < 200
    assert finished(tmp_path, *TRAIN, "--out", "o", "--resume") == 0
    one, other = (torch.load(tmp_path / out / "model.pt", weights_only=True)["state"] for out in ("straight", "o"))
    assert all(torch.equal(one[name], other[name]) for name in one)


CLOSED = "import os, sys\nfor number in sys.argv[1]:\n    os.close(int(number))\nos.execv(sys.executable, sys.argv[2:])"


@pytest.mark.skipif(os.name != "posix", reason="other systems close streams otherwise")
@pytest.mark.parametrize(
    ("numbers", "arguments", "status", "said"),
    [
        ("1", ("--version",), 0, ""),
        ("012", ("--version",), 0, ""),
        (
            "01",
            ("inspect", "--objects", "x"),
            2,
            "kornia-cag: --objects: expected a folder, got 'x', which is not there.\n",
        ),
        ("2", ("inspect", "--objects", "x"), 2, ""),
    ],
)
def test_closed_streams_change_no_status(numbers, arguments, status, said, tmp_path):
    root = str(Path(kornia_cag.__file__).parent.parent)
    command = [sys.executable, "-c", CLOSED, numbers, sys.executable, "-m", "kornia_cag", *arguments]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=120, env={**os.environ, "PYTHONPATH": root}
    )
    assert (found.returncode, found.stderr) == (status, said)
    assert found.stdout in ("", f"kornia-cag {kornia_cag.__version__}\n")
