"""Runs a function in several processes, each a rank, and brings back what they return.

The processes are started once, and wait for the next function; whatever goes wrong or takes too long ends them all.
"""

import atexit
import importlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

from kornia_cag.core import ranks

HERE = Path(__file__).parent
_workers: list[subprocess.Popen[str]] = []


def environment(**told: object) -> dict[str, str]:
    """Of a process with one thread that finds the package and the tests."""
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        **{name: str(word) for name, word in told.items()},
    }


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@atexit.register
def end() -> None:
    """Kill the processes."""
    while _workers:
        worker = _workers.pop()
        worker.kill()
        worker.wait()


def _started(count: int) -> list[subprocess.Popen[str]]:
    while len(_workers) < count:
        _workers.append(subprocess.Popen(
            [sys.executable, "-u", "-W", "ignore", str(HERE / "ranked.py")], env=environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ))  # fmt: skip
    return _workers[:count]


def on_ranks(count: int, job: str, *arguments: object, timeout: float = 240) -> list:
    """What ``job``, ``module:function``, returns on each of ``count`` ranks."""
    told = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(arguments, Path(folder) / "given.pt")
        workers = _started(count)
        try:
            for rank, worker in enumerate(workers):
                task = {"job": job, "folder": folder, "told": {**told, "RANK": rank, "LOCAL_RANK": rank}}
                print(json.dumps(task), file=worker.stdin, flush=True)
            said = _answers(workers, time.monotonic() + timeout)
            assert said == ["done"] * count, "\n".join(map(str, said)).replace("\\n", "\n")[-6000:]
            return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(count)]
        except BaseException:
            end()
            raise


def _answers(workers: list[subprocess.Popen[str]], deadline: float) -> list[str]:
    said = ["silent"] * len(workers)
    with selectors.DefaultSelector() as waiting:
        for rank, worker in enumerate(workers):
            waiting.register(worker.stdout, selectors.EVENT_READ, rank)
        while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                said[key.data] = key.fileobj.readline().strip() or "ended"
                waiting.unregister(key.fileobj)
                if said[key.data] != "done":
                    deadline = min(deadline, time.monotonic() + 5)  # the others may wait for it
    return said


def _work(task: dict) -> str:
    os.environ.update({name: str(word) for name, word in task["told"].items()})
    folder = Path(task["folder"])
    module, _, name = task["job"].partition(":")
    try:
        with ranks.connected("cpu"):
            found = getattr(importlib.import_module(module), name)(*torch.load(folder / "given.pt", weights_only=False))
        torch.save(found, folder / f"{os.environ['RANK']}.pt")
    except BaseException:
        return json.dumps(traceback.format_exc())
    return "done"


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(_work(json.loads(line)), file=answers, flush=True)
