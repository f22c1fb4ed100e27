"""Runs a function in several processes, each a rank, and brings back what they return."""

import importlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch

from kornia_cag.core import ranks

HERE = Path(__file__).parent


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets."""
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1, "PYTHONPATH": path}  # fmt: skip
    return {**os.environ, **{name: str(value) for name, value in told.items()}}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def on_ranks(count: int, job: str, folder: Path, *arguments: object, timeout: float = 180) -> list[object]:
    """What ``job``, ``module:function``, returns in each of ``count`` processes; all are killed after ``timeout``."""
    port, given = free_port(), folder / "given.pt"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(arguments, given)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "ranked.py"), job, str(folder)],
            env=environment(rank, count, port), stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    end = time.monotonic() + timeout
    try:
        said = [process.communicate(timeout=max(0.1, end - time.monotonic()))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)[-4000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _main(job: str, folder: str) -> None:
    module, _, name = job.partition(":")
    function = getattr(importlib.import_module(module), name)
    with ranks.connected("cpu"):
        found = function(*torch.load(Path(folder) / "given.pt", weights_only=False))
    torch.save(found, Path(folder) / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    _main(*sys.argv[1:])
