"""How near does composition come to the time that its bytes need to move?

Measured: ``CAGCollate`` on rows made ahead, batch 128 (also 512 and 4096 on a GPU), beside the *floor*: the bytes that
a batch must move, over the bandwidth of a large copy on the same device in the same run. Counted are the finished
images, written once, and of the banks the texels that must be read at least once: of a context those of its level and
crop, of an object those of its level (``EXTENT`` of the side), both averaged over draws of the ``signs`` recipe. Not
counted: parameters, masks, boxes, second reads, and bytes of a cache line beside those wanted. ``fraction`` is floor
over time: 1 cannot be exceeded where no cache holds the pictures.

How: the median of seven copies, bytes read and written together, and the median of the rounds.
"""

import random
import statistics

import pytest
import torch
from common import BATCH, CUDA, elapsed, time_rounds
from test_growth import random_rows

from kornia_cag import ContextBank, ObjectBank
from kornia_cag.banks.texels import EXTENT
from kornia_cag.bench.draws import Director
from kornia_cag.training.recipes import RIGID_SIGNS

full = pytest.mark.full
SIDES = [64, *(pytest.param(side, marks=full) for side in (32, 128, 224))]
BATCHES = [BATCH, *(pytest.param(count, marks=full) for count in ((512, 4096) if CUDA else ()))]
PATHS = ["eager", *(pytest.param(path, marks=full) for path in ["compiled", *(["compiled graph"] if CUDA else [])])]
COPY = 2**30 if CUDA else 2**28  # bytes; no cache holds them


@pytest.fixture(scope="module")
def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes together."""
    source = torch.ones(COPY, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * COPY / statistics.median(elapsed(lambda: target.copy_(source), device) for _ in range(7))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("side", SIDES)
def test_floor(benchmark, banks, collates, device, bandwidth, side, batch, path):
    benchmark.group = f"floor {side}x{side}"
    objects, contexts = banks(side)
    collate = collates(side, path != "eager", **({"graph": True} if path == "compiled graph" else {}))
    rows = random_rows(len(objects), len(contexts), batch)
    for _ in range(3):  # a graph is captured with the second batch
        images = collate(next(rows))[0]
    per_image = texel_bytes(objects, contexts, side) + images[0].numel() * images.element_size()
    floor = batch * per_image / bandwidth
    time_rounds(benchmark, device, lambda: collate(next(rows)), batch, batch=batch, side=side, what=path)
    info = benchmark.extra_info
    if benchmark.enabled:
        took = benchmark.stats.stats.median * batch / info["images"]
        info.update(fraction=round(floor / took, 4), floor_ms=1e3 * floor, copy_gb_s=round(bandwidth / 1e9, 1),
                    bytes_per_image=round(per_image))  # fmt: skip
    assert floor > 0


def texel_bytes(objects: ObjectBank, contexts: ContextBank, side: int, scenes: int = 500) -> float:
    """Mean bytes of a bank that one scene has to read."""
    director, chance, total = Director(objects, contexts, side, RIGID_SIGNS), random.Random(0), 0.0
    for _ in range(scenes):
        shot = director(lambda _, bounds: chance.uniform(*bounds))
        crop = min(abs(shot.around.crop[1] * side), contexts.size >> shot.around.context_level)
        total += 4 * (EXTENT * (objects.size >> shot.level)) ** 2 + 3 * crop**2
    return total / scenes
