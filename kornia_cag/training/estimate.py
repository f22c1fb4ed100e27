"""How long a training will take, by a few of its steps."""

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator

import torch


def seconds_per_image(steps: Iterator[int], device: torch.device, most: float) -> float | None:
    """Time a few steps, but for the first, which prepares much that later ones find; None if it fails.

    Args:
        steps: takes a step whenever it is asked for the next, and tells the number of its images. Torch's random state
            is as before when it is done; whatever it raises ends the timing.
        device: to wait for after each step.
        most: seconds to spend; a step that takes longer is not broken off.
    """
    times: list[float] = []
    rngs = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=rngs), contextlib.suppress(Exception):  # which the run itself will word
        start = time.perf_counter()
        end = start + most
        for count in itertools.islice(steps, 10):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            now = time.perf_counter()
            times.append((now - start) / count)
            if now > end:
                break
            start = time.perf_counter()
    return statistics.median(times[1:] or times) if times else None
