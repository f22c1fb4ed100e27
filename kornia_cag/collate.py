"""``CAGCollate``: the collate step that composes. The only file that knows DataLoader."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from kornia_cag.attack import PGD
from kornia_cag.banks import ContextBank, ObjectBank
from kornia_cag.chain import ContextChain
from kornia_cag.checks import check_choice, check_number, check_size, check_tensor, fail
from kornia_cag.compose import Composer, Scene, SceneRange
from kornia_cag.pairing import COLUMNS
from kornia_cag.randomness import sample_keys


class Pair(NamedTuple):
    """The plain output of :class:`CAGCollate`: what a training loop unpacks."""

    images: Float[Tensor, "b 3 h w"]  # in [0, 1], after the attack
    labels: Int[Tensor, " b"]

    def pin_memory(self) -> "Pair":
        """Called by a DataLoader with ``pin_memory=True``; batches made on a GPU have nothing to pin."""
        return Pair(*_pinned(self))


class Batch(NamedTuple):
    """The full output of :class:`CAGCollate`, for training on boxes or masks and for looking at what was made."""

    images: Float[Tensor, "b 3 h w"]  # in [0, 1], after the attack
    labels: Int[Tensor, " b"]
    masks: Float[Tensor, "b 1 h w"]  # warped alpha, in [0, 1]
    boxes: Float[Tensor, "b 4"]  # half-open xyxy, pixels
    objects: Int[Tensor, " b"]
    contexts: Int[Tensor, " b"]
    clean: Float[Tensor, "b 3 h w"]  # before the attack
    chained: Tensor  # (b,) bool: the context is an earlier composite
    rows: Int[Tensor, "b 5"]  # object, context, index, epoch, seed

    def pin_memory(self) -> "Batch":
        """Called by a DataLoader with ``pin_memory=True``; batches made on a GPU have nothing to pin."""
        return Batch(*_pinned(self))


def _pinned(batch: Pair | Batch) -> list[Tensor]:
    if batch.images.device.type == "cuda":
        fail("pin_memory", "False with batches that are made on the GPU", "True", "Pass pin_memory=False.")
    return [tensor.pin_memory() for tensor in batch]


@dataclass(frozen=True)
class Ramp:
    """Strength over training: 0 up to epoch ``start``, rising evenly to 1 at ``stop`` (the paper's curriculum)."""

    start: float = 0.0
    stop: float = 10.0

    def __post_init__(self) -> None:
        check_number("start", self.start, 0)
        if check_number("stop", self.stop, 0) <= self.start:
            fail("stop", f"an epoch after start={self.start:g}", f"{self.stop:g}")

    def __call__(self, epoch: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Strength in [0, 1] at each sample's epoch."""
        return ((epoch.float() - self.start) / (self.stop - self.start)).clamp(0, 1)


class CAGCollate:
    """A ``collate_fn`` that composes a batch on the banks' device from the rows of a :class:`PairSampler`.

    Every random choice is a function of a row's ``(seed, epoch, index)``. Use it with ``num_workers=0`` and
    ``pin_memory=False`` on a GPU; on a CPU it may run in workers as long as it has neither chain nor attack.

    Args:
        objects: what to recognise.
        contexts: what to put it on.
        size: canvas, one integer or ``(height, width)``, pixels.
        ranges: what varies from scene to scene.
        chain: use earlier composites as contexts.
        model: the model being trained, which the attack attacks.
        attack: harden every batch against ``model``.
        strength: in [0, 1], or a :class:`Ramp` over epochs.
        output: ``"pair"`` for ``(images, labels)``, ``"batch"`` for a :class:`Batch`.
        extra: a kornia augmentation (or any module from images to images of the same shape), run after the camera.
            Kornia's augmentation classes draw from the global random state, so with one of them a run repeats only
            under ``torch.manual_seed``.
    """

    def __init__(
        self,
        objects: ObjectBank,
        contexts: ContextBank,
        size: int | tuple[int, int],
        *,
        ranges: SceneRange | None = None,
        chain: ContextChain | None = None,
        model: nn.Module | None = None,
        attack: PGD | None = None,
        strength: float | Ramp = 1.0,
        output: Literal["pair", "batch"] = "pair",
        extra: nn.Module | None = None,
    ) -> None:
        self.composer = Composer(objects, contexts, check_size("size", size), ranges or SceneRange())
        if attack is not None and model is None:
            fail("model", "the model to attack", "None", "Pass model=..., or leave attack out.")
        self.strength = strength if isinstance(strength, Ramp) else check_number("strength", strength, 0, 1)
        check_choice("output", output, ("pair", "batch"))
        self.chain, self.model, self.attack, self.output, self.extra = chain, model, attack, output, extra

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.composer.objects.device

    def __call__(self, rows: Int[Tensor, "b 5"] | Sequence[Tensor]) -> Batch | Pair:
        """Compose, attack, and remember one batch.

        Args:
            rows: object, context, index, epoch, seed, as :class:`PairSampler` yields them.
        """
        self._check_worker()
        rows = _checked(rows).to(self.device, non_blocking=True)
        objects, contexts, index, epoch, seed = rows.unbind(1)
        keys = sample_keys(seed, epoch, index)
        ramp = self.strength
        strength = ramp(epoch) if isinstance(ramp, Ramp) else torch.full_like(keys, ramp, dtype=torch.float32)
        earlier = None
        if self.chain is not None:
            earlier = self.chain.earlier(self.composer.objects.labels[objects], keys, self.composer.size)
        with torch.no_grad():
            scene = self.composer(objects, contexts, keys, strength, earlier)
            clean = self._extra(scene.images)
        images = self._harden(scene, clean, keys)
        if self.chain is not None:
            self.chain.keep(images, scene.labels)
        if self.output == "pair":
            return Pair(images, scene.labels)
        chained = earlier.use if earlier is not None else torch.zeros_like(keys, dtype=torch.bool)
        return Batch(images, scene.labels, scene.masks, scene.boxes, objects, contexts, clean, chained, rows)

    def _extra(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        if self.extra is None:
            return images
        changed: Tensor = self.extra(images)
        check_tensor("extra", changed, tuple(images.shape), images.dtype, images.device,
                     fix="An extra stage must keep shape, dtype and device.")  # fmt: skip
        return changed.clamp(0, 1)

    def _harden(
        self, scene: Scene, clean: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]
    ) -> Float[Tensor, "b 3 h w"]:
        if self.attack is None or self.model is None:
            return clean
        return self.attack(self.model, clean, scene.labels, mask=scene.masks, keys=keys)

    def _check_worker(self) -> None:
        if get_worker_info() is None:
            return
        if self.device.type == "cuda":
            fail("num_workers", "0 with banks on a GPU", "a worker process",
                 "Composition runs on the GPU and needs no workers: pass num_workers=0, pin_memory=False.")  # fmt: skip
        if self.chain is not None or self.attack is not None:
            fail("num_workers", "0 with a chain or an attack", "a worker process",
                 "A worker would keep a chain and a stale model of its own: pass num_workers=0.")  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on beside its rows: the chain. Save it beside the loader's state."""
        return {"chain": None if self.chain is None else self.chain.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""
        if (self.chain is None) != (state.get("chain") is None):
            mine, other = ("no chain", "one") if self.chain is None else ("a chain", "none")
            fail("state", f"the state of a collate with {mine}", other, "Build it as the saved one was built.")
        if self.chain is not None:
            self.chain.load_state_dict(state["chain"])

    def __repr__(self) -> str:
        height, width = self.composer.size
        return (f"CAGCollate({self.composer.objects!r}, {self.composer.contexts!r}, size=({height}, {width}), "
                f"chain={self.chain!r}, attack={self.attack!r}, strength={self.strength!r})")  # fmt: skip


def _checked(rows: Any) -> Int[Tensor, "b 5"]:
    """Rows as one tensor, or an error: a loader without :meth:`PairRows.__getitems__` gives a list of them."""
    listed = isinstance(rows, list | tuple) and len(rows) > 0
    if listed and all(isinstance(row, Tensor) and row.shape == (len(COLUMNS),) for row in rows):
        rows = torch.stack(tuple(rows))
    fix = "Use DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=...)."
    check_tensor("rows", rows, ("b", len(COLUMNS)), torch.int64, fix=fix)
    if not len(rows):
        fail("rows", "at least one", "none", fix)
    stacked: Tensor = rows
    return stacked
