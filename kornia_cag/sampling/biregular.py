"""Random bipartite graphs with given degrees and no double edges.

A sparse graph is a random stub matching (the configuration model) whose few double edges are swapped away. A dense one,
or one where the swaps do not finish, is a cyclic graph randomised by curveball trades, which is valid at every step.
Memory grows with the number of edges, never with objects x contexts.

A seed gives the same graph on every machine. NumPy's default argsort would not: it orders ties differently on different
processors.
"""

import numpy as np
from jaxtyping import Int64


def _sorting(keys: Int64[np.ndarray, " e"], bits: int) -> Int64[np.ndarray, " e"]:
    """Stable argsort of ``keys`` of the given number of bits: one radix pass per 16 bits."""
    return np.lexsort([(keys >> shift).astype(np.uint16) for shift in range(0, max(bits, 1), 16)])


def match(
    objects: Int64[np.ndarray, " e"], stubs: Int64[np.ndarray, " e"], rng: np.random.Generator, *, num_contexts: int
) -> Int64[np.ndarray, " e"] | None:
    """Match every object stub with a random context stub, then swap double edges with random others.

    Args:
        objects: object of every edge, ascending.
        stubs: context stubs, one per edge.
        rng: the only source of randomness.
        num_contexts: more than the highest stub.

    Returns:
        One context per entry of ``objects``, or None if the swaps left double edges.
    """
    contexts = rng.permutation(stubs)
    for _ in range(40):
        order = _sorting(contexts, num_contexts.bit_length())  # objects ascend, so edges end up sorted by both
        keys = (contexts << 32 | objects)[order]
        double = order[1:][keys[1:] == keys[:-1]]
        if not double.size:
            return contexts
        mate = rng.choice(len(keys), double.size, replace=False)
        made = np.stack([contexts[mate], contexts[double]]) << 32 | np.stack([objects[double], objects[mate]])
        absent = keys[np.minimum(np.searchsorted(keys, made), len(keys) - 1)] != made
        _, inverse, counts = np.unique(made, return_inverse=True, return_counts=True)
        alone = counts[inverse].reshape(made.shape) == 1
        good = (absent & alone).all(axis=0) & ~np.isin(mate, double)
        one, other = double[good], mate[good]
        contexts[one], contexts[other] = contexts[other], contexts[one]
    return None


def trade(
    degrees: Int64[np.ndarray, " n"], cycle: Int64[np.ndarray, " c"], rng: np.random.Generator
) -> Int64[np.ndarray, " e"]:
    """Deal the contexts to the objects in turn, then let two random objects at a time trade what only one of them has.

    Dealing gives an object consecutive contexts of ``cycle``, all different, since its degree is at most
    ``len(cycle)``.
    Source: Carstens, Berger and Strona, "Curveball: a new generation of sampling algorithms for graphs with fixed
    degree sequence", 2016; all objects trading at once: Carstens et al., 2018.
    """
    n, bits = len(degrees), len(cycle).bit_length()
    spare, width = 62 - n.bit_length(), n.bit_length() + bits
    rest = int(degrees.sum()) % len(cycle)
    cycle = np.concatenate([rng.permutation(cycle[:rest]), rng.permutation(cycle[rest:])])
    dealt = rng.permutation(n)
    if degrees.min() == len(cycle):
        return (np.arange(n)[:, None] << 32 | np.arange(len(cycle))).ravel()
    objects, contexts = np.repeat(dealt, degrees[dealt]), np.resize(cycle, degrees.sum())
    for _ in range(8 + 2 * n.bit_length()):
        guest = rng.permutation(n)  # the guests of seats 2p and 2p + 1 trade
        seat = np.argsort(guest)[objects]
        # The lowest bit carries the seat's side through both sorts.
        keys = (((seat >> 1) << bits | contexts) << 1) | (seat & 1)
        keys = keys[_sorting(keys, width + 1)]
        shared = keys[1:] >> 1 == keys[:-1] >> 1
        single = np.ones(len(keys), bool)
        single[1:] &= ~shared
        single[:-1] &= ~shared
        own = keys[single]
        lots = rng.integers(1 << spare, size=len(own)) | (own >> (bits + 1)) << spare
        lots = lots & ~np.int64(1) | own & 1
        lots = lots[_sorting(lots, 62)]
        keys[single] = own & ~np.int64(1) | lots & 1
        objects = guest[(keys >> (bits + 1)) << 1 | keys & 1]
        contexts = (keys >> 1) & ((1 << bits) - 1)
    edges: Int64[np.ndarray, " e"] = (objects << 32 | contexts)[_sorting(objects << bits | contexts, width)]
    return edges


def biregular(
    degrees: Int64[np.ndarray, " n"], cycle: Int64[np.ndarray, " c"], rng: np.random.Generator
) -> Int64[np.ndarray, " e"]:
    """A random bipartite graph with no double edges.

    Args:
        degrees: contexts per object, each at most ``len(cycle)``.
        cycle: all contexts in some order; the first get one extra edge if the counts do not divide evenly.
        rng: the only source of randomness.

    Returns:
        Edges as ``object << 32 | context``, sorted by object.
    """
    if degrees.max() * 8 <= len(cycle):
        objects = np.repeat(np.arange(len(degrees)), degrees)
        contexts = match(objects, np.resize(cycle, len(objects)), rng, num_contexts=len(cycle))
        if contexts is not None:
            edges: Int64[np.ndarray, " e"] = objects << 32 | contexts
            return edges
    return trade(degrees, cycle, rng)
