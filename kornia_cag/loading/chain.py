"""Earlier composites as contexts: the greedy bias correction of Jin and Rinard.

The previous batch's object is the most confusing thing to put behind a new object: a model that has learned to look at
the wrong one of the two is penalised.
"""

from types import NoneType
from typing import Any, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_number, check_tensor, describe, fail
from kornia_cag.core.formats import DTYPES
from kornia_cag.loading.confusion import HardPairing
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.scene import Earlier


class ContextChain:
    """Keeps the last composite of every slot of a batch, and offers it as a context.

    With probability ``reset`` a slot uses a fresh context from the bank instead. It also does if its last composite
    shows an object of the new object's class, since the object in the context must have a different label: with C
    balanced classes the share of fresh contexts is ``reset + (1 - reset) / C``, and less with a ``pairing``, which
    keeps objects of a class apart.

    Args:
        reset: probability in [0, 1]. The paper's code uses 0.171 for signs and 0.212 for digits.
        pairing: chooses which slot offers its composite to which sample; default: each sample's own slot.
        warm_start: start the attack where the slot's last attack ended, at the new composite plus the last
            perturbation, instead of at a random point. A slot whose last sample was not attacked starts as usual.
            Needs a :class:`kornia_cag.PGD`.
    """

    def __init__(self, reset: float = 0.171, *, pairing: HardPairing | None = None, warm_start: bool = False) -> None:
        self.reset = check_number("reset", reset, 0, 1)
        check_instance("pairing", pairing, (HardPairing, NoneType), "Pass pairing=HardPairing(classes=43).")
        self.pairing, self.warm_start = pairing, warm_start
        self._changes: Tensor | None = None
        self._images: Tensor | None = None
        self._labels: Tensor | None = None

    def slots(
        self, b: int, *, size: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float32,
        layers: int = 1,
    ) -> Earlier:  # fmt: skip
        """The composites in the first ``b`` slots.

        Args:
            b: number of slots.
            size: size of the composites, ``(height, width)``, pixels.
            device: their device.
            dtype: their dtype.
            layers: number of objects each shows, K.

        Raises:
            InputError: if the kept composites have another size, dtype, device or number of objects.
        """
        if self._images is None or self._labels is None:
            images = torch.zeros(b, 3, *size, device=device, dtype=dtype)
            return Earlier(images, torch.full((b, layers), -1, dtype=torch.int64, device=device), self.reset)
        here = tuple(self._images.shape[-2:]), self._images.dtype, self._images.device
        if here != (size, dtype, device):
            fail("chain", f"{dtype} composites of {size} pixels on {device}", "{1} of {0} on {2}".format(*here),
                 "Call chain.clear() first.")  # fmt: skip
        if self._labels.shape[1] != layers:
            fail("chain", f"composites of {layers} objects", f"{self._labels.shape[1]}", "Call chain.clear() first.")
        missing = b - len(self._images)
        if missing <= 0:
            return Earlier(self._images[:b], self._labels[:b], self.reset)
        images = torch.cat([self._images, self._images.new_zeros(missing, 3, *size)])
        return Earlier(images, torch.cat([self._labels, self._labels.new_full((missing, layers), -1)]), self.reset)

    def offered(self, composer: Composer, rows: Rows) -> Earlier:
        """The composite offered to each row: its own slot's, or with a ``pairing`` that of the slot it chose.

        Empty slots offer black pictures, which are not used, so that one compiled graph serves from the first batch on.
        """
        earlier = self.slots(
            len(rows), size=composer.size, device=rows.device, dtype=composer.dtype, layers=rows.layers.shape[1]
        )
        images, labels = earlier.images, earlier.labels
        if self.pairing is not None:
            order = self.pairing.order(labels[:, 0], composer.objects.labels[rows.objects], rows.keys)
            images, labels = images[order], labels[order]
        layout = torch.channels_last if composer.channels_last else torch.contiguous_format
        return Earlier(images.contiguous(memory_format=layout), labels, self.reset)

    def changes(self, b: int) -> Float[Tensor, "b 3 h w"] | None:
        """The final perturbation of the last attack on each of the first ``b`` slots; zero if not yet attacked.

        None without ``warm_start``, and before the first attack.
        """
        if not self.warm_start or self._changes is None:
            return None
        missing = max(0, b - len(self._changes))
        held: Tensor = torch.cat([self._changes, self._changes.new_zeros(missing, *self._changes.shape[1:])])[:b]
        return held

    def keep(
        self,
        images: Shaped[Tensor, "b 3 h w"],
        labels: Int[Tensor, "b k"],
        changes: Float[Tensor, "b 3 h w"] | None = None,
    ) -> None:
        """Store the finished (attacked) composites of a batch. Slots beyond a smaller batch keep theirs.

        Args:
            images: attacked.
            labels: classes of the objects that they show.
            changes: (b, 3, h, w); what the attack that starts warm has changed; with ``warm_start`` only.
        """
        if self.warm_start:
            check_tensor("changes", changes, tuple(images.shape), images.dtype, images.device, "warm_start needs it.")
            rest = None if self._changes is None else self._changes[len(labels) :]
            ended = cast(Tensor, changes).detach()
            self._changes = ended if rest is None else torch.cat([ended, rest])
        if self.pairing is not None:
            self.pairing.publish()
        if self._images is None or self._labels is None or len(self._labels) <= len(labels):
            self._images, self._labels = images.detach().clone(), labels.clone()
            return
        self._images = torch.cat([images.detach(), self._images[len(labels) :]])
        self._labels = torch.cat([labels, self._labels[len(labels) :]])

    def clear(self) -> None:
        """Drop all composites and perturbations."""
        self._images = self._labels = self._changes = None

    def state_dict(self) -> dict[str, Any]:
        """The stored composites and their labels, not copied; with them a stopped run resumes bit for bit."""
        pairing = None if self.pairing is None else self.pairing.state_dict()
        return {"images": self._images, "labels": self._labels, "pairing": pairing,
                "changes": self._changes}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Load the state of :meth:`state_dict`, moved to ``device`` if given.

        Raises:
            InputError: for anything but images ``(b, 3, h, w)`` with labels ``(b, K)`` int64, or None for both.
        """
        if not isinstance(state, dict) or set(state) != {"images", "labels", "pairing", "changes"}:
            got = f"{sorted(map(str, state))}" if isinstance(state, dict) else describe(state)
            fail("state", "keys 'changes', 'images', 'labels' and 'pairing'", got)
        images, labels, changes = state["images"], state["labels"], state["changes"]
        self._check_alike("pairing", self.pairing is not None, state["pairing"] is not None)
        if images is not None or labels is not None:
            check_tensor("state['images']", images, ("b", 3, "h", "w"), DTYPES)
            check_tensor("state['labels']", labels, (len(images), "K"), torch.int64, None if device else images.device)
            self._check_alike("warm start", self.warm_start, changes is not None)
        if changes is not None:
            check_tensor("state['changes']", changes, tuple(images.shape), images.dtype)
        if self.pairing is not None:
            self.pairing.load_state_dict(state["pairing"], device)
        self._images, self._labels, self._changes = (
            None if tensor is None else tensor.to(device) for tensor in (images, labels, changes)
        )

    @staticmethod
    def _check_alike(what: str, mine: bool, saved: bool) -> None:
        if mine != saved:
            words = {True: f"one with a {what}", False: f"one with no {what}"}
            fail("state", f"the state of a chain like this, {words[mine]}", words[saved],
                 "Build it like the saved one.")  # fmt: skip

    def __repr__(self) -> str:
        pairing = "" if self.pairing is None else f", pairing={self.pairing!r}"
        return f"ContextChain(reset={self.reset:g}{pairing}, slots={0 if self._labels is None else len(self._labels)})"
