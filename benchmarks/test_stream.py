"""Is a stream of contexts as fast as a bank that stays?

Measured: a whole epoch of batches of 128 on 1,000 slots, eager, at 64 pixels, out of a DataLoader, beside the same rows
on a bank of 1,000 contexts that stay. The two take turns, so ``beside`` is a paired ratio: above 1, the stream is
slower. Every context is offered 4, 20 or 43 times before another takes its slot; 43 is what a sampler of 43 classes
does by default. ``arrays`` hold 64x64 pixels and are never the same: 4 offers over 100 epochs are 100,000 contexts.
``jpeg`` are 256 files of 200x160 pixels, again and again. Time per picture is that of decoding it and its mip levels:
a free core takes it off the loader, a busy machine does not.
"""

import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from common import BATCH, make_collate, time_rounds
from jaxtyping import UInt8
from PIL import Image
from torch.utils.data import DataLoader

from kornia_cag import ContextBank, ContextStream, PairSampler

SLOTS, SIDE = 1000, 64


def pictures(kind: str) -> Iterator[Any]:
    """Pictures without end."""
    wide, high = (64, 64) if kind == "arrays" else (200, 160)
    coarse = np.random.default_rng(0).integers(0, 256, (high // 8, wide // 8, 3), np.uint8)
    base = np.asarray(Image.fromarray(coarse).resize((wide, high)))
    made = (base ^ np.array([n & 255, n >> 8 & 255, n >> 16], np.uint8) for n in itertools.count())
    return made if kind == "arrays" else itertools.cycle([encoded(picture) for picture in itertools.islice(made, 256)])


def encoded(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["arrays", "jpeg"])
@pytest.mark.parametrize(("offers", "epochs"), [
    (4, 2), *(pytest.param(*each, marks=pytest.mark.full) for each in ((4, 100), (20, 5), (43, 3))),
])  # fmt: skip
def test_stream(benchmark, device, objects, kind, offers, epochs):
    benchmark.group = f"stream of {kind}"
    resident = ContextBank.procedural("mix", count=SLOTS, size=SIDE, device=device)

    def loader(contexts: Any) -> Iterator[Any]:
        pairs = PairSampler(objects.labels.cpu(), SLOTS, batch_size=BATCH, samples_per_class=-(-offers * SLOTS // 43))
        loaded = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=make_collate(objects, contexts, SIDE))
        return itertools.chain.from_iterable(itertools.repeat(loaded))

    with ContextStream(lambda: pictures(kind), slots=SLOTS, size=SIDE, device=device) as contexts:
        ours, theirs = loader(contexts), loader(resident)
        batches = -(-offers * SLOTS // BATCH)

        def taken(source: Iterator[Any]) -> None:
            for _ in range(batches):
                next(source)

        taken(ours)  # the first pictures, which a bank that stays reads before it begins
        before = contexts.waited
        time_rounds(benchmark, device, lambda: taken(ours), batches * BATCH, batch=BATCH, rounds=epochs - 1,
                    beside=lambda: taken(theirs), what="stream", offers=offers, kind=kind)  # fmt: skip
        benchmark.extra_info["waited_s"] = round(contexts.waited - before, 3)
