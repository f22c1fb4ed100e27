"""Is NEW as fast as OLD? Two checkouts of this repository: ``python benchmarks/paired.py OLD NEW [--work NAME ...]``.

Each works in a process of its own, and they take turns: OLD NEW, NEW OLD, OLD NEW and so on. Whatever else a machine
does slows both alike, so that the ratio of two turns means something where the milliseconds of two runs do not.

Measured, with the ranges of ``signs``: batches out of a DataLoader, from rows of a PairSampler to images on the device
(CUDA where there is one), which is waited for at the end of a turn. ``host`` has a canvas of 8 pixels, so that nearly
all of its time is Python's. ``pgd`` and ``scene pgd`` attack the recipe's untrained network. ``cold`` is the time from
building ``CAGCollate`` to its first compiled batch, in a new process with an empty inductor cache, which takes minutes.

Printed: median milliseconds of a batch, and how many times as fast NEW is: median and quartiles over the rounds. Where
1 lies between the quartiles, no difference was found. To stay on a quiet core: ``taskset -c 1 python ...``. A checkout
may be one whose package was still flat, or whose collate took ``attack=`` and ``scene_attack=``.
"""

import argparse
import importlib.util
import inspect
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

COLD = 2  # rounds of cold starts
WORK = {  # canvas side, batch size, and what is asked for; "whole" is with masks, boxes and the rest of a Batch
    "compiled 64": (64, 128, {"compile"}),
    "compiled 64, whole": (64, 128, {"compile", "whole"}),
    "compiled 224": (224, 32, {"compile"}),
    "eager 64": (64, 64, set()),
    "eager 224": (224, 8, set()),
    "host": (8, 64, {"chain", "whole"}),
    "pgd": (40, 64, {"pixels"}),
    "scene pgd": (40, 64, {"chain", "scenes"}),
    "cold": (64, 128, {"compile"}),
}


def prepared(size: int, batch: int, asked: set[str]) -> Iterator[Any]:
    """Batches without end, on banks and a network that are there; the collate is built for the first of them."""
    from torch.utils.data import DataLoader

    from kornia_cag import PGD, CAGCollate, ContextBank, ContextChain, ObjectBank, PairSampler, ScenePGD

    flat = importlib.util.find_spec("kornia_cag.training") is None
    recipe = importlib.import_module("kornia_cag.recipes" if flat else "kornia_cag.training.recipes").SIGNS
    texels, count = (64, 512) if size <= 64 else (256, 128)
    objects = ObjectBank.from_glyphs("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg", size=texels)
    contexts = ContextBank.procedural("mix", count=count, size=texels)
    pairs = PairSampler(objects.labels.cpu(), count, batch_size=batch, drop_last=True, seed=0)
    options: dict[str, Any] = {"compile": "compile" in asked, "returns": "batch" if "whole" in asked else "pair"}
    options |= {"ranges": recipe.ranges, "chain": ContextChain(0.171) if "chain" in asked else None}
    stages: dict[str, Any] = {"scene_attack": ScenePGD(steps=1, fraction=0.5)} if "scenes" in asked else {}
    stages |= {"attack": PGD(eps=0.1, eps_object=0.02, steps=5)} if "pixels" in asked else {}
    if stages:
        options["model"] = recipe.model(len(objects.classes)).to(objects.device)
        together = "adversaries" in inspect.signature(CAGCollate.__init__).parameters
        options |= {"adversaries": tuple(stages.values())} if together else stages

    def batches() -> Iterator[Any]:
        collate = CAGCollate(objects, contexts, size, **options)
        while True:
            yield from DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)

    return batches()


def serve(name: str) -> None:
    """Print the seconds of the first batch, then those of one of as many batches as each line of the input says."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    batches = prepared(*WORK[name])
    for line in chain(["1"], sys.stdin):
        count, start = int(line), time.perf_counter()
        for _ in range(count):
            next(batches)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        print((time.perf_counter() - start) / count, flush=True)


def begin(checkout: Path, name: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    """Let a checkout work in a process of its own, with an empty inductor cache."""
    changed = {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": str(options.threads),
               "TORCHINDUCTOR_CACHE_DIR": tempfile.mkdtemp(dir=options.cache)}  # fmt: skip
    command, pipe = [sys.executable, __file__, *2 * [str(checkout)], "--serve", name], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **changed})


def seconds(process: subprocess.Popen[str], count: int = 0) -> float:
    """Seconds of a batch, the mean of ``count``, or without a count those of the first."""
    if count:
        print(count, file=process.stdin, flush=True)
    line = process.stdout.readline() if process.stdout else ""
    return float(line) if line else sys.exit(f"no answer from {process.args!r}")


def compare(checkouts: list[Path], name: str, options: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """Seconds of a batch of each, round by round."""
    with ExitStack() as stack:
        sides = [stack.enter_context(begin(checkout, name, options)) for checkout in checkouts if name != "cold"]
        for side in sides:
            seconds(side)
        count = max(1, int(options.seconds / max(seconds(side, 1) for side in sides))) if sides else 0
        for number in range(options.rounds if sides else COLD):
            took = [0.0, 0.0]
            for k in (1, 0) if number % 2 else (0, 1):
                with nullcontext(sides[k]) if sides else begin(checkouts[k], name, options) as side:
                    took[k] = seconds(side, count)
            yield took[0], took[1]


def main() -> None:
    """Read the command line, and print a line for each kind of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("old", "new"):
        parser.add_argument(name, type=Path, metavar=name.upper(), help="checkout")
    parser.add_argument("--work", nargs="+", choices=WORK, default=[*WORK], metavar="NAME", help=", ".join(WORK))
    parser.add_argument("--rounds", type=int, default=20, help="turns of each, 2 or more (default: 20)")
    parser.add_argument("--seconds", type=float, default=0.4, help="of a turn, about (default: 0.4)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--serve", choices=WORK, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    checkouts = [checkout.resolve() for checkout in (options.old, options.new)]
    for checkout in checkouts:
        if not (checkout / "kornia_cag").is_dir():
            parser.error(f"{checkout}: expected a checkout of this repository, got no kornia_cag in it")
    print(f"{'':20}{'old, ms':>12}{'new, ms':>12}   times as fast (quartiles)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as options.cache:
        for name in options.work:
            turns = list(compare(checkouts, name, options))
            old, new = (1e3 * statistics.median(side) for side in zip(*turns, strict=True))
            low, middle, high = statistics.quantiles([old / new for old, new in turns], n=4)
            print(f"{name:20}{old:12.2f}{new:12.2f}   {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main()
