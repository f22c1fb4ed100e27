"""``Renderer``: rows to composites, compiled or not, in chunks that fit a cache, into memory that is used again."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.compiling import any_batch, kept, program
from kornia_cag.core.draws import Draws
from kornia_cag.core.memory import Memory
from kornia_cag.core.randomness import sample_keys
from kornia_cag.core.records import cut, joined, tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.scene import Earlier
from kornia_cag.scenes.strength import Ramp
from kornia_cag.scenes.targets import Composites

PIXELS = 2**18  # of a chunk, where there are enough rows for every thread: 3 MiB of float32 images

Written = dict[str, Tensor]  # what is large, by name: images, masks, full


class Renderer:
    """Composes batches of rows.

    On a CPU a large batch is made in chunks, each written straight into its place in memory that is used again once
    nobody reads it: an image costs the same in a batch of 64 and of 4096. Samples do not depend on their neighbours,
    so the pictures are the same to the bit.
    """

    def __init__(self) -> None:
        self._memories: dict[str, Memory] = {}
        self._program: Any = None

    @property
    def compiled(self) -> bool:
        """Whether batches are made by a compiled graph."""
        return self._program is not None

    def compile(self) -> None:
        """From the next batch on, make batches by one compiled graph, from rows to images."""
        if self._program is None:
            self._program = program(_composed)

    def twin(self) -> "Renderer":
        """One with the same compiled graph, and memory of its own."""
        twin = Renderer()
        twin._program = self._program
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {"compiled": self.compiled}  # another process compiles its own, and has memory of its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        if state["compiled"]:
            self.compile()

    @torch.no_grad()
    def __call__(
        self, composer: Composer, rows: Rows, strength: float | Ramp, earlier: Earlier | None, *,
        targets: bool, scene: bool,
    ) -> Composites:  # fmt: skip
        """Compose a batch.

        Args:
            composer: what composes.
            rows: on its device.
            strength: in [0, 1], or by epoch.
            earlier: what is offered to each row as its context.
            targets: make masks and boxes as well.
            scene: give what was drawn as well.
        """
        ends = cuts(composer, len(rows))
        parts = zip(cut(rows, ends), cut(earlier, ends), strict=True)
        if self._program is None and not ends:
            made = _composed(composer, strength, rows.table, earlier, None, targets, scene)
        else:
            room = self._room(composer, rows, targets)
            written = [dict(zip(room, part, strict=True)) for part in cut(tuple(room.values()), ends)]
            chunks = [
                self._chunk(composer, strength, part.table, held, into, targets, scene)
                for (part, held), into in zip(parts, written, strict=True)
            ]
            made = chunks[0] if not ends else _placed(joined([_small(chunk) for chunk in chunks]), room)
        return replace(made, images=composer.finish(made.images, made.keys)) if composer.ranges.finish else made

    def _chunk(self, *arguments: Any) -> Composites:
        if self._program is None:
            return _composed(*arguments)
        composer, _, table, earlier, into, _, _ = arguments
        any_batch(table, composer.contexts.pyramid.atlas, *tensors(earlier), *into.values())
        made: Composites = self._program(*arguments)
        return made

    def _room(self, composer: Composer, rows: Rows, targets: bool) -> Written:
        """Memory for what is large in a batch of composites, as they are laid out."""
        (height, width), device, b, k = composer.size, composer.objects.device, len(rows), rows.layers.shape[1]
        shapes = {"images": ((b, 3, height, width), composer.dtype)}
        if targets:
            shapes["masks"] = (b, k, height, width), torch.float32
            if k > 1:
                shapes["full"] = shapes["masks"]
        room = {}
        for name, (shape, dtype) in shapes.items():
            last = name == "images" and composer.channels_last
            order = (shape[0], shape[2], shape[3], shape[1]) if last else shape
            block = self._memories.setdefault(name, Memory()).empty(order, dtype, device)
            # Not views of anything, as far as autograd knows: a user may write into them.
            room[name] = (block.permute(0, 3, 1, 2) if last else block).detach()
        return room


def given_strength(strength: float | Ramp, epoch: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Strength of each sample, in [0, 1], by its epoch."""
    if isinstance(strength, Ramp):
        return strength(epoch)
    return torch.full_like(epoch, strength, dtype=torch.float32)


def _composed(
    composer: Composer, strength: float | Ramp, table: Int[Tensor, "b n"], earlier: Earlier | None,
    into: Written | None, targets: bool, scene: bool,
) -> Composites:  # fmt: skip
    """Rows to composites, up to the camera: the graph that is compiled."""
    rows = Rows(table)
    keys = kept(sample_keys(rows.seed, rows.epoch, rows.index))
    drawn = composer.ranges.sample(rows, given_strength(strength, rows.epoch), draws=Draws(keys))
    made = composer.shoot(drawn, earlier, targets=targets)
    if into is not None:
        into["images"].copy_(made.images)
        if made.targets is not None:
            into["masks"].copy_(made.targets.masks)
            if "full" in into:
                into["full"].copy_(made.targets.full)
        made = _placed(made, into)
    return made if scene else replace(made, scene=None)


def _placed(made: Composites, into: Written) -> Composites:
    """Composites whose large tensors are where they were written."""
    targets = made.targets
    if targets is not None:
        targets = replace(targets, masks=into["masks"], full=into.get("full", into["masks"]))
    return replace(made, images=into["images"], targets=targets)


def _small(made: Composites) -> Composites:
    """Composites without what is large, which is where it belongs already."""
    targets = made.targets
    if targets is not None:
        targets = replace(targets, masks=targets.masks[..., :0], full=targets.full[..., :0])
    return replace(made, images=made.images[..., :0], targets=targets)


def cuts(composer: Composer, b: int) -> list[int]:
    """Where a batch is cut into chunks: nowhere on a GPU, on a CPU such that each has about :data:`PIXELS`.

    Every thread gets as many rows of a chunk as the others, at least one; no chunk is a single row, which compiles on
    its own.
    """
    if composer.objects.device.type != "cpu":
        return []
    threads, (height, width) = torch.get_num_threads(), composer.size
    count = max(1, round(b * height * width / PIXELS))
    rows = max(2, -(-b // (count * threads)) * threads)
    return list(range(rows, b - 1, rows))
