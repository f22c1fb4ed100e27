"""The samples of an epoch that show several objects each: which of them meet, on which context, beside what."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from kornia_cag.sampling.epochs import Epochs, generator

_CLASSES, _GROUPS, _PLACES, _DISTRACTORS, _ORDER = range(5, 10)  # streams of randomness, after those of Epochs
_ROUNDS = 40  # of swaps
Scenes = tuple[Int64[np.ndarray, "s k"], Int64[np.ndarray, " s"]]  # objects and context of every sample


@dataclass(frozen=True, eq=False, kw_only=True)
class SeveralEpochs(Epochs):
    """The epochs of a sampler whose samples show several objects.

    Classes come in random orders of all of them, one after the other, and each sample takes the next ``per_scene``. So
    any two classes meet equally often in the long run, and counts in any run of samples differ by at most two.

    Attributes:
        per_scene: number of objects with a class in each sample.
        repeats: whether a class, or an object, may come twice in a sample: classes are then shuffled over the epoch.
        distractors: ids of the objects without a class.
        beside: how many of those each sample shows.
    """

    per_scene: int
    repeats: bool
    distractors: Int64[np.ndarray, " d"]
    beside: int

    @property
    def samples(self) -> int:
        """Number of samples per epoch."""
        return super().samples // self.per_scene

    def scenes(self, epoch: int) -> Scenes:
        """Objects of every sample of an epoch, by index, in random order, and its context."""
        if self.balanced and self.per_scene == 1:
            objects, contexts = super().scenes(epoch)
        elif self.balanced:
            objects = self._assigned(epoch, self._classes(epoch))
            contexts = self._placed(epoch, objects)
        else:
            rng = generator(_GROUPS, self.seed, epoch)
            objects = self.objects[rng.integers(len(self.objects), size=(self.samples, self.per_scene))]
            contexts = rng.integers(self.num_contexts, size=self.samples)
        beside = self.distractors[
            subsets(self.samples, len(self.distractors), self.beside, generator(_DISTRACTORS, self.seed, epoch))
        ]
        shown = np.concatenate([objects, beside], axis=1)
        return generator(_ORDER, self.seed, epoch).permuted(shown, axis=1), contexts

    def _classes(self, epoch: int) -> Int64[np.ndarray, "s k"]:
        """The classes of every sample."""
        count, k, rng = len(self.sizes), self.per_scene, generator(_CLASSES, self.seed, epoch)
        if self.repeats:
            return rng.permutation(np.repeat(np.arange(count), self.samples_per_class)).reshape(-1, k)
        # So many orders of all classes end together with a sample; only inside them does a sample span two orders.
        together = k // math.gcd(k, count)
        orders = np.empty((self.samples_per_class // together, together, count), np.int64)
        for place in range(together):
            began = place * count % k  # classes that the sample at the seam has already
            before = np.zeros((len(orders), count), bool)
            if began:
                np.put_along_axis(before, orders[:, place - 1, count - began :], True, axis=1)
            orders[:, place] = _order(before, (k - began) % k, rng)
        return orders.reshape(-1, k)

    def _assigned(self, epoch: int, classes: Int64[np.ndarray, "s k"]) -> Int64[np.ndarray, "s k"]:
        """An object of each class, as often as others: in random order."""
        rng, degrees = generator(_GROUPS, self.seed, epoch), self._degrees(epoch)
        members = np.repeat(np.arange(len(degrees)), degrees).reshape(len(self.sizes), -1)
        objects = np.empty(classes.size, np.int64)
        objects[np.argsort(classes, axis=None, kind="stable")] = rng.permuted(members, axis=1).ravel()
        return self.objects[objects].reshape(classes.shape)

    def _placed(self, epoch: int, objects: Int64[np.ndarray, "s k"]) -> Int64[np.ndarray, " s"]:
        """A context for each sample: all equally often, and none twice for an object as long as swaps can avoid it."""
        rng = generator(_PLACES, self.seed, epoch)
        contexts = rng.permutation(np.resize(self._cycle(epoch), len(objects)))
        for _ in range(_ROUNDS):
            double = _doubles(objects, contexts)
            if not double.size:
                break
            mate = rng.choice(len(contexts), double.size, replace=False)
            swapped = contexts.copy()
            swapped[double], swapped[mate] = contexts[mate], contexts[double]
            again = np.zeros(len(contexts), bool)
            again[_doubles(objects, swapped)] = True
            touched = np.zeros(len(contexts), bool)
            touched[double] = True
            good = ~(again[double] | again[mate] | touched[mate])
            if not good.any() and double.size > 100:  # too dense for swaps to help
                break
            one, other = double[good], mate[good]
            contexts[one], contexts[other] = contexts[other], contexts[one]
        return contexts


def _doubles(objects: Int64[np.ndarray, "s k"], contexts: Int64[np.ndarray, " s"]) -> Int64[np.ndarray, " n"]:
    """The samples with an object that another sample before it shows on the same context."""
    pairs = (objects << 32 | contexts[:, None]).ravel()
    order = np.argsort(pairs, kind="stable")
    ascending = pairs[order]
    sample = order // objects.shape[1]
    return np.unique(sample[1:][(ascending[1:] == ascending[:-1]) & (sample[1:] != sample[:-1])])


def _order(before: Bool[np.ndarray, "n c"], free: int, rng: np.random.Generator) -> Int64[np.ndarray, "n c"]:
    """Random orders of all classes, of which the first ``free`` are not among those before."""
    lots = np.where(before, 2.0, rng.random(before.shape))
    first = np.argsort(lots, axis=1, kind="stable")[:, :free]
    lots = rng.random(before.shape)
    np.put_along_axis(lots, first, 2.0, axis=1)
    rest = np.argsort(lots, axis=1, kind="stable")[:, : before.shape[1] - free]
    return np.concatenate([first, rest], axis=1)


def subsets(rows: int, n: int, k: int, rng: np.random.Generator) -> Int64[np.ndarray, "rows k"]:
    """``k`` different numbers below ``n`` for each row, every subset equally likely (Floyd, 1987)."""
    found = np.empty((rows, k), np.int64)
    for place, last in enumerate(range(n - k, n)):
        drawn = rng.integers(last + 1, size=rows)
        taken = (found[:, :place] == drawn[:, None]).any(axis=1)
        found[:, place] = np.where(taken, last, drawn)
    return found
