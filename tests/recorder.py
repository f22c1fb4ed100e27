"""A recorder of work on a CPU that is as strict as a CUDA graph, and stricter: memory spoils between turns."""

from contextlib import contextmanager
from functools import partial

import torch

from kornia_cag.core.records import mapped, tensors
from kornia_cag.scenes.capture import Captures, Recording
from kornia_cag.scenes.chunks import Renderer


class Strict:
    """A replay reads nothing but ``given`` and writes nothing but ``made``, neither of which outlives a turn."""

    def __init__(self):
        self.recorded, self.replays, self.turns, self._inside = [], 0, 0, False

    def record(self, work, given):
        held = mapped(torch.clone, given)
        recording = Recording(held, made := work(*held), partial(self._replay, work, held, made))
        self.recorded.append(recording)
        self._spoil()
        return recording

    def _replay(self, work, held, made):
        assert self._inside
        self.replays += 1
        for old, new in zip(tensors(made), tensors(work(*held)), strict=True):
            assert (old.shape, old.dtype, old.stride()) == (new.shape, new.dtype, new.stride())
            old.untyped_storage().copy_(new.untyped_storage())

    @contextmanager
    def turn(self):
        assert not self._inside
        self._inside, self.turns = True, self.turns + 1
        yield
        self._inside = False
        self._spoil()

    def _spoil(self):
        for recording in self.recorded:
            for tensor in tensors((recording.given, recording.made)):
                torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).fill_(255)  # floats are NaN


def replaying(collate):
    """Let a collate on a CPU compose as with ``graph=True`` on a GPU; gives its recorder."""
    recorder = Strict()
    collate._renderer = Renderer(Captures(recorder))
    return recorder
