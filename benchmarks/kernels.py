"""What does a GPU do for a batch, and what does the host? ``python benchmarks/kernels.py [--ranges signs ...]``.

For each of the ranges, sides, batch sizes and ways of launching (eager, compiled, each also as a captured graph): the
time of a batch of ``CAGCollate`` from rows made ahead, the host's part of it, and, from torch's profiler, how long
the device was busy and with which kernels. Time is the median of five rounds; the host's part ends when the last
launch has been asked for. At the end of each, images are held against those that a CPU composes from the same rows.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import torch
from common import make_banks, rows
from dry_gpu import RANGES, row
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from kornia_cag import CAGCollate

WAYS = {
    "eager": {"graph": False},
    "eager graph": {"graph": True},
    "compiled": {"compile": True, "graph": False},
    "compiled graph": {"compile": True, "graph": True},
}
HEAD = ["ranges", "side", "batch", "way", "ms", "host, ms", "device, ms", "kernels", "images/s", "first two batches, s"]
ROUND = 0.12  # seconds, about
PROFILED = 4  # batches


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call with the device, and without: medians of five rounds of many calls each."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    count = max(4, min(60, int(ROUND / (time.perf_counter() - start))))
    whole, host = [], []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            work()
        host.append((time.perf_counter() - start) / count)
        torch.cuda.synchronize()
        whole.append((time.perf_counter() - start) / count)
    return statistics.median(whole), statistics.median(host)


def profiled(work: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """How often each kernel or copy runs in one call, and the seconds it takes in all."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        for _ in range(PROFILED):
            work()
            torch.cuda.synchronize()
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name][0] += 1 / PROFILED
            found[event.name][1] += event.device_time_total / PROFILED / 1e6
    return {name: (count, seconds) for name, (count, seconds) in found.items()}


def measured(ranges: str, side: int, batch: int, way: str) -> Iterator[str]:
    """Lines of the report on one setting."""
    device = torch.device("cuda")
    collate = CAGCollate(*make_banks(side, device), side, ranges=RANGES[ranges], **WAYS[way])
    table = list(islice(rows(*make_banks(side, device), batch), 8))
    turns = cycle(table)
    start = time.perf_counter()
    for _ in range(2):  # the second one is captured
        collate(next(turns))
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    for _ in range(6):
        collate(next(turns))
    whole, host = timed(lambda: collate(next(turns)))
    kernels = profiled(lambda: collate(next(turns)))
    count, busy = (sum(part) for part in zip(*kernels.values(), strict=True))
    yield row([ranges, str(side), str(batch), way, f"{1e3 * whole:.3f}", f"{1e3 * host:.3f}", f"{1e3 * busy:.3f}",
               f"{count:.0f}", f"{batch / whole:,.0f}", f"{first:.1f}"])  # fmt: skip
    yield f"  {against_cpu(collate(table[0])[0], ranges, side, table[0])}"
    for name, (often, seconds) in sorted(kernels.items(), key=lambda item: -item[1][1])[:12]:
        yield f"  {1e6 * seconds:9.1f} us {often:6.1f} x  {name[:100]}"


def against_cpu(images: Tensor, ranges: str, side: int, table: object) -> str:
    """How far images are from those that a CPU composes eagerly."""
    collate = CAGCollate(*make_banks(side), side, ranges=RANGES[ranges])
    gap = (images.cpu() - collate(table)[0]).abs()
    return f"against a CPU: at most {gap.max():.4f}; more than 1/255 in {(gap > 1 / 255 + 1e-6).float().mean():.1e}"


def main() -> int:
    """Read the command line, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ranges", nargs="+", choices=RANGES, default=["signs"], metavar="NAME", help=", ".join(RANGES)
    )
    parser.add_argument("--size", nargs="+", type=int, default=[64], help="sides of the canvas, pixels (default: 64)")
    parser.add_argument("--batch", nargs="+", type=int, default=[512], help="samples (default: 512)")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=[*WAYS], help="default: all four")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("needs a CUDA device; dry_gpu.py says what can be known without one", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n\n{row(HEAD)}\n{row(['--:'] * len(HEAD))}")
    for way in options.way:
        for ranges in options.ranges:
            for side in options.size:
                for batch in options.batch:
                    print("\n".join(measured(ranges, side, batch, way)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
