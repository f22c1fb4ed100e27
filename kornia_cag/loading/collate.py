"""``CAGCollate``: the collate step that composes. The only file that knows DataLoader."""

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import NoneType
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypedDict,
    Unpack,
    cast,
    overload,
    runtime_checkable,
)

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from kornia_cag.adversary.pixels import PGD
from kornia_cag.adversary.scenes import ScenePGD, WorstOf, attacked
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import (
    check_choice,
    check_instance,
    check_int,
    check_number,
    check_size,
    check_tensor,
    describe,
    fail,
)
from kornia_cag.core.compiling import any_batch, kept, program
from kornia_cag.core.devices import upload
from kornia_cag.core.formats import DTYPES
from kornia_cag.core.randomness import sample_keys
from kornia_cag.loading.batch import Batch, Composed, Output, Pair
from kornia_cag.loading.chain import ContextChain
from kornia_cag.sampling.photos import are_items, photo_bank, photo_rows
from kornia_cag.sampling.rows import check_rows
from kornia_cag.scenes.chunks import Made, Room, Rooms, Slots, cuts, in_parts, join, split
from kornia_cag.scenes.composer import Composer, warn_if_coarse
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Earlier, Scene
from kornia_cag.scenes.strength import Ramp


@runtime_checkable
class Attack(Protocol):
    """Whatever hardens a batch against a model; :class:`PGD` is one."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, mask: Tensor, keys: Tensor) -> Tensor:
        """Map images ``(b, 3, h, w)`` in [0, 1] to others of their shape; ``mask`` is the objects' alpha."""
        ...


Plain = Callable[[Tensor, Tensor], Tensor]  # images and labels to images, as torchattacks' objects are called


def asks_for_model(attack: Any) -> bool:
    """Whether an attack is called as :class:`Attack` says: it has a parameter ``model``, or does not name its own."""
    parameters = inspect.signature(attack).parameters
    named = [name for name, it in parameters.items() if it.kind not in (it.VAR_POSITIONAL, it.VAR_KEYWORD)]
    return "model" in named or not named


for _record in (Pair, Batch):  # what help() says of each field
    for _name, _text in re.findall(r"^ +(\w+): (.+)\.$", _record.__doc__ or "", flags=re.MULTILINE):
        getattr(_record, _name).__doc__ = _text


class Options(TypedDict, total=False):
    """What a :class:`CAGCollate` may be given beside banks, size and ``returns``."""

    ranges: SceneRange | None
    chain: ContextChain | None
    model: nn.Module | None
    scene_attack: WorstOf | ScenePGD | None
    attack: Attack | Plain | None
    strength: "float | Ramp"
    extra: nn.Module | None
    seed: int
    dtype: torch.dtype
    channels_last: bool
    compile: bool


class CAGCollate(Generic[Output]):
    """A ``collate_fn`` that composes a batch on the banks' device.

    It takes the rows of a :class:`PairSampler`, every random choice being a function of a row's
    ``(seed, epoch, index)``. Use it with ``num_workers=0`` and ``pin_memory=False`` on a GPU; on a CPU it may run in
    workers as long as it has no chain and is not compiled, and an attack runs in the main process
    (:class:`kornia_cag.Prefetcher`).

    Or it takes the items of a data set of your own, ``DataLoader(photos, batch_size=..., collate_fn=collate)``: each
    item's image becomes the context of one object, also where the collate has a bank of contexts (a :class:`WorstOf`
    that may choose contexts chooses among the photos of the batch). The label of a composite is that of the object; the
    photo's own is not used. :func:`kornia_cag.sampling.photos.photo_bank` says what an item may be. The classes of a batch are
    balanced. Such items carry no index, so the collate counts samples, from 0 or
    from the last :meth:`set_epoch`; replay then depends on the order in which the data set is read and on the batch
    size. Runs in the main process only.

    Args:
        objects: what to recognise.
        contexts: what to put it on; may be None where only a data set's items are composed.
        size: canvas, one integer or ``(height, width)``, pixels.
        ranges: what varies from scene to scene.
        chain: use earlier composites as contexts.
        model: the model being trained, which the attack attacks; on the banks' device.
        scene_attack: before the attack, choose scenes that ``model`` finds hard: a :class:`WorstOf` or
            :class:`ScenePGD` (which follows gradients through the composer, and so goes without ``extra``).
        attack: harden every batch against ``model``: a :class:`PGD`, or anything called like one (:class:`Attack`).
            What names its parameters, but none ``model``, is called as ``attack(images, labels)``, and brings its own.
        strength: in [0, 1], or a :class:`Ramp` over epochs.
        returns: ``"pair"`` for ``(images, labels)``, ``"batch"`` for a :class:`Batch`.
        extra: a kornia augmentation (or any module from images to images of the same shape), run after the camera.
            Photometric only: masks and boxes would not follow a geometric one. Kornia's augmentation classes draw from
            the global random state, so with one of them a run repeats only under ``torch.manual_seed``.
        seed: of the samples on a data set's items; a row brings its own.
        dtype: of the images: float32, bfloat16, float16, or uint8 (without attack and extra).
        channels_last: torch's memory format of the images.
        compile: see :meth:`compile`.
    """

    @overload
    def __init__(
        self: "CAGCollate[Pair]", objects: ObjectBank, contexts: ContextBank | None, size: int | tuple[int, int], *,
        returns: Literal["pair"] = "pair", **options: Unpack[Options],
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self: "CAGCollate[Batch]", objects: ObjectBank, contexts: ContextBank | None, size: int | tuple[int, int], *,
        returns: Literal["batch"], **options: Unpack[Options],
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self: "CAGCollate[Pair | Batch]", objects: ObjectBank, contexts: ContextBank | None,
        size: int | tuple[int, int], *, returns: Literal["pair", "batch"], **options: Unpack[Options],
    ) -> None: ...  # fmt: skip

    def __init__(
        self,
        objects: ObjectBank,
        contexts: ContextBank | None,
        size: int | tuple[int, int],
        *,
        ranges: SceneRange | None = None,
        chain: ContextChain | None = None,
        model: nn.Module | None = None,
        scene_attack: WorstOf | ScenePGD | None = None,
        attack: Attack | Plain | None = None,
        strength: float | Ramp = 1.0,
        returns: Literal["pair", "batch"] = "pair",
        extra: nn.Module | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        check_instance("objects", objects, ObjectBank, "Build it with ObjectBank.from_folder.")
        check_instance("contexts", contexts, (ContextBank, NoneType), "Build it with ContextBank.procedural.")
        check_instance("ranges", ranges, (SceneRange, NoneType), "Pass ranges=SceneRange(pose=PoseRange(...)).")
        check_instance("chain", chain, (ContextChain, NoneType), "Pass chain=ContextChain(reset=0.171).")
        check_instance("model", model, (nn.Module, NoneType), "Wrap another function in a Module.")
        self.objects, self.size, self.ranges = objects, check_size("size", size), ranges or SceneRange()
        check_choice("dtype", dtype, DTYPES)
        if dtype == torch.uint8 and not (attack is None and scene_attack is None and extra is None):
            fail("dtype", "a float dtype with an attack or an extra stage", "torch.uint8")
        self.dtype, self.channels_last = dtype, channels_last
        self._composer = None if contexts is None else self._composing(contexts)
        warn_if_coarse(objects, contexts, self.size, self.ranges, stacklevel=2)
        _check_attack(attack, model)
        if chain is not None and chain.warm_start and not isinstance(attack, PGD):
            fail("attack", "a PGD, since the chain has warm_start", describe(attack), "Leave warm_start out.")
        check_instance("scene_attack", scene_attack, (WorstOf, ScenePGD, NoneType), "Pass scene_attack=WorstOf(k=4).")
        if scene_attack is not None and model is None:
            fail("model", "the model to attack", "None", "Pass model=..., or leave scene_attack out.")
        if isinstance(scene_attack, ScenePGD) and extra is not None:
            fail("extra", "None with a ScenePGD, which would not see what it does", type(extra).__name__,
                 "Take a WorstOf, which judges finished images.")  # fmt: skip
        pairing = None if chain is None else chain.pairing
        if pairing is not None and pairing.classes != len(objects.classes):
            fail("chain", f"a HardPairing of {len(objects.classes)} classes, those of the objects",
                 f"one of {pairing.classes}", "Pass pairing=HardPairing(classes=len(objects.classes)).")  # fmt: skip
        self.strength = strength if isinstance(strength, Ramp) else check_number("strength", strength, 0, 1)
        check_choice("returns", returns, ("pair", "batch"))
        self.chain, self.model, self.attack, self.scene_attack = chain, model, attack, scene_attack
        self.returns, self.extra = returns, extra
        self.seed = check_int("seed", seed, 0, 2**62 - 1)
        self._labels = objects.labels.cpu()
        self._epoch = self._index = 0
        self._rooms = Rooms()
        self._program: Callable[..., Any] | None = None
        if compile:
            self.compile()

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.objects.device

    @property
    def composer(self) -> Composer:
        """What composes the rows of a sampler.

        Raises:
            InputError: without a bank of contexts.
        """
        if self._composer is None:
            fail("contexts", "a bank of contexts for the rows of a PairSampler", "None",
                 "Pass contexts=..., or give the collate the items of a data set of photos.")  # fmt: skip
        return self._composer

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch``, for the items of a data set; rows bring their own epoch."""
        self._epoch, self._index = check_int("epoch", epoch, 0, 2**62 - 1), 0

    def __call__(self, rows: Int[Tensor, "b 5"] | Sequence[Any]) -> Output:
        """Compose, attack, and remember one batch.

        Args:
            rows: object, context, index, epoch, seed, as :class:`PairSampler` yields them; or a data set's items.
        """
        return self.harden(self.compose(rows))

    def compose(self, rows: Int[Tensor, "b 5"] | Sequence[Any]) -> Composed:
        """The first half of a call: all that does not depend on the model, which may therefore run ahead of it.

        With a chain, compose a batch after the one before it was hardened.
        """
        self._check_place()
        photos = are_items(rows)
        composer, table = self._photos(rows) if photos else self._pairs(rows)
        table = upload(table, self.device)
        slots, b = self._slots(table), len(table)
        if isinstance(self.scene_attack, ScenePGD):
            m = attacked(self.scene_attack.fraction, b)
            first, rest = split(slots, [m])
            made = self._make(composer, table[m:], rest) if m < b else None
            return Composed(table, b, made, m, first, composer.contexts if photos else None)
        if isinstance(self.scene_attack, WorstOf):
            table, slots = self.scene_attack.candidates(table, slots)
        scene, keys, chained = self._make(composer, table, slots)
        return Composed(table, b, (self._extra(scene), keys, chained))

    @property
    def _attacks(self) -> bool:
        """Whether anything looks at the model."""
        return self.attack is not None or self.scene_attack is not None

    @property
    def _masks(self) -> bool:
        """Whether anything asks for masks and boxes."""
        return self.returns == "batch" or self.attack is not None

    def _slots(self, table: Int[Tensor, "b 5"]) -> Slots:
        """What the chain offers to each row."""
        if self.chain is None:
            return None
        objects, _, index, epoch, seed = table.unbind(1)
        slots = self.chain.slots(len(table), self.size, self.device, self.dtype)
        images, last = self.chain.ordered(slots, self.objects.labels[objects], sample_keys(seed, epoch, index))
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout), last  # empty slots too, or a second graph would be compiled

    @torch.no_grad()
    def _make(self, composer: Composer, table: Int[Tensor, "b 5"], slots: Slots) -> Made:
        """Scenes of rows, compiled or not, in parts where that pays."""
        masks = self._masks

        def make(rows: Tensor, slots: Slots, into: Room | None) -> Made:
            if self._program is None:
                return _scenes(composer, self.strength, self.chain, rows, slots, into, masks)
            any_batch(rows, composer.contexts.pyramid.atlas, *(slots or ()), *(into or ()))
            made: Made = self._program(composer, self.strength, self.chain, rows, slots, into, masks)
            return made

        ends = cuts(composer, len(table))
        if self._program is None and not ends:
            return make(table, slots, None)
        return in_parts(make, table, slots, self._rooms.room(composer, len(table), masks), ends)

    def compile(self) -> "CAGCollate[Output]":
        """From the next batch on, compose by one compiled graph, from rows to images; returns the collate itself.

        The first batch takes as long as compiling does: up to two minutes on a CPU, unless an earlier process left the
        kernels in inductor's cache. Batches of other sizes, contents, epochs and strengths do not compile anew; a batch
        of one sample does, once. The images equal those of eager mode within 1 / 255.
        """
        if self._program is None:
            self._program = program(_scenes)
        return self

    def twin(self, model: nn.Module | None) -> "CAGCollate[Output]":
        """A collate with banks, ranges, attacks and compiled graph of this one, another ``model``, and a chain copied.

        What it composes leaves no trace in this one.
        """
        twin = copy.copy(self)
        twin.model, twin.chain, twin._rooms = model, copy.deepcopy(self.chain), Rooms()
        twin._program = self._program  # which a copy would compile anew
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_program": self._program is not None}  # another process compiles its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_program": None})
        if state["_program"]:
            self.compile()

    def harden(self, composed: Composed) -> Output:
        """The second half: attack the model as it is now, and remember the result for the chain."""
        check_instance("composed", composed, Composed, "Pass what collate.compose(rows) gave.")
        if self._attacks and get_worker_info() is not None:
            fail("num_workers", "0 with an attack", "a worker process",
                 "A worker would attack a stale model: pass num_workers=0, or let workers only compose "
                 "(collate_fn=collate.compose) and a Prefetcher attack.")  # fmt: skip
        rows, made = self._chosen(composed)
        scene, _, chained = made
        images = self._attacked(made)
        if self.chain is not None:
            self.chain.keep(images, scene.labels, scene.images)
        if self.returns == "pair":
            return cast(Output, Pair(images, scene.labels))
        outlines = cast(tuple[Tensor, Tensor, Tensor], (scene.masks, scene.boxes, scene.visible))  # compose made them
        batch = Batch(images, scene.labels, *outlines, scene.objects, scene.contexts, rows[:, 2], scene.images,
                      chained, rows)  # fmt: skip
        return cast(Output, batch)

    def _pairs(self, rows: Any) -> tuple[Composer, Int[Tensor, "b 5"]]:
        return self.composer, check_rows(rows, len(self.objects), len(self.composer.contexts))

    def _photos(self, items: Any) -> tuple[Composer, Int[Tensor, "b 5"]]:
        if get_worker_info() is not None:
            fail("num_workers", "0 with the items of a data set", "a worker process",
                 "A worker would count samples of its own. To read photos in workers, pass collate_fn=list to the "
                 "loader, and call the collate on each list in the main process.")  # fmt: skip
        bank = photo_bank(items, self.size, self.device)
        rows = photo_rows(self._labels, len(items), seed=self.seed, epoch=self._epoch, start=self._index)
        self._index += len(items)
        return self._composing(bank), rows

    def _composing(self, contexts: ContextBank) -> Composer:
        return Composer(self.objects, contexts, self.size, self.ranges, self.dtype, self.channels_last, warn=False)

    @torch.no_grad()
    def _extra(self, scene: Scene) -> Scene:
        if self.extra is None:
            return scene
        images = scene.images
        changed: Tensor = self.extra(images)
        check_tensor("extra", changed, tuple(images.shape), images.dtype, images.device,
                     fix="An extra stage must keep shape, dtype and device.")  # fmt: skip
        return replace(scene, images=changed.clamp(0, 1))

    def _chosen(self, composed: Composed) -> tuple[Int[Tensor, "b 5"], Made]:
        """The rows and scenes that the adversary of scenes chooses, or those that were drawn."""
        attack, model, rows = self.scene_attack, cast(nn.Module, self.model), composed.rows
        if isinstance(attack, ScenePGD) and composed.waiting:
            first = self._climbed(attack, model, composed)
            return rows, first if composed.made is None else join([first, composed.made])
        made = cast(Made, composed.made)  # nothing waits
        if isinstance(attack, WorstOf):
            scene, keys, chained = made
            places = attack.choose(model, scene.images, scene.labels, composed.size)
            return rows[places], (scene.map(lambda tensor: tensor[places]), keys[places], chained[places])
        return rows, made

    def _climbed(self, attack: ScenePGD, model: nn.Module, composed: Composed) -> Made:
        """The scenes that were left waiting, in parts where that pays: a step keeps all of a part for its gradient."""
        composer = self.composer if composed.photos is None else self._composing(composed.photos)
        made, ends = [], cuts(composer, composed.waiting)
        rows = composed.rows[: composed.waiting].tensor_split(ends)
        for table, slots in zip(rows, split(composed.slots, ends), strict=True):
            with torch.no_grad():
                given = _given(composer, self.strength, self.chain, table, slots)
            made.append((attack(model, partial(composer, *given, masks=self._masks)), given.keys, _chained(given)))
        return join(made)

    def _attacked(self, made: Made) -> Shaped[Tensor, "b 3 h w"]:
        scene, keys, _ = made
        clean = scene.images
        if self.attack is None:
            return clean
        if not isinstance(self.attack, PGD):
            clean = clean.clone()  # another's attack may work in place
        if not asks_for_model(self.attack):
            images = cast(Plain, self.attack)(clean, scene.labels)
        else:
            mask, model = cast(Tensor, scene.masks), cast(nn.Module, self.model)  # compose made the mask
            start = None if self.chain is None else self.chain.start(clean)
            more: dict[str, Any] = {} if start is None else {"start": start}
            images = cast(Attack, self.attack)(model, clean, scene.labels, mask=mask, keys=keys, **more)
        check_tensor("attack", images, tuple(clean.shape), clean.dtype, clean.device,
                     fix="An attack must keep shape, dtype and device.")  # fmt: skip
        return images.detach()

    def _check_place(self) -> None:
        parameter = next(self.model.parameters(), None) if self.model is not None and self._attacks else None
        if parameter is not None and parameter.device != self.device:
            fail("model", f"a model on {self.device}, where the banks are", f"one on {parameter.device}",
                 f"Move it with model.to('{self.device}'), or both banks with .to('{parameter.device}').")  # fmt: skip
        if get_worker_info() is None:
            return
        if self.device.type == "cuda":
            fail("num_workers", "0 with banks on a GPU", "a worker process",
                 "Composition runs on the GPU and needs no workers: pass num_workers=0, pin_memory=False.")  # fmt: skip
        if self.chain is not None:
            fail("num_workers", "0 with a chain", "a worker process",
                 "A worker would keep a chain of its own: pass num_workers=0.")  # fmt: skip
        if self._program is not None:
            fail("num_workers", "0 with compile=True", "a worker process",
                 "A forked worker cannot compile, and would wait forever: pass num_workers=0.")  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on beside its rows: the chain, and the count of samples on a data set's items."""
        photos = {"seed": self.seed, "epoch": self._epoch, "index": self._index}
        return {"chain": None if self.chain is None else self.chain.state_dict(), "photos": photos}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`state_dict`, wherever its tensors are.

        Raises:
            InputError: for the state of a collate that was built otherwise.
        """
        if not isinstance(state, dict) or not {"chain", "photos"} <= set(state):
            fail("state", "the state_dict of a CAGCollate", describe(state))
        if (self.chain is None) != (state["chain"] is None):
            mine, other = ("no chain", "one") if self.chain is None else ("a chain", "none")
            fail("state", f"the state of a collate with {mine}", other, "Build it as the saved one was built.")
        photos = state["photos"]
        if not isinstance(photos, dict) or set(photos) != {"seed", "epoch", "index"}:
            fail("state['photos']", "seed, epoch and index", describe(photos))
        for name in ("epoch", "index"):
            check_int(f"state['photos'][{name!r}]", photos[name], 0)
        if photos["seed"] != self.seed:
            fail("state", f"the state of a collate with seed={self.seed}", f"seed={photos['seed']}",
                 "Build it as the saved one was built.")  # fmt: skip
        if self.chain is not None:
            self.chain.load_state_dict(state["chain"], self.device)
        self._epoch, self._index = photos["epoch"], photos["index"]

    def __repr__(self) -> str:
        height, width = self.size
        contexts = None if self._composer is None else self._composer.contexts
        return (f"CAGCollate({self.objects!r}, {contexts!r}, size=({height}, {width}), "
                f"chain={self.chain!r}, scene_attack={self.scene_attack!r}, attack={self.attack!r}, "
                f"strength={self.strength!r})")  # fmt: skip


def _scenes(
    composer: Composer,
    ramp: float | Ramp,
    chain: ContextChain | None,
    table: Int[Tensor, "b 5"],
    slots: Slots,
    into: Room | None,
    masks: bool,
) -> Made:
    """Rows to scenes, keys, and which context is an earlier composite: the graph that is compiled."""
    given = _given(composer, ramp, chain, table, slots)
    scene = composer(*given, masks=masks)
    return scene if into is None else _written(scene, into), given.keys, _chained(given)


class _Given(NamedTuple):
    """What a composer is given."""

    objects: Int[Tensor, " b"]
    contexts: Int[Tensor, " b"]
    keys: Int[Tensor, " b"]
    strength: Float[Tensor, " b"]
    earlier: Earlier | None


def _given(
    composer: Composer, ramp: float | Ramp, chain: ContextChain | None, table: Int[Tensor, "b 5"], slots: Slots
) -> _Given:
    objects, contexts, index, epoch, seed = table.unbind(1)
    keys = kept(sample_keys(seed, epoch, index))
    strength = ramp(epoch) if isinstance(ramp, Ramp) else torch.full_like(epoch, ramp, dtype=torch.float32)
    earlier = None
    if chain is not None and slots is not None:
        images, last = slots
        earlier = Earlier(images, chain.choose(last, composer.objects.labels[objects], keys))
    return _Given(objects, contexts, keys, strength, earlier)


def _chained(given: _Given) -> Bool[Tensor, " b"]:
    return torch.zeros_like(given.keys, dtype=torch.bool) if given.earlier is None else given.earlier.use


def _written(scene: Scene, into: Room) -> Scene:
    into.images.copy_(scene.images)
    if into.masks is not None and scene.masks is not None:
        into.masks.copy_(scene.masks)
    return replace(scene, images=into.images, masks=into.masks)


def _check_attack(attack: Any, model: nn.Module | None) -> None:
    if attack is None:
        return
    if isinstance(attack, WorstOf | ScenePGD):
        fail("attack", "a PGD, or what is called like one", f"a {type(attack).__name__}", "Pass it as scene_attack=.")
    if not callable(attack) or isinstance(attack, type):
        fail("attack", "a PGD, or what is called like one", describe(attack))
    try:
        signature, asks = inspect.signature(attack), asks_for_model(attack)
        signature.bind(model, None, None, mask=None, keys=None) if asks else signature.bind(None, None)
    except (TypeError, ValueError) as error:  # it has no signature, or another one
        fail("attack", "attack(images, labels), or attack(model, images, labels, *, mask, keys)",
             f"{describe(attack)}: {error}")  # fmt: skip
    if model is None and asks:
        fail("model", "the model to attack", "None", "Pass model=..., or leave attack out.")
    if isinstance(attack, PGD) and attack.target == "given":
        fail("attack", "an attack that chooses its own target, since none are given here", "target='given'",
             "Take target='random' or 'least likely', or wrap it in a function that chooses targets.")  # fmt: skip
