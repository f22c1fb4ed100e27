"""The arguments of a collate: what fits together, and where it may run."""

from types import NoneType
from typing import Any, Literal, TypedDict

import torch
from torch import nn
from torch.utils.data import get_worker_info

from kornia_cag.adversary.stage import Adversary
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.stream import ContextStream
from kornia_cag.core.checks import check_choice, check_instance, describe, fail
from kornia_cag.core.formats import DTYPES
from kornia_cag.loading.chain import ContextChain
from kornia_cag.loading.views import ALL_BLENDS, Views, blend_of
from kornia_cag.scenes.capture import Captures, CudaRecorder
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp

STALE = ("A worker would attack a stale model: pass num_workers=0, or let workers only compose "
         "(collate_fn=collate.compose) and a Prefetcher harden.")  # fmt: skip
COUNTED = ("Each worker would count samples separately. To read photos in workers, pass collate_fn=list to the loader, "
           "and call the collate on each list in the main process.")  # fmt: skip


class Options(TypedDict, total=False):
    """The arguments of a :class:`CAGCollate` besides banks, size and ``returns``."""

    ranges: SceneRange | None
    chain: ContextChain | None
    model: nn.Module | None
    adversaries: tuple[Adversary, ...]
    strength: float | Ramp
    seed: int
    dtype: torch.dtype
    channels_last: bool
    compile: bool
    graph: bool | None
    views: Literal["all blends"] | None


def check_parts(objects: Any, contexts: Any, ranges: Any, chain: Any, model: Any) -> None:
    """Require arguments of the right type.

    Raises:
        InputError: naming the argument, and how to build it.
    """
    check_instance("objects", objects, ObjectBank, "Build it with ObjectBank.from_folder.")
    kinds = ContextBank, ContextStream, NoneType
    check_instance("contexts", contexts, kinds, "Build it with ContextBank.procedural.")
    check_instance("ranges", ranges, (SceneRange, NoneType), "Pass ranges=SceneRange(pose=PoseRange(...)).")
    check_instance("chain", chain, (ContextChain, NoneType), "Pass chain=ContextChain(reset=0.171).")
    check_instance("model", model, (nn.Module, NoneType), "Wrap any other function in a Module.")


def check_together(
    classes: int, chain: ContextChain | None, adversaries: tuple[Adversary, ...], dtype: torch.dtype
) -> None:
    """Require arguments that work together.

    Raises:
        InputError: for a chain whose pairing has other classes, a warm start without an attack that uses it, and uint8
            images if something needs floats.
    """
    check_choice("dtype", dtype, DTYPES)
    if adversaries and dtype == torch.uint8:
        fail("dtype", "a float dtype with adversaries", "torch.uint8")
    if chain is None:
        return
    if chain.warm_start and not any(stage.starts_warm for stage in adversaries):
        names = ", ".join(type(stage).__name__ for stage in adversaries) or "none"
        fail("adversaries", "a PGD, since the chain has warm_start", names, "Leave warm_start out.")
    if chain.pairing is not None and chain.pairing.classes != classes:
        fail("chain", f"a HardPairing of {classes} classes, those of the objects", f"one of {chain.pairing.classes}",
             "Pass pairing=HardPairing(classes=len(objects.classes)).")  # fmt: skip


def check_returns(returns: Any, objects: ObjectBank, ranges: SceneRange, chain: ContextChain | None) -> None:
    """Require a batch where a sample's label may be -1, and where it may have more than one.

    Raises:
        InputError: for a pair with a layout, with objects without a class, or with a chain that keeps targets.
    """
    check_choice("returns", returns, ("pair", "batch"))
    if returns == "batch":
        return
    if chain is not None and chain.generations:
        fail("returns", f"'batch' with a chain of generations={chain.generations}", "'pair'",
             "Read classes and boxes from batch.targets.")  # fmt: skip
    if ranges.layout is not None or bool((objects.labels < 0).any()):
        what = "objects without a class" if ranges.layout is None else "a layout, which may leave an object out"
        fail("returns", f"'batch' with {what}", "'pair'", "Read classes and boxes from batch.targets.")


def check_views(views: Any, ranges: SceneRange, chain: Any, adversaries: tuple[Adversary, ...]) -> None:
    """Require views that everything else can follow: a chain and scenes that are chosen have one picture for a row.

    Raises:
        InputError: saying what to leave out.
    """
    check_choice("views", views, (None, ALL_BLENDS))
    if views is None:
        return
    blend_of(ranges)
    chooser = next((stage for stage in adversaries if stage.chooses_scenes), None)
    for name, other in (("chain", chain), ("adversaries", chooser)):
        if other is not None:
            fail("views", f"no {type(other).__name__} with it", repr(views), f"Leave out views or {name}.")


def renderer(
    device: torch.device, ranges: SceneRange, *, compile: bool, graph: bool | None, views: str | None = None
) -> Renderer | Views:
    """The renderer of a collate.

    Args:
        device: device of the banks.
        ranges: what varies.
        compile: whether it compiles composition.
        graph: whether it captures composition as a CUDA graph; None: on a GPU, where that is possible.
        views: which views of a scene it makes; None: one.

    Raises:
        InputError: for ``graph=True`` without a GPU, or with JPEG.
    """
    if graph and device.type != "cuda":
        fail("graph", "banks on a CUDA device", f"banks on {device}",
             "Leave graph=True out: on a GPU it is the default.")  # fmt: skip
    jpeg = ranges.camera.jpeg
    if graph and jpeg is not None:
        fail("graph", "ranges without JPEG, as kornia's codec copies numbers of the CPU", f"jpeg={jpeg}",
             "Leave graph=True out, or photograph after the graph: finish=(Recapture(...),).")  # fmt: skip
    capture = device.type == "cuda" and jpeg is None if graph is None else graph
    count = 1 if views is None else len(blend_of(ranges).blends)
    each = [Renderer(Captures(CudaRecorder(device), optional=graph is None) if capture else None) for _ in range(count)]
    made = each[0] if views is None else Views(tuple(each))
    if compile:
        made.compile()
    return made


def check_place(
    device: torch.device, model: nn.Module | None, *, chain: bool, compiled: bool, stream: bool = False
) -> None:
    """Require a model on the banks' device, and nothing that cannot run in a worker process if this is one.

    Args:
        device: device of the banks.
        model: model that the adversaries use; None: no adversary needs one.
        chain: whether there is a chain.
        compiled: whether batches are composed by a compiled graph.
        stream: whether contexts come from a :class:`ContextStream`.

    Raises:
        InputError: saying what to move, or how many workers to use.
    """
    parameter = None if model is None else next(model.parameters(), None)
    if parameter is not None and parameter.device != device:
        fail("model", f"a model on {device}, where the banks are", f"one on {parameter.device}",
             f"Move it with model.to('{device}'), or both banks with .to('{parameter.device}').")  # fmt: skip
    if get_worker_info() is None:
        return
    if device.type == "cuda":
        fail("num_workers", "0 with banks on a GPU", "a worker process",
             "Composition runs on the GPU and needs no workers: pass num_workers=0, pin_memory=False.")  # fmt: skip
    if chain:
        fail("num_workers", "0 with a chain", "a worker process",
             "Each worker would keep its own chain: pass num_workers=0.")  # fmt: skip
    if stream:
        fail("num_workers", "0 with a ContextStream", "a worker process",
             "Its slots are in the main process, and it has threads of its own: pass num_workers=0.")  # fmt: skip
    if compiled:
        fail("num_workers", "0 with compile=True", "a worker process",
             "A forked worker cannot compile, and would wait forever: pass num_workers=0.")  # fmt: skip


def given_contexts(composer: Composer | None) -> Composer:
    """Require a composer: a collate without contexts has none.

    Raises:
        InputError: saying what to pass.
    """
    if composer is None:
        fail("contexts", "a bank of contexts for the rows of a PairSampler", "None",
             "Pass contexts=..., or give the collate the items of a data set of photos.")  # fmt: skip
    return composer


def check_main_process(argument: str, fix: str) -> None:
    """Require the main process.

    Raises:
        InputError: in a worker of a DataLoader.
    """
    if get_worker_info() is not None:
        fail("num_workers", f"0 with {argument}", "a worker process", fix)


def check_state(state: Any, chain: ContextChain | None, stream: ContextStream | None) -> None:
    """Require the state of a collate with a chain exactly if this one has a chain, and likewise a stream.

    Raises:
        InputError: for anything else.
    """
    if not isinstance(state, dict) or not {"chain", "photos"} <= set(state):
        fail("state", "the state_dict of a CAGCollate", describe(state))
    pairs = ("chain", chain, state["chain"]), ("stream of contexts", stream, state.get("contexts"))
    for name, own, saved in pairs:
        if (own is None) != (saved is None):
            mine, other = (f"no {name}", "one") if own is None else (f"a {name}", "none")
            fail("state", f"the state of a collate with {mine}", other, "Build it like the saved one.")
