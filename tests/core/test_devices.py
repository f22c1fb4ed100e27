from types import SimpleNamespace

import pytest
import torch

from kornia_cag import CAGCollate, ContextBank, InputError, ObjectBank
from kornia_cag.core import devices
from kornia_cag.core.devices import chosen_device
from kornia_cag.training.network import load_network
from kornia_cag.training.recipes import DIGITS

SHAPE = torch.zeros(4, 12, 12, dtype=torch.uint8)
SHAPE[:, 3:9, 2:10] = 255


@pytest.mark.parametrize(("gpu", "kind"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(gpu, kind, monkeypatch):
    """The fixtures make it the CPU: what it is else is asked of the module as it is loaded."""
    spec = devices.__spec__
    fresh = SimpleNamespace()
    source = spec.loader.get_source(spec.name)
    exec(compile(source, spec.name, "exec"), vars(fresh))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert fresh._auto() == kind


def test_auto_and_names_and_devices():
    assert chosen_device("auto") == chosen_device("cpu") == chosen_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_on_a_gpu():
    assert chosen_device("auto") == chosen_device("cuda") == torch.device("cuda:0")
    assert ObjectBank.from_tensors([SHAPE]).device == torch.device("cuda:0")


MAKERS = {
    "from_tensors": lambda device: ObjectBank.from_tensors([SHAPE], size=16, device=device),
    "from_glyphs": lambda device: ObjectBank.from_glyphs("a", size=16, device=device),
    "objects from_folder": lambda device: ObjectBank.from_folder("nowhere", device=device),
    "contexts from_folder": lambda device: ContextBank.from_folder("nowhere", device=device),
    "contexts from_tensors": lambda device: ContextBank.from_tensors([SHAPE[:3]], size=16, device=device),
    "procedural": lambda device: ContextBank.procedural(count=1, size=16, device=device),
    "objects.to": lambda device: ObjectBank.from_glyphs("a", size=16).to(device),
    "contexts.to": lambda device: ContextBank.procedural(count=1, size=16).to(device),
    "recipe.objects": lambda device: DIGITS.objects(None, device=device),
    "recipe.contexts": lambda device: DIGITS.contexts(None, device=device),
    "load_network": lambda device: load_network("nowhere", device),
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("name", ["cuda:77", "tpu", "meta", "cpu:1", 3])
def test_a_device_that_is_not_there_is_our_own_error(make, name):
    with pytest.raises(InputError, match=r"^device: expected auto, or a device of this machine, .*, got "):
        make(name)


def test_the_way_out_is_said(monkeypatch):
    def missing(*_, **__):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", missing)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    way_out = r"this machine has no CUDA device\(s\) that torch can use\)\. Leave it at auto, or use cpu"
    with pytest.raises(InputError, match=rf"got 'cuda' \(Torch not compiled with CUDA enabled; {way_out}"):
        chosen_device("cuda")


def test_everything_is_where_auto_says():
    objects, contexts = ObjectBank.from_tensors([SHAPE]), ContextBank.procedural(count=2)
    assert {objects.device, contexts.device, CAGCollate(objects, contexts, 16).device} == {torch.device("cpu")}
    assert objects.to("auto").device == contexts.to("auto").device == torch.device("cpu")
