"""``CAGCollate``: the collate step that composes. It ties together composer, chain and adversaries."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, Unpack, cast, overload

import torch
from torch import nn

from kornia_cag.adversary.stage import Adversary, Draft, check_adversaries, hardened, planned
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.stream import Contexts, ContextStream
from kornia_cag.core.checks import check_instance, check_number, check_size
from kornia_cag.core.ranks import whole
from kornia_cag.core.records import joined, mapped
from kornia_cag.loading import arguments
from kornia_cag.loading.batch import Batch, Output, Pair, batch_of
from kornia_cag.loading.chain import ContextChain
from kornia_cag.loading.views import Views
from kornia_cag.sampling.photos import PhotoRows, photo_bank
from kornia_cag.sampling.rows import Rows, are_rows, check_rows
from kornia_cag.scenes.composer import Composer, warn_if_coarse
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp


class CAGCollate(Generic[Output]):
    """A ``collate_fn`` that composes a batch on the banks' device.

    It takes the :class:`Rows` of a :class:`PairSampler`; every random choice is a function of a row. On a GPU, use it
    with ``num_workers=0`` and ``pin_memory=False``. On a CPU it may run in workers if it has no chain and is not
    compiled; adversaries run in the main process (:class:`kornia_cag.Prefetcher`).

    It also takes items of your own data set, ``DataLoader(photos, batch_size=..., collate_fn=collate)``: each item's
    image becomes the context of one object, see :mod:`kornia_cag.sampling.photos`. Main process only.

    Args:
        objects: objects to recognise.
        contexts: contexts to put them on, a :class:`ContextBank` or a :class:`ContextStream`; may be None if you only
            compose a data set's items.
        size: canvas, one integer or ``(height, width)``, pixels.
        ranges: what varies from scene to scene.
        chain: use earlier composites as contexts.
        model: the model being trained, for the adversaries; on the banks' device.
        adversaries: make batches harder for ``model``, in order: a :class:`ScenePGD` or :class:`WorstOf` chooses
            scenes, a :class:`PGD` changes pixels, an :class:`External` wraps another library's attack.
        strength: in [0, 1], or a :class:`Ramp` over epochs.
        returns: ``"pair"`` for ``(images, labels)``, ``"batch"`` for a :class:`Batch`, which a layout and distractors
            need, and a chain that keeps targets: what they show, if anything, takes more than one label to say.
        seed: seed of samples on a data set's items; rows carry their own.
        dtype: dtype of the images: float32, bfloat16, float16, or uint8 (without adversaries and ``ranges.finish``).
        channels_last: whether images use torch's memory format of that name.
        compile: see :meth:`compile`.
        graph: on a GPU, record composition, eager or compiled, as a CUDA graph when a shape comes for the second time,
            and replay it from then on: the same images by one launch, for the memory of a batch in the making. None:
            wherever possible: not with JPEG in the ranges, nor, after a warning, with a blend that cannot be recorded.
        views: ``"all blends"``: each scene once under every blend of ``ranges.blend``, a :class:`OneOf`. The batch
            grows by that factor, and labels and rows repeat: all samples under the first blend, then all under the
            next. Without a chain and adversaries of scenes. None: once, under the blend that was drawn.
    """

    @overload
    def __init__(
        self: "CAGCollate[Pair]", objects: ObjectBank, contexts: Contexts | None, size: int | tuple[int, int], *,
        returns: Literal["pair"] = "pair", **options: Unpack[arguments.Options],
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self: "CAGCollate[Batch]", objects: ObjectBank, contexts: Contexts | None, size: int | tuple[int, int], *,
        returns: Literal["batch"], **options: Unpack[arguments.Options],
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self: "CAGCollate[Pair | Batch]", objects: ObjectBank, contexts: Contexts | None,
        size: int | tuple[int, int], *, returns: Literal["pair", "batch"], **options: Unpack[arguments.Options],
    ) -> None: ...  # fmt: skip

    def __init__(
        self, objects: ObjectBank, contexts: Contexts | None, size: int | tuple[int, int], *,
        ranges: SceneRange | None = None, chain: ContextChain | None = None, model: nn.Module | None = None,
        adversaries: Sequence[Adversary] = (), strength: float | Ramp = 1.0, returns: Literal["pair", "batch"] = "pair",
        seed: int = 0, dtype: torch.dtype = torch.float32, channels_last: bool = False, compile: bool = False,
        graph: bool | None = None, views: Literal["all blends"] | None = None,
    ) -> None:  # fmt: skip
        arguments.check_parts(objects, contexts, ranges, chain, model)
        self.objects, self.size, self.ranges = objects, check_size("size", size), ranges or SceneRange()
        self.adversaries = check_adversaries(adversaries, model)
        arguments.check_together(len(objects.classes), chain, self.adversaries, dtype)
        arguments.check_views(views, self.ranges, chain, self.adversaries)
        self.dtype, self.channels_last = dtype, channels_last
        self._stream = contexts if isinstance(contexts, ContextStream) else None
        bank = contexts.bank if isinstance(contexts, ContextStream) else contexts
        self._composer = None if bank is None else self._composing(bank)
        warn_if_coarse(objects, bank, self.size, self.ranges, stacklevel=2)
        self.strength = strength if isinstance(strength, Ramp) else check_number("strength", strength, 0, 1)
        arguments.check_returns(returns, objects, self.ranges, chain)
        self.chain, self.model, self.returns, self._whole = chain, model, returns, returns == "batch"
        self._photos = PhotoRows(objects.labels.cpu(), seed=seed)
        self._renderer = arguments.renderer(self.device, self.ranges, compile=compile, graph=graph, views=views)

    @property
    def device(self) -> torch.device:
        """The device on which batches are composed."""
        return self.objects.device

    @property
    def composer(self) -> Composer:
        """The composer for a sampler's rows; an InputError without a bank of contexts."""
        return arguments.given_contexts(self._composer)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch``, for the items of a data set; rows carry their own epoch."""
        self._photos.set_epoch(epoch)

    def __call__(self, rows: Rows | Sequence[Any]) -> Output:
        """Compose and harden one batch, and store it in the chain.

        Args:
            rows: as yielded by a :class:`PairSampler`; or a data set's items.
        """
        return self.harden(self.compose(rows))

    def compose(self, rows: Rows | Sequence[Any]) -> Draft:
        """The first half of a call: everything that does not depend on the model, so it may run ahead of training.

        With a chain, compose a batch only after the previous one was hardened.
        """
        model = self.model if any(stage.needs_model for stage in self.adversaries) else None
        arguments.check_place(self.device, model, chain=self.chain is not None, compiled=self._renderer.compiled,
                              stream=self._stream is not None)  # fmt: skip
        photos, rows = self._taken(rows)
        share = rows.share
        composer = self.composer if photos is None else self._composing(photos)
        earlier = None if self.chain is None else self.chain.offered(composer, rows)
        masks = self._whole or any(stage.needs_targets for stage in self.adversaries)
        draft = Draft(rows, len(rows), earlier=earlier, photos=photos, strength=self.strength, wants_targets=masks,
                      wants_scene=self._whole, dealt=share)  # fmt: skip
        draft = planned(self.adversaries, draft)
        if not draft.size:
            return self._absent(draft, composer)
        if draft.waiting == len(draft.rows):
            return draft
        rows, earlier = draft.rest
        made = self._renderer(composer, rows, draft.strength, earlier, targets=draft.wants_targets,
                              scene=draft.wants_scene)  # fmt: skip
        views = len(self._renderer) if isinstance(self._renderer, Views) else 1
        return replace(draft, made=made, rows=joined([draft.rows] * views), size=draft.size * views,
                       dealt=share._replace(views=views))  # fmt: skip

    def _absent(self, draft: Draft, composer: Composer) -> Draft:
        """The draft of no rows, a rank's share of a small batch: composed from stand-ins, of which nothing is kept."""
        layers, device = draft.rows.layers.shape[1], self.device
        none = torch.zeros(2, layers, dtype=torch.int64, device=device)  # two: a single row would compile separately
        earlier = None if self.chain is None else self.chain.slots(
            2, size=composer.size, device=device, dtype=composer.dtype, layers=layers
        )  # fmt: skip
        made = self._renderer(composer, Rows.of(none, none[:, 0], none[:, 0]), draft.strength, earlier,
                              targets=draft.wants_targets, scene=draft.wants_scene)  # fmt: skip
        return replace(draft, made=mapped(lambda tensor: tensor[:0], made))

    def harden(self, draft: Draft) -> Output:
        """The second half: run the adversaries against the model as it is now, and store the result in the chain."""
        check_instance("draft", draft, Draft, "Pass the result of collate.compose(rows).")
        if self.adversaries:
            arguments.check_main_process("adversaries", arguments.STALE)
            composer = self.composer if draft.photos is None else self._composing(draft.photos)
            changes = None if self.chain is None else self.chain.changes(draft.size)
            draft = replace(draft, composer=composer, changes=changes)
        draft = hardened(self.adversaries, self.model, draft, warm=self.chain is not None and self.chain.warm_start)
        if self.chain is not None:
            made, earlier = draft.composites, draft.earlier
            shown = None if earlier is None else earlier.after(made.chained)
            self.chain.keep(draft.pictures, made.labels, draft.changes, targets=made.targets, generations=shown,
                            share=draft.share)  # fmt: skip
        if self._whole:
            return cast(Output, batch_of(draft))
        return cast(Output, Pair(draft.pictures, draft.composites.labels[:, 0]))

    def _taken(self, rows: Any) -> tuple[ContextBank | None, Rows]:
        """The argument as rows on the device; for a data set's items, also their photos as contexts."""
        if are_rows(rows) or not isinstance(rows, list | tuple) or not rows:
            found = check_rows(rows, objects=len(self.objects), contexts=len(self.composer.contexts))
            if self._stream is not None:
                self._fill(self._stream, found if found.device.type == "cpu" else found.to("cpu"))
            return None, found.to(self.device)
        arguments.check_main_process("the items of a data set", arguments.COUNTED)
        bank = photo_bank(rows, canvas=self.size, device=self.device)
        return bank, self._photos(len(rows)).to(self.device)

    def _fill(self, stream: ContextStream, rows: Rows) -> None:
        """Put the pictures into slots that these rows, or those of other ranks in their place, may show."""
        asked = rows.contexts, rows.epoch
        if any(stage.swaps_contexts for stage in self.adversaries):
            asked = whole(asked, rows.share)
        if len(asked[0]):
            stream.refill(*asked)

    def _composing(self, contexts: ContextBank) -> Composer:
        return Composer(self.objects, contexts, self.size, self.ranges, self.dtype, self.channels_last, warn=False)

    def compile(self) -> "CAGCollate[Output]":
        """Compose in one compiled graph, from rows to images, from the next batch on; returns the collate itself.

        The first batch includes compiling: up to two minutes on a CPU, unless an earlier process left the kernels in
        inductor's cache. Other batch sizes, contents, epochs and strengths do not recompile; a batch of one sample
        does, once. The images equal those of eager mode within 1 / 255.
        """
        self._renderer.compile()
        return self

    def twin(self, model: nn.Module | None) -> "CAGCollate[Output]":
        """A copy of this collate, including its chain, for another ``model``; using it does not affect this one.

        On a stream it composes with what the slots hold, whatever the epoch.
        """
        twin = copy.copy(self)
        twin._stream = None
        twin.model, twin._renderer = model, self._renderer.twin()
        twin.chain, twin._photos = copy.deepcopy((self.chain, self._photos))
        return twin

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on besides its rows: the chain, and the sample count on a data set's items.

        And where a stream of contexts goes on.
        """
        stream = {} if self._stream is None else {"contexts": self._stream.state_dict()}
        chain = None if self.chain is None else self.chain.state_dict()
        return {"chain": chain, "photos": self._photos.state_dict(), **stream}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of :meth:`state_dict`, from tensors on any device.

        Raises:
            InputError: for the state of a collate that was built differently.
        """
        arguments.check_state(state, self.chain, self._stream)
        self._photos.load_state_dict(state["photos"])
        if self._stream is not None:
            self._stream.load_state_dict(state["contexts"])
        if self.chain is not None:
            self.chain.load_state_dict(state["chain"], self.device)

    def __repr__(self) -> str:
        height, width = self.size
        contexts = None if self._composer is None else self._composer.contexts
        return (f"CAGCollate({self.objects!r}, {contexts!r}, size=({height}, {width}), chain={self.chain!r}, "
                f"adversaries={self.adversaries!r}, strength={self.strength!r})")  # fmt: skip
