"""Contexts without end: a bank whose slots are filled anew, in the background, from any source of pictures."""

import warnings
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from kornia_cag.banks import folders
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.pyramid import build_pyramid, check_texels
from kornia_cag.banks.refusals import ON_ERROR
from kornia_cag.banks.sources import Mark, Place, Reading, Shuffled, Source, names, read_place
from kornia_cag.banks.supply import ANSWER, PATIENCE, Supply, decoded, default_workers
from kornia_cag.core.checks import check_choice, check_instance, check_int, describe, fail, first_few
from kornia_cag.core.devices import Device, chosen_device, upload

MOST_SKIPPED = 1000  # pictures one after the other: then something else is wrong
REASONS = 10  # kept

State = dict[str, Any]


class ContextStream:
    """A bank of contexts whose slots take other pictures as training goes on: a million behind a few thousand slots.

    Pass it to a :class:`CAGCollate` in place of a :class:`ContextBank`, and its length to a :class:`PairSampler`, whose
    contexts are then slots. In epoch ``e``, slot ``c`` holds picture ``(e // epochs) * slots + c`` of the source. So
    what a row shows depends on the row, and not on how fast pictures are decoded, on batches or on ranks: a run repeats
    to the bit, and goes on from where it stopped. A batch that needs a picture which is not there waits for it.

    Balance is the sampler's: within an epoch all slots are offered equally often, within one, and the same holds for
    pictures that stay for an epoch; within two if they stay for several. An epoch may be as short as you like:
    ``samples_per_class=n * slots // classes`` offers every picture n times.

    Pictures are decoded by threads while batches are made, up to ``slots`` pictures ahead, which takes as much memory
    on the host as the slots do on the device. A slot is filled when the first batch of an epoch needs it, so replacing
    is spread over steps; with few samples per slot it is even. It is done in the order of the work that reads the
    slots: a batch, composed ahead or not, sees its own pictures. A scene of an earlier batch that is rendered again,
    or a second collate in another epoch, sees what the slots hold by then.

    It reads the source in its own order, which a shuffled source, or :meth:`from_folder`, makes random, and starts
    again at its end. It needs the main process: a loader with ``num_workers=0``. All ranks read the same source. Once
    it has begun, Pillow's warnings are ignored. Close it, use it as a context manager, or leave that to the end of the
    process.

    Attributes:
        bank: the slots, written in place.
        epochs: number of epochs that a picture stays.
        skipped: number of pictures that could not be used, again in every pass.
        reasons: why, of the first ten.
        usable: number of pictures of a pass that can be used, if the first epoch has shown that it is below ``slots``.
        files: number of the files of a folder and CRC-32 of their names in it, ``count`` and ``crc``; empty for others.

    Args:
        source: an iterable of pictures, or a function that returns a fresh one, as for a generator, which cannot be
            read twice. An item is whatever :class:`CAGCollate` takes of a data set: a PIL image (as it is, without
            EXIF), a tensor, a uint8 array, the bytes or path of a picture file, or a tuple, list or dict with one, as
            webdataset's and those of Hugging Face. To go on after a stop, an iterable with ``state_dict`` and
            ``load_state_dict`` is asked where it was; any other is read and dropped up to the place, so it must give
            the same order again.
        slots: number of pictures that the bank holds at a time.
        size: texels per side, a power of two from 8 to 4096; twice the canvas is a good choice.
        epochs: number of epochs that a picture stays.
        key: name or place of the picture in an item; None: its first image.
        on_error: ``"skip"`` passes over pictures that cannot be decoded or are transparent, in the source's order, and
            counts them; ``"raise"`` stops at them.
        workers: number of threads that decode; None: one less than the processors, at most 16.
        device: device of the bank; ``"auto"`` is a GPU if there is one.

    Raises:
        InputError: for impossible arguments; later, in the batch that needs the picture: for an item without one, and
            for a source that is empty or gives nothing that can be used. Whatever a source raises, that batch raises.
    """

    def __init__(
        self, source: Source, *, slots: int, size: int, epochs: int = 1, key: str | int | None = None,
        on_error: str = "skip", workers: int | None = None, device: Device = "auto",
    ) -> None:  # fmt: skip
        self._slots, self.epochs = check_int("slots", slots, 1, 2**31 - 1), check_int("epochs", epochs)
        check_choice("on_error", on_error, ON_ERROR)
        self._workers = default_workers() if workers is None else check_int("workers", workers, 1, 256)
        self._reading = Reading(source)
        self._supply: Supply | None = None
        self._end: weakref.finalize[..., ContextStream]  # closes the supply, by then there is one
        self._decode = partial(decoded, key=key, size=check_texels("size", size), skip=on_error == "skip")
        with torch.inference_mode(False):  # written to in other modes
            one = build_pyramid(torch.zeros(1, 3, size, size, dtype=torch.uint8, device="cpu"), replicate=True)
            atlas = torch.zeros(slots, *one.atlas.shape[1:], dtype=torch.uint8, device=chosen_device(device))
        self.bank = ContextBank(replace(one, atlas=atlas))
        self._held = np.full(slots, -1, np.int64)  # the generation of each slot's picture: slots take one each
        self._staged: dict[int, Tensor] = {}  # pictures of the current generation that are not in their slot yet
        self._places: dict[int, Place] = {0: (Mark(), 0)}
        self._generation = self._collected = self._in_a_row = 0
        self._waited, self._odd, self._closed = 0.0, False, False
        self.skipped, self.reasons, self.files = 0, list[str](), dict[str, int]()
        self.usable: int | None = None

    @classmethod
    def from_folder(
        cls, path: str | Path, *, slots: int, size: int, epochs: int = 1, seed: int = 0, on_error: str = "skip",
        workers: int | None = None, device: Device = "auto",
    ) -> "ContextStream":  # fmt: skip
        """Every picture below a folder, in another random order in every pass; files are listed at once.

        Args:
            path: the folder.
            slots: as above, and so are the others.
            size: texels per side.
            epochs: number of epochs that a picture stays.
            seed: seed of the order.
            on_error: as above, also for files that are no pictures.
            workers: number of threads that decode.
            device: device of the bank.
        """
        paths = folders.list_contexts(path, on_error=on_error)
        source = Shuffled([str(found) for found in paths], seed=check_int("seed", seed, 0, 2**62 - 1))
        made = cls(source, slots=slots, size=size, epochs=epochs, on_error=on_error, workers=workers, device=device)
        made.files = names(path, paths)
        return made

    @property
    def size(self) -> int:
        """Texels per side of the finest level."""
        return self.bank.size

    @property
    def device(self) -> torch.device:
        """The device of the bank."""
        return self.bank.device

    @property
    def waited(self) -> float:
        """Seconds that batches have waited for pictures, those of the first epoch included."""
        return self._waited + (0.0 if self._supply is None else self._supply.seconds)

    def __len__(self) -> int:
        return self._slots

    def refill(self, contexts: Int[Tensor, " b"], epochs: Int[Tensor, " b"]) -> None:
        """Put the pictures of an epoch into slots; a collate does this for the rows of every batch.

        Args:
            contexts: (b,); slots, on the CPU, from 0.
            epochs: (b,); the epoch of each, in which a picture stays or not, but all of one batch alike.

        Raises:
            InputError: for epochs with different pictures; and see above.
        """
        generations = np.unique(np.asarray(epochs) // self.epochs)
        if len(generations) > 1:
            fail("rows", f"those of one epoch, or of the {self.epochs} with the same pictures" if self.epochs > 1 else
                 "those of one epoch", f"epochs {int(epochs.min())} to {int(epochs.max())}",
                 "Compose them as several batches.")  # fmt: skip
        generation, slots = int(generations[0]), np.unique(np.asarray(contexts))
        needed: list[int] = slots[self._held[slots] != generation].tolist()
        if not needed:
            return
        self._enter(generation)
        while self._collected <= needed[-1]:
            self._collect()
        self._write(needed)

    def _enter(self, generation: int) -> None:
        """Go to the pictures of a generation: on from here, or from the nearest place that is known."""
        known = max(number for number in (0, *self._places) if number <= generation)
        supply = self._supply
        if supply is None or supply.closed or generation < self._generation or known > self._generation:
            self._restart(known)
        while self._generation < generation:
            self._drop()
            while self._collected < self._slots:
                self._collect()
                self._drop()
            self._generation, self._collected = self._generation + 1, 0

    def _restart(self, generation: int) -> None:
        """Begin to read at a generation whose place is known."""
        if self._closed:
            fail("contexts", "an open stream", "a closed one", "Make another one.")
        self._stop()
        if self._supply is not None:
            self._waited += self._supply.seconds
            self._end.detach()
        mark, self.skipped = self._places.get(generation, (Mark(), 0))
        self._generation, self._collected, self._in_a_row = generation, 0, 0
        self._staged.clear()
        self._reading.seek(mark)
        Image.init()  # once, before threads are in need of it
        warnings.filterwarnings("ignore", module=r"PIL\.")  # filters are those of all threads
        supply = Supply(self._reading.next, self._decode, workers=self._workers, room=self._slots + self._workers)
        self._end = weakref.finalize(self, supply.close, patience=PATIENCE)
        self._supply = supply
        if self._closed:  # by another thread, since it was looked at
            self.close()

    def _collect(self) -> None:
        """Take the next item of the source."""
        supply = cast(Supply, self._supply)
        mark, made = supply.take()
        if not self._collected:
            self._places.setdefault(self._generation, (mark, self.skipped))
            self._places = {number: place for number, place in self._places.items() if number >= self._generation - 1}
        if not self._generation and self.usable is None and (mark.passes or mark.item == self.files.get("count")):
            self.usable = self._collected  # by the end of a pass
        if made.texels is not None:
            self._staged[self._collected] = made.texels
            self._collected, self._in_a_row = self._collected + 1, 0
        else:
            supply.release(1)
            self._skip(made.reason)
        if made.note and not self._odd:
            self._odd = True
            warnings.warn(f"contexts: {made.note}. Of others like it nothing is said.", stacklevel=2)

    def _skip(self, reason: str) -> None:
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        self.reasons = [*self.reasons, reason][:REASONS]
        if self._in_a_row >= MOST_SKIPPED:
            fail("source", "pictures that can be used", f"{MOST_SKIPPED} that cannot, one after the other: "
                 f"{first_few(self.reasons, ';')}")  # fmt: skip
        if self.reasons == [reason]:
            warnings.warn(f"contexts: skipped {reason} Others are only counted, see skipped and reasons.", stacklevel=2)

    def _drop(self) -> None:
        """Give up what no batch has asked for."""
        cast(Supply, self._supply).release(len(self._staged))
        self._staged.clear()

    def _write(self, slots: list[int]) -> None:
        """Fill slots with pictures that are there, after all work on the slots that is already queued."""
        texels = upload(torch.stack([self._staged.pop(slot) for slot in slots]), self.device)
        with torch.no_grad():
            self.bank.pyramid.words.index_copy_(0, upload(torch.tensor(slots, device="cpu"), self.device), texels)
        self._held[slots] = self._generation
        cast(Supply, self._supply).release(len(slots))

    def _stop(self) -> None:
        """Leave the source, which is read by one thread at a time, so that reading can begin elsewhere."""
        if self._supply is not None and not self._supply.close(patience=ANSWER):
            fail("source", f"an answer within {ANSWER:g} s, before it is read from another place", "none",
                 "Try again once it answers.")  # fmt: skip

    def state_dict(self) -> State:
        """Where the source is read on for the last two epochs, of which one may be composed ahead: a few integers.

        And the source's own state, if it has one; of a folder, what :attr:`files` says.
        """
        places = [{"generation": number, "skipped": skipped, **mark.state_dict()}
                  for number, (mark, skipped) in sorted(self._places.items())]  # fmt: skip
        return {"slots": self._slots, "epochs": self.epochs, "files": dict(self.files), "places": places}

    def load_state_dict(self, state: State) -> None:
        """Go on from the state of :meth:`state_dict`; the next batch reads the pictures of its epoch anew.

        Raises:
            InputError: for another stream's state; if the source, being read, does not answer within half a minute.
        """
        if not isinstance(state, dict) or set(state) != {"slots", "epochs", "files", "places"}:
            fail("state", "the state_dict of a ContextStream", describe(state))
        for name, mine in (("slots", self._slots), ("epochs", self.epochs), ("files", self.files)):
            if state[name] != mine:
                fail("state", f"the state of a stream with {name}={mine}", f"{name}={describe(state[name])}",
                     "Build it like the saved one.")  # fmt: skip
        check_instance("state['places']", state["places"], list)
        places = dict(read_place(place) for place in state["places"])
        self._stop()
        self._places = places or {0: (Mark(), 0)}
        self.skipped = self._places[max(self._places)][1]
        self._held[:] = -1

    def close(self) -> None:
        """End the threads; a batch that needs no other pictures can still be composed."""
        self._closed = True
        if self._supply is not None:
            self._end()

    def __enter__(self) -> "ContextStream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        fail("contexts", "a ContextStream in the process that made it", "a copy for another one, or a deep copy",
             "Pass num_workers=0 to the loader.")  # fmt: skip

    def __repr__(self) -> str:
        return (f"ContextStream(slots={len(self)}, size={self.size}, epochs={self.epochs}, device='{self.device}', "
                f"skipped={self.skipped})")  # fmt: skip


Contexts = ContextBank | ContextStream
