"""``PairSampler``: which object meets which context; balanced, sharded, resumable. Indices only, no images needed.

:mod:`.epochs` decides the content and order of an epoch; here it is cut into batches, of which every rank takes its
share. :mod:`.passes` handles how loaders iterate over them.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from kornia_cag.core.checks import check_int, describe, fail
from kornia_cag.core.randomness import host_keys
from kornia_cag.core.ranks import Share, here
from kornia_cag.sampling.epochs import Epochs, default_samples
from kornia_cag.sampling.passes import PairRows, Pass, Place
from kornia_cag.sampling.rows import COLUMNS, Rows
from kornia_cag.sampling.several import SeveralEpochs


def _class_labels(labels: Any, distractors: int) -> Int64[np.ndarray, " n"]:
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        fail("labels", "one integer class per object", describe(labels), "Pass the labels of an ObjectBank.")
    found = np.unique(array)
    if found[0] == -1 and distractors and len(found) > 1:
        found = found[1:]
    if found[0] < 0 or found[-1] != len(found) - 1:
        missing = np.setdiff1d(np.arange(len(found) + 1), found)[:3].tolist()
        got = f"class {found[0]}" if found[0] < 0 else f"none of class {', '.join(map(str, missing))}"
        fail("labels", f"classes 0 to {max(found[-1], 0)}, each with an object", got,
             "Show what has no class by distractors_per_scene." if found[0] == -1 and not distractors else
             "Number the classes from 0 without gaps.")  # fmt: skip
    if distractors > (count := int((array < 0).sum())):
        fail("distractors_per_scene", f"at most {count}, the objects without a class", str(distractors),
             "Add some to the bank: bank + other.unlabelled().")  # fmt: skip
    return array.astype(np.int64)


def _rank_and_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        fail("rank", "rank and world_size together", f"rank={rank}, world_size={world_size}", "Pass both or neither.")
    if rank is None or world_size is None:
        rank, world_size = here()
    world_size = check_int("world_size", world_size)
    return check_int("rank", rank, 0, world_size - 1), world_size


def _step(objects: int, classes: int) -> int:
    """Equal numbers of all classes make groups of so many objects where this divides them."""
    return objects // math.gcd(objects, classes)


class PairSampler(Sampler[Any]):
    """Batches of (object, context) pairs: the edges of one random biregular graph per epoch, in class-balanced order.

    Use it as ``DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=...)``. A batch is :class:`Rows` on the CPU; a
    row determines its sample: everything random later is a function of its seed, epoch and index.

    Within an epoch no pair repeats. Every class has exactly ``samples_per_class`` samples, shared by its objects with
    degrees that differ by at most one. The contexts' degrees also differ by at most one. All are equal if the counts
    divide evenly. An object meets every context with the same probability, and the objects of a class are
    interchangeable. In any run of consecutive sample indices the class counts differ by at most one.

    Balance also holds in the long run: over epochs 0 to e together, the totals of any two contexts differ by at most
    one, and so do those of any two objects of a class. With E samples per epoch, epoch e takes positions ``[e * E,
    (e + 1) * E)`` of a cycle through all contexts in random order. The order is redrawn whenever an epoch and the cycle
    end together, so that no object stays tied to particular contexts. The objects of a class take turns likewise.

    Sample index ``i`` is the same pair for any batch size and rank. Batch ``t`` covers ``batch_size`` indices over all
    ranks, shuffled over its slots, so that the class in a slot changes. Of W ranks rank r takes slots r, r + W, r + 2 W
    and so on, see :class:`~kornia_cag.core.ranks.Share`: together they have the batches of a single process, of which
    none is dropped or seen twice. In the last batch of an epoch a rank may have one row less than others, or none.

    Every pass uses fresh pairs: a new iterator starts the next epoch, whether the previous pass was finished or broken
    off. A pass is finished once its last batch is drawn, so drawing ``len(sampler)`` batches is enough (``islice``,
    Lightning's ``Trainer``). The remaining batches of an unfinished pass are skipped. An iterator that never drew a
    batch does not count. (Worker processes draw ahead, from the moment a loader's iterator is created.)

    :meth:`set_epoch` jumps to any epoch; a ``state_dict``, taken at any batch, resumes there. The state is exact for
    this sampler and, even with workers, for torchdata's ``StatefulDataLoader``, which saves it; next to a plain
    DataLoader with workers it includes the batches drawn ahead. After the last batch it resumes with the next epoch; a
    ``StatefulDataLoader`` with workers that had not yet reached the end first reports it, as a pass with no batches.
    Ranks agree as long as all of them draw, break off and load in the same way.

    Args:
        labels: class of each object (its position is its id), every class from 0 to the highest; -1: none.
        num_contexts: number of contexts.
        batch_size: rows per batch, over all ranks.
        seed: seed of all pairs, in ``[0, 2^62)``.
        objects_per_scene: K objects with a class in each sample, all on its context: there are as many samples as edges
            of the graph divided by K. No class comes twice in a sample, any two classes
            meet equally often in the long run, and class counts in a run of samples differ by at most two. An object
            meets a context twice in an epoch only where that is so dense that swaps find no other way.
        distractors_per_scene: objects without a class in each sample, uniform. A row's objects are in random order.
        repeats: whether a class, and with it an object, may come twice in a sample: the classes of an epoch are then
            shuffled as a whole.
        samples_per_class: objects of each class per epoch. By default the smallest number that makes all degrees equal,
            if the epoch then has at most ``max(100_000, 2 * num_contexts)`` samples; else the smallest that uses every
            context and makes the degrees equal within each class, under the same limit; else one that uses every
            context and, within that limit, every object. With several objects per scene it is rounded to whole samples.
        rank: rank of this process; by default from ``torch.distributed`` if initialised, else 0.
        world_size: number of processes, likewise.
        balanced: as described above. If False, every sample is an object and a context drawn uniformly and
            independently, as in ordinary data loaders: counts are left to chance, and pairs may repeat. Epochs have the
            same length, and sharding, access by index and resuming stay exact.
        drop_last: drop the last batch if it is not full. Statements about whole epochs then hold before dropping.

    Raises:
        InputError: for labels with gaps, impossible sizes, or more ranks than rows per batch.
    """

    def __init__(
        self,
        labels: Tensor | NDArray[Any] | Sequence[int],
        num_contexts: int,
        *,
        batch_size: int,
        seed: int = 0,
        objects_per_scene: int = 1,
        distractors_per_scene: int = 0,
        repeats: bool = False,
        samples_per_class: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        balanced: bool = True,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        self.distractors_per_scene = check_int("distractors_per_scene", distractors_per_scene, 0)
        classes = _class_labels(labels, self.distractors_per_scene)
        sizes: NDArray[np.int64] = np.bincount(classes[classes >= 0])
        self.objects_per_scene, self.repeats = check_int("objects_per_scene", objects_per_scene), repeats
        self._check_repeats(len(sizes), balanced)
        self._labels_crc = zlib.crc32(classes.tobytes())
        self.num_contexts = check_int("num_contexts", num_contexts, 1, 2**31 - 1)
        self.batch_size = check_int("batch_size", batch_size)
        self.seed = check_int("seed", seed, 0, 2**62 - 1)
        self.rank, self.world_size = _rank_and_size(rank, world_size)
        self.balanced, self.drop_last = balanced, drop_last
        most = int(sizes.min()) * self.num_contexts
        if samples_per_class is None:
            samples_per_class = self._default(sizes, most)
        fix = f"The smallest class has {most} different pairs: pass samples_per_class={most} or less."
        self.samples_per_class = check_int("samples_per_class", samples_per_class, 1, most, fix)
        self._epochs = self._made(classes, sizes)
        self.samples = self._epochs.samples
        self._check_shares(most)
        self._rows_read, self._place = PairRows(samples=self.samples), Place(length=len(self))

    def _made(self, classes: Int64[np.ndarray, " n"], sizes: Int64[np.ndarray, " c"]) -> Epochs:
        order, without = np.argsort(classes, kind="stable"), int((classes < 0).sum())
        common: dict[str, Any] = {
            "objects": order[without:], "sizes": sizes, "num_contexts": self.num_contexts,
            "samples_per_class": self.samples_per_class, "seed": self.seed, "balanced": self.balanced,
        }  # fmt: skip
        if self.objects_per_scene == 1 and not self.distractors_per_scene:
            return Epochs(**common)
        return SeveralEpochs(**common, per_scene=self.objects_per_scene, repeats=self.repeats,
                             distractors=order[:without], beside=self.distractors_per_scene)  # fmt: skip

    def _check_repeats(self, classes: int, balanced: bool) -> None:
        if self.repeats or self.objects_per_scene == 1:
            return
        if not balanced:
            fail(
                "repeats", "True with balanced=False, which draws objects independently", "False", "Pass repeats=True."
            )
        if self.objects_per_scene > classes:
            fail("objects_per_scene", f"at most {classes}, the number of classes", str(self.objects_per_scene),
                 "Pass repeats=True to show a class twice.")  # fmt: skip

    def _default(self, sizes: Int64[np.ndarray, " c"], most: int) -> int:
        """The default of :func:`default_samples`, as a multiple that makes whole samples."""
        k = self.objects_per_scene
        found, step = (
            default_samples(sizes, num_contexts=self.num_contexts, most=most, per_scene=k),
            _step(k, len(sizes)),
        )
        up = -(-found // step) * step
        return up if up <= most else max(most // step * step, 1)

    def _check_shares(self, most: int) -> None:
        classes, k = len(self._epochs.sizes), self.objects_per_scene
        whole = _step(k, classes)
        if self.samples_per_class % whole:
            fail("samples_per_class", f"a multiple of {whole}, for samples of {k} objects of {classes} classes",
                 str(self.samples_per_class), f"Pass samples_per_class={-(-self.samples_per_class // whole) * whole}."
                 if whole <= most else f"A class has at most {most} pairs: use more contexts.")  # fmt: skip
        if self.batch_size < self.world_size:
            fail("batch_size", f"at least {self.world_size}, a row for every rank", str(self.batch_size),
                 "It counts the rows of all ranks.")  # fmt: skip
        if not len(self):
            fail("drop_last", "at least one whole batch per epoch",
                 f"{self.samples} samples for batches of {self.batch_size}",
                 "Use a smaller batch_size, a larger samples_per_class, or drop_last=False.")  # fmt: skip

    @property
    def dataset(self) -> PairRows:
        """The data set for a DataLoader; its length is the number of samples per epoch over all ranks."""
        return self._rows_read

    @property
    def epoch(self) -> int:
        """The epoch of the next batch: once the last batch is drawn, that of the next pass."""
        return self._place.next_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to ``epoch``; a position just loaded within this epoch is kept, any other epoch starts at the beginning.

        This includes a position at the end of the epoch: nothing is left then, and the pass is empty.
        """
        self._place.set_epoch(check_int("epoch", epoch, 0, 2**62 - 1))

    def __len__(self) -> int:
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Rows]:
        return Pass(self._place, self._rows_read, self._batches)

    def _batches(self, epoch: int, first: int) -> Iterator[Rows]:
        scenes = self._epochs.scenes(epoch)
        for batch in range(first, len(self)):
            yield self._rows(*scenes, epoch, batch)

    def _rows(
        self, objects: Int64[np.ndarray, "s k"], contexts: Int64[np.ndarray, " s"], epoch: int, batch: int
    ) -> Rows:
        start = batch * self.batch_size
        total = min(self.batch_size, self.samples - start)
        index = self._epochs.slots(epoch, start=start, count=total)[self.rank :: self.world_size]
        rows = np.empty((len(index), len(COLUMNS) - 1 + objects.shape[1]), np.int64)
        rows[:, 0], rows[:, 1], rows[:, 2] = objects[index, 0], contexts[index], index
        rows[:, 3], rows[:, 4], rows[:, 5:] = epoch, self.seed, objects[index, 1:]
        keys = host_keys(np.array([self.seed]), np.array([epoch]), index)
        found = Rows(torch.from_numpy(rows)).with_keys(torch.from_numpy(keys))
        return found if self.world_size == 1 else found.with_share(Share(self.rank, self.world_size, total))

    def pairs(self, epoch: int | None = None) -> Int[Tensor, "e 2"]:
        """Object and context of every sample of an epoch (default: the current one), all ranks, by sample index.

        Samples of several objects have several pairs, one after the other.
        """
        epoch = self.epoch if epoch is None else check_int("epoch", epoch, 0, 2**62 - 1)
        objects, contexts = self._epochs.scenes(epoch)
        return torch.from_numpy(np.stack([objects.ravel(), contexts.repeat(objects.shape[1])], axis=1))

    def _configuration(self) -> dict[str, int]:
        return {"labels_crc": self._labels_crc, "num_contexts": self.num_contexts, "seed": self.seed,
                "samples_per_class": self.samples_per_class, "batch_size": self.batch_size,
                "balanced": int(self.balanced), "repeats": int(self.repeats),
                "objects_per_scene": self.objects_per_scene, "distractors_per_scene": self.distractors_per_scene,
                "drop_last": int(self.drop_last)}  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Epoch, next batch and configuration: plain integers, the same on every rank, and on any number of them."""
        return {"epoch": self._place.epoch, "batch": self._place.batch, "configuration": self._configuration()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where :meth:`state_dict` was taken.

        Raises:
            InputError: for the state of a sampler that was built differently.
        """
        if not isinstance(state, dict) or not {"epoch", "batch", "configuration"} <= set(state):
            fail("state", "the state_dict of a PairSampler", describe(state))
        for name, mine in self._configuration().items():
            if (saved := state["configuration"].get(name)) != mine:
                fail("state", f"the state of a sampler with {name}={mine}", f"{name}={saved}",
                     "Build the sampler like the saved one.")  # fmt: skip
        batch = check_int("state['batch']", state["batch"], 0, len(self))
        epoch = check_int("state['epoch']", state["epoch"], 0, 2**62 - 1)
        self._place.load(epoch=epoch, batch=batch)

    def __repr__(self) -> str:
        sizes = self._epochs.sizes
        low = (self.samples_per_class // sizes).min()
        high = -(-self.samples_per_class // sizes.min())
        fewest, most = self.samples // self.num_contexts, -(-self.samples // self.num_contexts)
        degrees = (f"contexts per object {low}{f' to {high}' if high > low else ''}, "
                   f"objects per context {fewest}{f' to {most}' if most > fewest else ''}")  # fmt: skip
        per_class = f"{self.samples_per_class} per class, " if self.balanced else ""
        return (f"PairSampler({sizes.sum()} objects of {len(sizes)} classes, {self.num_contexts} contexts; "
                f"{self.samples} samples per epoch, {per_class}in {len(self)} batches of {self.batch_size}; "
                f"{degrees if self.balanced else 'independent uniform pairs'}; "
                f"seed={self.seed}, epoch={self.epoch}, rank {self.rank} of {self.world_size})")  # fmt: skip
