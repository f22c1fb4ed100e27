"""``Renderer``: rows to composites, compiled or not, captured or not, in chunks that fit a cache, in reused memory."""

from dataclasses import replace
from typing import Any

import torch

from kornia_cag.core.memory import Memory
from kornia_cag.core.records import cut, joined
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.capture import Captures
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.programs import Programs, Written, composed, outputs, placed
from kornia_cag.scenes.strength import Ramp
from kornia_cag.scenes.targets import Composites

PIXELS = 2**18  # per chunk, if there are enough rows for every thread: 3 MiB of float32 images
TILED = 2, 4  # times as many, eager and compiled, if objects are drawn in tiles: their number, not pixels, takes time


class Renderer:
    """Composes batches of rows.

    On a CPU a large batch is composed in chunks, each written directly into its place in memory, which is reused once
    nobody reads it: an image costs the same in a batch of 64 and of 4096. Samples do not depend on each other, so the
    pictures are bit-identical.

    Args:
        captures: records and replays composition; None: it is launched anew for every batch.
    """

    def __init__(self, captures: Captures | None = None) -> None:
        self._memories: dict[str, Memory] = {}
        self._programs: Programs | None = None
        self._captures = captures

    @property
    def compiled(self) -> bool:
        """Whether batches are composed by compiled graphs."""
        return self._programs is not None

    def compile(self) -> None:
        """Use compiled graphs, from rows to images, from the next batch on."""
        if self._programs is None:
            self._programs = Programs()

    def twin(self) -> "Renderer":
        """A renderer with the same graphs, compiled and captured, and its own memory."""
        twin = Renderer(self._captures)
        twin._programs = self._programs
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # Another process compiles and captures for itself, and has its own memory.
        return {"compiled": self.compiled, "captures": self._captures}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(Renderer(state["captures"]).__dict__)
        if state["compiled"]:
            self.compile()

    @torch.no_grad()
    def __call__(
        self, composer: Composer, rows: Rows, strength: float | Ramp, earlier: Earlier | None, *,
        targets: bool, scene: bool,
    ) -> Composites:  # fmt: skip
        """Compose a batch.

        Args:
            composer: the composer to use.
            rows: on its device.
            strength: in [0, 1], or a ramp over epochs.
            earlier: the context offered to each row.
            targets: also make masks and boxes.
            scene: also return the scenes.
        """
        if self._captures is None:
            made = self._rendered(composer, strength, rows, earlier, targets, scene)
        else:
            made = self._captures(
                lambda table, keys, held: self._rendered(
                    composer, strength, Rows(table).with_keys(keys), held, targets, scene
                ),
                (rows.table, rows.keys, earlier), owner=composer, settings=(strength, targets, scene, self.compiled),
            )  # fmt: skip
        return replace(made, images=composer.finish(made.images, made.keys)) if composer.ranges.finish else made

    def _rendered(
        self, composer: Composer, strength: float | Ramp, rows: Rows, earlier: Earlier | None, targets: bool,
        scene: bool,
    ) -> Composites:  # fmt: skip
        tiled = rows.layers.shape[1] > 1 and composer.painter.sparse
        ends = cuts(composer, len(rows), TILED[self.compiled] * PIXELS if tiled else PIXELS)
        if self._programs is None and not ends and not tiled:
            return self._chunk(composer, strength, rows, earlier, None, targets, scene)
        room = self._room(composer, rows, 0 if earlier is None else earlier.places, targets)
        parts = zip(rows.cut(ends), cut(earlier, ends), cut(tuple(room.values()), ends), strict=True)
        chunks = [self._chunk(composer, strength, own, held, dict(zip(room, part, strict=True)), targets, scene)
                  for own, held, part in parts]  # fmt: skip
        if not ends:
            return chunks[0]
        return replace(placed(joined([_small(chunk) for chunk in chunks]), room), images=room["images"])

    def _chunk(
        self, composer: Composer, strength: float | Ramp, rows: Rows, earlier: Earlier | None, into: Written | None,
        targets: bool, scene: bool,
    ) -> Composites:  # fmt: skip
        if self._programs is None or into is None:
            plan = composer.plan(rows.layers.shape[1])
            return composed(composer, strength, rows.table, rows.keys, plan, earlier, into, targets, scene)
        return self._programs(composer, strength, rows, earlier, into, targets=targets, scene=scene)

    def _room(self, composer: Composer, rows: Rows, behind: int, targets: bool) -> Written:
        """Memory for the large tensors of a batch of composites, in their layout."""
        room, layers = {}, rows.layers.shape[1]
        staged = self.compiled and layers > 1
        shapes = outputs(composer, len(rows), layers=behind + layers, targets=targets, staged=staged)
        for name, (shape, dtype) in shapes.items():
            last = name == "images" and composer.channels_last
            order = (shape[0], shape[2], shape[3], shape[1]) if last else shape
            block = self._memories.setdefault(name, Memory()).empty(order, dtype, composer.objects.device)
            # Autograd must not see them as views: a user may write into them.
            room[name] = (block.permute(0, 3, 1, 2) if last else block).detach()
        return room


def _small(made: Composites) -> Composites:
    """Composites without their large tensors, which are already in place."""
    targets = made.targets
    if targets is not None:
        targets = replace(targets, masks=targets.masks[..., :0], full=targets.full[..., :0])
    return replace(made, images=made.images[..., :0], targets=targets)


def cuts(composer: Composer, b: int, pixels: int | None = None) -> list[int]:
    """Where to cut a batch into chunks: nowhere on a GPU; on a CPU, into chunks of about ``pixels``.

    Each thread gets the same number of rows of a chunk, at least one. No chunk is a single row, which would compile
    separately. Default: :data:`PIXELS`.
    """
    if composer.objects.device.type != "cpu":
        return []
    threads, (height, width) = torch.get_num_threads(), composer.size
    count = max(1, round(b * height * width / (pixels or PIXELS)))
    rows = max(2, -(-b // (count * threads)) * threads)
    return list(range(rows, b - 1, rows))
