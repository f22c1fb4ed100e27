import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import kornia_cag
from kornia_cag import InputError
from kornia_cag.core import lock
from kornia_cag.core.lock import held

HOLD = """
import sys, time
from pathlib import Path
from kornia_cag.core.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    root = str(Path(kornia_cag.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_until_the_first_has_died_of_anything(tmp_path, holder):
    message = rf"^folder: expected a folder that no other run writes to, got '.*', in use by process {holder.pid} on "
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(InputError, match=message), held(tmp_path):
            pytest.fail("two processes in one folder")
    half = tmp_path / f".{'0' * 16}.partial"
    half.touch()
    holder.send_signal(signal.SIGKILL)
    holder.wait(60)
    with held(tmp_path):
        assert (tmp_path / ".holder").read_text().startswith(f"process {os.getpid()} on ")
        assert not half.exists()


def test_the_folder_is_free_after_an_error_and_bears_no_name(tmp_path):
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), held(tmp_path):
            raise error
    with held(tmp_path), pytest.raises(InputError, match=f"in use by process {os.getpid()}"), held(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_holder_that_said_nothing_is_another_process(tmp_path):
    with held(tmp_path):
        (tmp_path / ".holder").unlink()
        with pytest.raises(InputError, match="in use by another process"), held(tmp_path):
            pass


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")])
def test_where_nothing_can_be_locked_it_is_said(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(lock.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match="lies where nothing can be locked: keep other runs out of it"), held(tmp_path):
        pass
    error = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(PermissionError), held(tmp_path):
        pytest.fail("written to all the same")
