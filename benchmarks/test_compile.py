"""How long does the first compiled batch take, with an empty cache and in a second process that finds it filled?

Measured: in a process of its own, the seconds from building ``CAGCollate`` for compiling to its first batch of 128
finished images, and of a second batch of another size, which must not compile again. Python's start, imports and banks
are not in it. ``cold`` has an empty ``TORCHINDUCTOR_CACHE_DIR``; ``cached`` the one that another process filled just
before. ``eager`` is the same without compiling.

How: once each, since a second cold start needs another minute.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from common import BATCH, make_banks, make_collate, rows, wait

CACHES = ["eager", pytest.param("cold", marks=pytest.mark.full), pytest.param("cached", marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("inductor")


@pytest.mark.parametrize("state", CACHES)
@pytest.mark.parametrize("side", [64])
def test_first_batch(benchmark, cache, device, side, state):
    benchmark.group = f"first batch {side}x{side}"
    folder = cache / str(side)
    if state == "cached":
        assert any(folder.iterdir()), "the cold start comes first"
    seconds = benchmark.pedantic(first_batch, args=(side, state != "eager", folder), rounds=1)
    benchmark.extra_info.update(device=device.type, what=state, side=side, images=BATCH, batch=BATCH, **seconds)
    assert seconds["other_size_s"] > 0


def first_batch(side: int, compiled: bool, cache: Path) -> dict[str, float]:
    """Seconds in another process."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, __file__, str(side), str(int(compiled))]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return json.loads(done.stdout.splitlines()[-1])


def main(side: int, compiled: bool) -> None:
    """Measure here, and print."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objects, contexts = make_banks(side, device)
    wait(device)
    start = time.perf_counter()
    collate = make_collate(objects, contexts, side, compiled=compiled)
    collate(next(rows(objects, contexts)))
    wait(device)
    first = time.perf_counter()
    collate(next(rows(objects, contexts, 2 * BATCH)))
    wait(device)
    print(json.dumps({"first_batch_s": first - start, "other_size_s": time.perf_counter() - first}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "1")
