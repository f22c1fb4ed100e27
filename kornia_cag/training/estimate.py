"""Estimating how long a training will take from a few of its steps."""

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator

import torch

from kornia_cag.core import ranks


def seconds_per_image(steps: Iterator[int], device: torch.device, most: float) -> float | None:
    """Time a few steps, except the first, which sets up much that later ones reuse; None if it fails.

    Several ranks take them together, so what fails on one of them raises.

    Args:
        steps: takes one step per iteration, and yields its number of images. Torch's random state is restored
            afterwards; any exception ends the timing.
        device: device to wait for after each step.
        most: seconds to spend; a step that takes longer is not interrupted.
    """
    times: list[float] = []
    rngs = [device] if device.type == "cuda" else []
    ignored = () if ranks.here()[1] > 1 else (Exception,)  # the run itself will report it
    with torch.random.fork_rng(devices=rngs), contextlib.suppress(*ignored):
        start = time.perf_counter()
        end = start + most
        for count in itertools.islice(steps, 10):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            now = time.perf_counter()
            times.append((now - start) / count)
            if any(ranks.agreed(now > end)):
                break
            start = time.perf_counter()
    return statistics.median(times[1:] or times) if times else None
