"""The samples of one epoch: which object meets which context, and how the classes take turns.

:meth:`Epochs.edges` balances the classes of a batch: classes take turns, so any run of consecutive samples is balanced,
and a batch is such a run.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from kornia_cag.sampling.biregular import biregular

LOW = 0xFFFFFFFF  # the half of an edge, ``object << 32 | context``, that names its context
_EPOCH_LENGTH = 100_000  # samples: up to this length, an epoch is extended to make all degrees equal
_EDGES, _OBJECTS, _CONTEXTS, _SLOTS, _UNIFORM = range(5)  # streams of randomness


def generator(stream: int, *counters: int) -> np.random.Generator:
    """The generator of one stream of randomness, for one epoch, batch or the like."""
    # Two words per counter, so that different counters never give the same seed.
    return np.random.default_rng([stream, *(word for c in counters for word in (c & LOW, c >> 32))])


def default_samples(sizes: Int64[np.ndarray, " k"], *, num_contexts: int, most: int, per_scene: int = 1) -> int:
    """Default number of samples per class, as described in :class:`PairSampler`.

    Args:
        sizes: number of objects per class.
        num_contexts: number of contexts.
        most: number of different pairs in the smallest class.
        per_scene: number of objects in each sample.
    """
    classes, limit = len(sizes), per_scene * max(_EPOCH_LENGTH, 2 * num_contexts)
    num_contexts *= per_scene  # the objects that all contexts have room for
    objects_exact = math.lcm(*set(sizes.tolist()))
    all_exact = math.lcm(objects_exact, num_contexts // math.gcd(num_contexts, classes))
    every_context = -(-num_contexts // classes)
    for samples in (all_exact, -(-every_context // objects_exact) * objects_exact):
        if classes * samples <= limit and samples <= most:
            return samples
    return min(max(every_context, min(int(sizes.max()), limit // classes)), most)


@dataclass(frozen=True, eq=False, kw_only=True)
class Epochs:
    """The epochs of a sampler. Each depends only on the seed and its number.

    Attributes:
        objects: (n,); ids of all objects, class by class.
        sizes: (k,); number of objects per class.
        num_contexts: number of contexts.
        samples_per_class: per epoch.
        seed: in ``[0, 2^62)``.
        balanced: if False, objects and contexts are drawn uniformly and independently.
    """

    objects: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " k"]
    num_contexts: int
    samples_per_class: int
    seed: int
    balanced: bool

    @property
    def samples(self) -> int:
        """Number of samples per epoch."""
        return self.samples_per_class * len(self.sizes)

    def scenes(self, epoch: int) -> tuple[Int64[np.ndarray, "s k"], Int64[np.ndarray, " s"]]:
        """Objects of every sample of an epoch, by index, and its context."""
        edges = self.edges(epoch)
        return (edges >> 32)[:, None], edges & LOW

    def edges(self, epoch: int) -> Int64[np.ndarray, " e"]:
        """All samples of an epoch, by index, as ``object << 32 | context``.

        Classes take turns in a random cyclic order: sample ``i`` has class ``order[i % k]``. So the class counts in any
        run of consecutive samples differ by at most one.
        """
        if not self.balanced:
            return self._independent(epoch)
        rng = generator(_EDGES, self.seed, epoch)
        edges = biregular(self._degrees(epoch), self._cycle(epoch), rng)
        by_class = rng.permuted(edges.reshape(len(self.sizes), -1), axis=1)
        edges = by_class[rng.permutation(len(by_class))].T.ravel()
        named: Int64[np.ndarray, " e"] = self.objects[edges >> 32] << 32 | edges & LOW
        return named

    def slots(self, epoch: int, *, start: int, count: int) -> Int64[np.ndarray, " b"]:
        """Sample indices ``start`` to ``start + count - 1``, shuffled over the slots of the batch."""
        return start + generator(_SLOTS, self.seed, epoch, start).permutation(count)

    def _independent(self, epoch: int) -> Int64[np.ndarray, " e"]:
        rng = generator(_UNIFORM, self.seed, epoch)
        objects = rng.integers(len(self.objects), size=self.samples)
        edges: Int64[np.ndarray, " e"] = objects << 32 | rng.integers(self.num_contexts, size=self.samples)
        return edges

    def _cycle(self, epoch: int) -> Int64[np.ndarray, " c"]:
        """The contexts, starting with those that get one extra edge in this epoch."""
        n = self.num_contexts
        block = epoch // (n // math.gcd(n, self.samples))
        order = generator(_CONTEXTS, self.seed, block).permutation(n)
        return np.roll(order, -(epoch * self.samples % n))

    def _degrees(self, epoch: int) -> Int64[np.ndarray, " n"]:
        """Contexts per object, class by class; classes of equal size are handled together."""
        samples, starts = self.samples_per_class, np.cumsum(self.sizes) - self.sizes
        degrees = np.repeat(samples // self.sizes, self.sizes)
        for size in np.unique(self.sizes).tolist():
            block = epoch // (size // math.gcd(size, samples))
            members = starts[self.sizes == size][:, None] + np.arange(size)
            turns = generator(_OBJECTS, self.seed, block, size).permuted(members, axis=1)
            degrees[turns[:, (epoch * samples % size + np.arange(samples % size)) % size]] += 1
        return degrees
