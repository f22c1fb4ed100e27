"""What all examples start from: two banks without any files, and a small network."""

from torch import nn

from kornia_cag import ContextBank, ObjectBank
from kornia_cag.training.architectures import convnet

SIZE = 28

objects = ObjectBank.from_glyphs("0123456789")
contexts = ContextBank.procedural(count=32)


def network() -> nn.Module:
    """A small network, from images (b, 3, 28, 28) in [0, 1] to logits (b, 10)."""
    return convnet(len(objects.classes), SIZE, width=8).to(objects.device)
