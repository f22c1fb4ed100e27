"""What a collate refuses: arguments of another kind, that do not fit together, or that cannot work where it runs."""

import math

import pytest
import torch
from conftest import make_contexts, make_objects
from recorder import Strict
from torch import nn
from torch.utils.data import DataLoader

from kornia_cag import (
    FGSM,
    PGD,
    CAGCollate,
    CameraRange,
    ContextBank,
    ContextChain,
    External,
    HardPairing,
    InputError,
    PairSampler,
    PoseRange,
    Recapture,
    Rows,
    SceneRange,
)
from kornia_cag.loading import arguments


def loader(objects, contexts, collate, **options):
    pairs = PairSampler(objects.labels.cpu(), len(contexts), batch_size=8, seed=5)
    return DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate, **options)


def test_state_of_another_collate_is_refused(objects, contexts, untyped):
    chained, plain = (CAGCollate(objects, contexts, 16, chain=chain) for chain in (ContextChain(), None))
    with pytest.raises(InputError, match="state: expected the state of a collate with a chain, got none"):
        chained.load_state_dict(plain.state_dict())
    with pytest.raises(InputError, match="state: expected the state of a collate with no chain, got one"):
        plain.load_state_dict(chained.state_dict())
    plain.load_state_dict(plain.state_dict())
    with pytest.raises(InputError, match="state: expected the state of a collate with seed=1, got seed=0"):
        CAGCollate(objects, contexts, 16, seed=1).load_state_dict(plain.state_dict())
    for photos in (None, {}, {"seed": 0}):
        with pytest.raises(InputError, match=r"state\['photos'\]: expected seed, epoch and index"):
            plain.load_state_dict({**plain.state_dict(), "photos": photos})
    with pytest.raises(InputError, match=r"draft: expected Draft, got None\. Pass the result of collate\.compose"):
        plain.harden(None)
    with pytest.raises(InputError, match=r"state: expected the state_dict of a CAGCollate, got \{\}"):
        plain.load_state_dict({})


@pytest.mark.parametrize("what", ["a chain", "adversaries"])
def test_a_worker_with_chain_or_adversaries_is_refused(what):
    objects, contexts = make_objects(), make_contexts()
    hard = {"model": nn.Flatten(), "adversaries": (FGSM(eps=0.1),)}
    options = {"chain": ContextChain()} if what == "a chain" else hard
    collate = CAGCollate(objects, contexts, 16, **options)
    with pytest.raises(InputError, match=rf"num_workers: expected 0 with {what}.*pass num_workers=0"):
        next(iter(loader(objects, contexts, collate, num_workers=1)))


def test_a_worker_with_a_compiled_collate_is_refused():
    objects, contexts = make_objects(), make_contexts()
    collate = CAGCollate(objects, contexts, 16, compile=True)
    with pytest.raises(InputError, match="num_workers: expected 0 with compile=True"):
        list(loader(objects, contexts, collate, num_workers=1))


@pytest.mark.cuda
def test_a_worker_with_banks_on_a_gpu_is_refused():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    objects, contexts = make_objects("cuda"), make_contexts("cuda")
    with pytest.raises(InputError, match=r"num_workers: expected 0 with banks on a GPU.*pin_memory=False"):
        next(iter(loader(objects, contexts, CAGCollate(objects, contexts, 16), num_workers=1)))


def test_rows_without_a_bank_of_contexts_are_refused():
    collate = CAGCollate(make_objects(), None, 16)
    with pytest.raises(InputError, match=r"contexts: expected a bank of contexts for the rows.*Pass contexts=\.\.\."):
        collate(Rows(torch.zeros(4, 5, dtype=torch.int64)))
    assert "None, size=(16, 16)" in repr(collate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"adversaries": (FGSM(eps=0.1),)},
            r"model: expected the model to attack, got None\. Pass model=\.\.\., or leave out the PGD\.",
        ),
        ({"seed": -1}, "seed: expected an integer of at least 0"),
        ({"size": 0}, "size: expected an integer of at least 1, got 0"),
        ({"size": "32"}, "size: expected a positive integer or"),
        ({"size": (16, 16, 3)}, "size: expected a positive integer or"),
        ({"strength": 1.5}, r"strength: expected a number in \[0, 1\], got 1.5"),
        ({"strength": math.nan}, "strength: "),
        ({"returns": "triple"}, "returns: expected one of 'pair', 'batch', got 'triple'"),
        (
            {"contexts": ContextBank(make_contexts().pyramid.to("meta"))},
            r"contexts: expected a bank on cpu.*contexts.to\('cpu'\)",
        ),
    ],
)
def test_collate_of_bad_options(options, message, untyped):
    with pytest.raises(InputError, match=message):
        CAGCollate(**{"objects": make_objects(), "contexts": make_contexts(), "size": 16, **options})


def test_a_model_elsewhere_than_the_banks_is_refused():
    collate = CAGCollate(
        make_objects(), make_contexts(), 16, model=nn.Linear(2, 2, device="meta"), adversaries=(FGSM(eps=0.1),)
    )
    with pytest.raises(InputError, match=r"model: expected a model on cpu.*got one on meta\. .*model\.to\('cpu'\)"):
        collate(Rows(torch.zeros(4, 5, dtype=torch.int64)))


@pytest.mark.parametrize(("stage", "words"), [("attack", "adversaries"), ("finish", r"finish=\.\.\.")])
def test_bytes_are_no_images_for_an_adversary_or_a_stage_after_the_camera(objects, contexts, device, stage, words):
    options = {"model": nn.Flatten(), "adversaries": (FGSM(eps=0.1),)}
    if stage == "finish":
        options = {"ranges": SceneRange(finish=(lambda images, keys: images,))}
    with pytest.raises(InputError, match=rf"dtype: expected a float dtype with {words}, got torch\.uint8"):
        CAGCollate(objects, contexts, 16, dtype=torch.uint8, **options)


@pytest.mark.usefixtures("untyped")
def test_a_dtype_that_is_none_is_refused(objects, contexts):
    with pytest.raises(InputError, match=r"dtype: expected .*, got torch\.float64"):
        CAGCollate(objects, contexts, 16, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "value"), [("ranges", PoseRange()), ("chain", 0.2), ("contexts", "photos"), ("objects", None)]
)
@pytest.mark.usefixtures("untyped")
def test_arguments_of_another_kind_are_refused_at_once(objects, contexts, name, value):
    arguments = {"objects": objects, "contexts": contexts, "size": 16, name: value}
    with pytest.raises(InputError, match=rf"^{name}: expected"):
        CAGCollate(**arguments)


def test_a_warm_start_is_of_an_attack_that_takes_one(objects, contexts):
    with pytest.raises(InputError, match="adversaries: expected a PGD, since the chain has warm_start, got none"):
        CAGCollate(objects, contexts, 16, chain=ContextChain(warm_start=True))


def test_a_pairing_of_other_classes_is_refused(objects, contexts, untyped):
    with pytest.raises(InputError, match=r"chain: expected a HardPairing of 5 classes, .*, got one of 4"):
        CAGCollate(objects, contexts, 16, chain=ContextChain(pairing=HardPairing(4)))


def test_a_warm_start_behind_another_attack_fits(objects, contexts):
    """What takes it may stand anywhere; an attack that does not is named."""
    other, chain = External(lambda images, labels: images), ContextChain(warm_start=True)
    with pytest.raises(InputError, match=r"adversaries: expected a PGD, since the chain has warm_start, got External"):
        CAGCollate(objects, contexts, 16, chain=chain, adversaries=(other,))
    CAGCollate(objects, contexts, 16, chain=chain, model=nn.Flatten(), adversaries=(other, PGD(eps=0.1)))


@pytest.mark.parametrize("name", ["attack", "scene_attack", "extra"])
def test_arguments_of_earlier_times_are_refused(objects, contexts, name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        CAGCollate(objects, contexts, 16, **{name: None})


def test_a_graph_is_captured_on_a_gpu(objects, contexts):
    if objects.device.type == "cuda":
        CAGCollate(objects, contexts, 16, graph=True)
        return
    with pytest.raises(
        InputError, match=r"graph: expected banks on a CUDA device, got banks on cpu\. Leave graph=True out"
    ):
        CAGCollate(objects, contexts, 16, graph=True)


def test_composition_is_captured_on_a_gpu_by_itself(monkeypatch):
    monkeypatch.setattr(arguments, "CudaRecorder", lambda device: Strict())
    gpu, cpu, jpeg = torch.device("cuda"), torch.device("cpu"), CameraRange(jpeg=(50, 90))
    plain, coded = SceneRange(finish=(Recapture(camera=jpeg),)), SceneRange(camera=jpeg)
    for device, ranges, graph, captured in (
        (gpu, plain, None, True), (gpu, plain, True, True), (gpu, plain, False, False), (cpu, plain, None, False),
        (gpu, coded, None, False),
    ):  # fmt: skip
        for compiles in (False, True):
            made = arguments.renderer(device, ranges, compile=compiles, graph=graph)
            assert (made._captures is not None) == captured
            assert made.compiled == compiles
    with pytest.raises(InputError, match=r"graph: expected ranges without JPEG.*, got jpeg=\(50, 90\)\..*finish="):
        arguments.renderer(gpu, coded, compile=False, graph=True)
