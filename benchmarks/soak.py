"""Does memory grow? ``python benchmarks/soak.py [--batches 100000] [--compile]``.

One process makes that many batches out of a DataLoader, as a training does: eight pictures of 16 pixels, a chain that
keeps composites apart by what a network confuses, an attack on its pixels, over as many epochs as it takes. Printed:
resident memory and open file descriptors, after 1,000 batches and then ten times; and the last against the first. The
exit status is 1 if memory grew by more than 2 %, or a descriptor stayed open.
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from kornia_cag import PGD, CAGCollate, ContextBank, ContextChain, HardPairing, ObjectBank, PairSampler
from kornia_cag.training.recipes import SIGNS

FIRST, MOST = 1_000, 1.02
BATCH, SIDE = 8, 16


def resident() -> float:
    """MiB in memory, and what is no longer used given back first."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    """Files, pipes and sockets that are open."""
    return len(os.listdir("/proc/self/fd"))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100_000, help="(default: 100000)")
    parser.add_argument("--compile", action="store_true", help="compose in one compiled graph")
    options = parser.parse_args()
    objects = ObjectBank.from_glyphs("0123456789", size=32)
    contexts = ContextBank.procedural("mix", count=64, size=32)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, len(objects.classes)))
    pairing = HardPairing(len(objects.classes))
    collate = CAGCollate(objects, contexts, SIDE, ranges=SIGNS.ranges, chain=ContextChain(0.2, pairing=pairing),
                         model=network, adversaries=[PGD(eps=0.05, steps=1)], compile=options.compile)  # fmt: skip
    pairs = PairSampler(objects.labels, len(contexts), batch_size=BATCH, drop_last=True)
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)
    every, made, first, start = max(1, options.batches // 10), 0, None, time.perf_counter()
    while made < options.batches:
        for images, labels in loader:
            pairing.observe(network(images).detach(), labels)
            made += 1
            if made == FIRST:
                first = resident(), descriptors()
            if made == FIRST or made % every == 0:
                print(f"{made:>9,} batches  {resident():8.1f} MiB  {descriptors()} descriptors  "
                      f"{time.perf_counter() - start:6.0f} s", flush=True)  # fmt: skip
            if made == options.batches:
                break
    if first is None:
        sys.exit(f"--batches: expected more than {FIRST}, got {options.batches}")
    ratio, more = resident() / first[0], descriptors() - first[1]
    print(f"{'compiled' if options.compile else 'eager'}: {ratio:.4f} times the memory after {FIRST:,} batches, "
          f"{more:+d} descriptors")  # fmt: skip
    sys.exit(ratio > MOST or more > 0)


if __name__ == "__main__":
    main()
