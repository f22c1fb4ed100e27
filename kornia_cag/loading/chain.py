"""Earlier composites as contexts: the greedy bias correction of Jin and Rinard.

The previous batch's object is the most confusing thing to put behind a new object: a model that has learned to look at
the wrong one of the two is penalised.
"""

from collections.abc import Callable
from dataclasses import replace
from types import NoneType
from typing import Any, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.formats import DTYPES
from kornia_cag.core.ranks import Share, agreed, whole
from kornia_cag.core.records import joined, mapped
from kornia_cag.loading.confusion import HardPairing
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.targets import Targets, check_targets

KEYS = {"images", "labels", "targets", "generations", "pairing", "changes"}  # of a state


class ContextChain:
    """Keeps the last composite of every slot of a batch, and offers it as a context.

    With probability ``reset`` a slot uses a fresh context from the bank instead. What is said of the objects that are
    seen behind depends on what learns from the pictures:

    - A classifier has to name the object in front, so those behind give up their targets: ``generations=0``. Then a
      slot also uses a fresh context if its last composite shows an object of the new object's class, since the object
      in the context must have a different label: with C balanced classes the share of fresh contexts is
      ``reset + (1 - reset) / C``, and less with a ``pairing``, which keeps objects of a class apart.
    - A detector has to find all that is seen, so objects of up to G earlier generations stay targets:
      ``generations=G``. A composite of ``G + 1`` generations is not used again. The share of fresh contexts is
      ``1 / (1 + s + s² + … + sᴳ)`` for ``s = 1 - reset``, thus at least half with one generation. With a ``reset``
      near 0 slots keep in step for long, so that whole batches have fresh contexts and whole batches have none.

    With several ranks each keeps its own slots of the global batch, so pictures are those of a single process. Only a
    ``pairing`` moves composites between ranks. :meth:`state_dict` is that of a rank: :func:`gathered` makes one of all.

    Args:
        reset: probability in [0, 1]. The paper's code uses 0.171 for signs and 0.212 for digits.
        generations: G, of how many earlier composites the objects stay targets; a batch's ``targets`` then have
            ``(G + 1) K`` objects, the earliest first, and the collate needs ``returns="batch"``.
        pairing: chooses which slot offers its composite to which sample; default: each sample's own slot.
        warm_start: start the attack where the slot's last attack ended, at the new composite plus the last
            perturbation, instead of at a random point. A slot whose last sample was not attacked starts as usual.
            Needs a :class:`kornia_cag.PGD`.
    """

    def __init__(
        self, reset: float = 0.171, *, generations: int = 0, pairing: HardPairing | None = None,
        warm_start: bool = False,
    ) -> None:  # fmt: skip
        self.reset = check_number("reset", reset, 0, 1)
        self.generations = check_int("generations", generations, 0, 100)
        check_instance("pairing", pairing, (HardPairing, NoneType), "Pass pairing=HardPairing(classes=43).")
        self.pairing, self.warm_start = pairing, warm_start
        self._changes: Tensor | None = None
        self._held: Earlier | None = None

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
            layers: number of objects each shows, K, besides those of earlier generations.

        Raises:
            InputError: if the kept composites have another size, dtype, device or number of objects.
        """
        if self._held is None:
            return self._empty(b, layers, size, device, dtype)
        held = replace(self._held, reset=self.reset)
        here = tuple(held.images.shape[-2:]), held.images.dtype, held.images.device
        if here != (size, dtype, device):
            fail("chain", f"{dtype} composites of {size} pixels on {device}", "{1} of {0} on {2}".format(*here),
                 "Call chain.clear() first.")  # fmt: skip
        if held.labels.shape[1] != layers:
            fail("chain", f"composites of {layers} objects", f"{held.labels.shape[1]}", "Call chain.clear() first.")
        missing = b - len(held.labels)
        if missing <= 0:
            return mapped(lambda tensor: tensor[:b], held)
        return joined([held, self._empty(missing, layers, size, device, dtype)])

    def _empty(self, b: int, layers: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Earlier:
        """Empty slots: black pictures, which are not used, so that one compiled graph serves from the start."""
        images = torch.zeros(b, 3, *size, device=device, dtype=dtype)
        labels = torch.full((b, layers), -1, dtype=torch.int64, device=device)
        if not self.generations:
            return Earlier(images, labels, self.reset)
        targets = Targets.absent((b, self.generations * layers, *size), device)
        return Earlier(images, labels, self.reset, targets, torch.full((b,), -1, dtype=torch.int64, device=device))

    def offered(self, composer: Composer, rows: Rows) -> Earlier:
        """The composite offered to each row: its own slot's, or with a ``pairing`` that of the slot it chose."""
        earlier = self.slots(
            len(rows), size=composer.size, device=rows.device, dtype=composer.dtype, layers=rows.layers.shape[1]
        )
        if self.pairing is not None:
            share, labels = rows.share, composer.objects.labels[rows.objects]
            earlier, labels, keys = whole((earlier, labels, rows.keys), share)
            order = share.own(self.pairing.order(earlier.labels[:, 0], labels, keys))
            earlier = mapped(lambda tensor: tensor[order], earlier)
        layout = torch.channels_last if composer.channels_last else torch.contiguous_format
        return replace(earlier, images=earlier.images.contiguous(memory_format=layout))

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
        *,
        targets: Targets | None = None,
        generations: Int[Tensor, " b"] | None = None,
        share: Share | None = None,
    ) -> None:
        """Store the finished (attacked) composites of a batch. Slots beyond a smaller batch keep theirs.

        Args:
            images: attacked.
            labels: classes of their own objects.
            changes: (b, 3, h, w); what the attack that starts warm has changed; with ``warm_start`` only.
            targets: of all (G + 1) K objects; unused without generations.
            generations: (b,); how many earlier generations they show, see :meth:`Earlier.after`; likewise.
            share: of a global batch that they are; None: the whole.
        """
        if self.warm_start:
            check_tensor("changes", changes, tuple(images.shape), images.dtype, images.device, "warm_start needs it.")
            rest = None if self._changes is None else self._changes[len(labels) :]
            ended = cast(Tensor, changes).detach()
            self._changes = ended if rest is None else torch.cat([ended, rest])
        if self.pairing is not None:
            self.pairing.publish(share)
        told = self._told(labels, targets, generations) if self.generations else (None, None)
        new, held = Earlier(images.detach(), labels, self.reset, *told), self._held
        if held is None or len(held.labels) <= len(labels):
            self._held = replace(new, images=new.images.clone(), labels=labels.clone())
        else:
            self._held = mapped(lambda one, other: torch.cat([one, other[len(labels) :]]), new, held)

    def _told(
        self, labels: Int[Tensor, "b k"], targets: Targets | None, generations: Int[Tensor, " b"] | None
    ) -> tuple[Targets, Int[Tensor, " b"]]:
        """Copies of what is said of objects that would be seen behind others: those of the earliest are left out.

        A composite that shows them shows G earlier generations, so it is not used again.
        """
        check_instance("targets", targets, Targets, "A chain with generations needs those of all objects.")
        places = (1 + self.generations) * labels.shape[1]
        check_tensor("targets.labels", cast(Targets, targets).labels, (len(labels), places), torch.int64, labels.device)
        check_tensor("generations", generations, labels.shape[:1], torch.int64, labels.device)
        return cast(Targets, targets).last(self.generations * labels.shape[1]), cast(Tensor, generations).clone()

    def clear(self) -> None:
        """Drop all composites and perturbations."""
        self._held = self._changes = None

    def state_dict(self) -> dict[str, Any]:
        """The stored composites and what they show, not copied; with them a stopped run resumes bit for bit."""
        held = {name: getattr(self._held, name, None) for name in ("images", "labels", "targets", "generations")}
        if held["targets"] is not None:
            held["targets"] = dict(vars(held["targets"]))
        pairing = None if self.pairing is None else self.pairing.state_dict()
        return {**held, "pairing": pairing, "changes": self._changes}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Load the state of :meth:`state_dict`, moved to ``device`` if given.

        Raises:
            InputError: for anything but images ``(b, 3, h, w)`` with labels ``(b, K)`` int64, or None for both; and for
                targets of another number of generations.
        """
        if not isinstance(state, dict) or set(state) != KEYS:
            got = f"{sorted(map(str, state))}" if isinstance(state, dict) else describe(state)
            fail("state", f"keys {', '.join(map(repr, sorted(KEYS)))}", got)
        images, labels, changes = state["images"], state["labels"], state["changes"]
        self._check_alike("pairing", self.pairing is not None, state["pairing"] is not None)
        held = None
        if images is None and labels is None and (state["targets"] is not None or state["generations"] is not None):
            fail("state['images']", "the composites whose targets are there", "None")
        if images is not None or labels is not None:
            check_tensor("state['images']", images, ("b", 3, "h", "w"), DTYPES)
            check_tensor("state['labels']", labels, (len(images), "K"), torch.int64, None if device else images.device)
            self._check_alike("warm start", self.warm_start, changes is not None)
            held = Earlier(images, labels, self.reset, *self._read(state, images, labels))
        if changes is not None:
            check_tensor("state['changes']", changes, tuple(images.shape), images.dtype)
        if self.pairing is not None:
            self.pairing.load_state_dict(state["pairing"], device)
        self._held, self._changes = mapped(lambda tensor: tensor.to(device), (held, changes))

    def _read(self, state: dict[str, Any], images: Tensor, labels: Tensor) -> tuple[Targets | None, Tensor | None]:
        """The targets of a state, and how many generations its composites show."""
        targets, generations = state["targets"], state["generations"]
        self._check_alike("generation that stays targets", self.generations > 0, targets is not None)
        if targets is None:
            return None, None
        check_instance("state['targets']", targets, dict)
        b, places = len(images), self.generations * labels.shape[1]
        check_targets("state['targets']", targets, (b, places, *images.shape[2:]), images.device)
        check_tensor("state['generations']", generations, (b,), torch.int64, images.device)
        return Targets(**targets), generations

    @staticmethod
    def _check_alike(what: str, mine: bool, saved: bool) -> None:
        if mine != saved:
            words = {True: f"one with a {what}", False: f"one with no {what}"}
            fail("state", f"the state of a chain like this, {words[mine]}", words[saved],
                 "Build it like the saved one.")  # fmt: skip

    def __repr__(self) -> str:
        generations = f", generations={self.generations}" if self.generations else ""
        pairing = "" if self.pairing is None else f", pairing={self.pairing!r}"
        slots = 0 if self._held is None else len(self._held.labels)
        return f"ContextChain(reset={self.reset:g}{generations}{pairing}, slots={slots})"


def gathered(state: dict[str, Any], rank: int, ranks: int) -> dict[str, Any]:
    """The states of the chains of all ranks as one, in the order of global slots, as a single process has it.

    All ranks call this together; it waits for the device.

    Args:
        state: of this rank's chain, with images if those of the others have some.
        rank: of this process.
        ranks: number of processes.
    """
    if ranks == 1 or state["images"] is None:
        return state
    counts = agreed(*(len(state["images"]) if other == rank else 0 for other in range(ranks)))
    share = Share(rank, ranks, sum(counts))
    return _over_slots(state, lambda tensor: whole(tensor, share))


def dealt(state: dict[str, Any], rank: int, ranks: int) -> dict[str, Any]:
    """The state of a rank's chain, from that of a single process, or of :func:`gathered`.

    Args:
        state: over all slots.
        rank: of this process.
        ranks: number of processes.
    """
    return _over_slots(state, lambda tensor: tensor[rank::ranks])


def _over_slots(state: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """A state with all tensors changed that have an entry for every slot."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: changed(part) for name, part in value.items()}
        return change(value) if isinstance(value, Tensor) else value

    return {name: value if name == "pairing" else changed(value) for name, value in state.items()}
