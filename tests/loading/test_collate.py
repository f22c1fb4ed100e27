import copy
import sys
import warnings
from dataclasses import replace

import kornia.augmentation
import pytest
import torch
from coded import alike
from conftest import make_contexts, make_objects
from devicewait import RefuseWaiting, no_waiting
from PIL import Image
from recorder import replaying
from torch import nn
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag import (
    FGSM,
    PGD,
    Batch,
    CAGCollate,
    ColorRange,
    ContextBank,
    ContextChain,
    HardPairing,
    InputError,
    ObjectBank,
    PairSampler,
    Ramp,
    Rows,
    SceneRange,
    Unkeyed,
)
from kornia_cag.core import memory
from kornia_cag.core.records import joined, mapped, tensors
from kornia_cag.scenes import chunks
from kornia_cag.scenes.composer import Composer
from kornia_cag.training.recipes import DIGITS, SIGNS

DRAWN = ("labels", "masks", "boxes", "visible", "objects", "contexts", "clean", "images", "rows", "scene", "targets")
RANGES = {
    "default": SceneRange(),
    "signs": SIGNS.ranges,
    "digits": DIGITS.ranges,
    "jpeg": SceneRange(camera=replace(SIGNS.ranges.camera, blur=1.0, jpeg=(20.0, 90.0))),
}


def small_model(device="cpu", size=16):
    """With batch statistics, dropout and pooling, so that an attack could leave traces."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(8 * 16, 5),
    ).to(device)  # fmt: skip


def sampler(objects, contexts, batch_size, **options):
    return PairSampler(objects.labels.cpu(), len(contexts), batch_size=batch_size, seed=5, **options)


def loader(pairs, collate, **options):
    return DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate, **options)


def resumable(pairs, collate):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)  # torchdata calls it
        return StatefulDataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)


def by_index(batches, fields=DRAWN):
    """The fields of all samples, in the order of their indices."""
    batches = list(batches)
    order = torch.cat([batch.index for batch in batches]).argsort()
    whole = {field: joined([getattr(batch, field) for batch in batches]) for field in fields}
    return {field: mapped(lambda tensor: tensor[order], record) for field, record in whole.items()}


def same(one, other):
    """Whether two records are the same to the bit; NaN is NaN."""
    pairs = zip(tensors(tuple(one)), tensors(tuple(other)), strict=True)
    return all(torch.equal(a.nan_to_num(nan=-9.0), b.nan_to_num(nan=-9.0)) for a, b in pairs)


def equal(one, other):
    return same(one.values(), other.values())


# --- end to end


def test_a_loader_yields_composed_pairs(objects, contexts, device):
    pairs = sampler(objects, contexts, 8, samples_per_class=7)
    seen = []
    for images, labels in loader(pairs, CAGCollate(objects, contexts, (20, 16))):
        assert images.shape == (len(labels), 3, 20, 16)
        assert images.dtype == torch.float32
        assert images.device.type == labels.device.type == device.type
        assert 0 <= images.amin() < images.amax() <= 1
        assert images.std(dim=0).mean() > 0.05  # they differ from each other
        seen.append(labels)
    assert [len(labels) for labels in seen] == [8, 8, 8, 8, 3]
    assert torch.bincount(torch.cat(seen)).tolist() == [7] * 5
    assert pairs.epoch == 1


def test_a_full_batch_tells_what_was_made(objects, contexts, device):
    pairs = sampler(objects, contexts, 8, samples_per_class=7)
    rows = next(iter(pairs))
    batch = CAGCollate(objects, contexts, 16, returns="batch")(rows)
    assert isinstance(batch, Batch)
    assert torch.equal(batch.rows.table.cpu(), rows.table)
    assert torch.equal(batch.objects, batch.rows.objects)
    assert torch.equal(batch.contexts, batch.rows.contexts)
    assert torch.equal(batch.index, batch.rows.index)
    assert torch.equal(batch.targets.labels, batch.labels[:, None])
    assert torch.equal(batch.targets.boxes[:, 0], batch.boxes)
    assert torch.equal(batch.targets.full, batch.masks)
    assert torch.equal(batch.labels, objects.labels[batch.objects])
    assert torch.equal(batch.images, batch.clean)
    assert not batch.chained.any()
    assert batch.chained.dtype == torch.bool
    assert batch.masks.shape == (8, 1, 16, 16)
    assert batch.attacked is None
    assert all(tensor.device.type == device.type for tensor in tensors(batch))
    for mask, box in zip(batch.masks[:, 0] > 0.5, batch.boxes, strict=True):
        y, x = mask.nonzero().unbind(1)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_the_object_lies_over_its_context(objects, contexts):
    """Over white and over black, the same rows differ by what the mask lets through."""
    white = ContextBank.from_tensors(torch.ones(7, 3, 32, 32), size=32, device=objects.device)
    black = ContextBank.from_tensors(torch.zeros(7, 3, 32, 32), size=32, device=objects.device)
    ranges = SceneRange(color=ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0)))
    rows = next(iter(sampler(objects, contexts, 35, samples_per_class=7)))
    one, other = (CAGCollate(objects, bank, 16, ranges=ranges, returns="batch")(rows) for bank in (white, black))
    torch.testing.assert_close(one.images - other.images, (1 - one.masks).expand(-1, 3, -1, -1), atol=1e-5, rtol=0)
    assert torch.equal(one.masks, other.masks)


def test_a_list_of_rows_is_a_batch(objects, contexts):
    rows = next(iter(sampler(objects, contexts, 6)))
    collate = CAGCollate(objects, contexts, 16)
    assert torch.equal(collate(list(rows))[0], collate(rows)[0])


def test_the_global_random_state_is_left_alone(objects, contexts, device):
    collate = CAGCollate(
        objects, contexts, 16, chain=ContextChain(0.3), model=small_model(device), adversaries=(FGSM(eps=0.1),)
    )
    rows = next(iter(sampler(objects, contexts, 6)))
    before = torch.get_rng_state()
    collate(rows)
    assert torch.equal(torch.get_rng_state(), before)


# --- replay


@pytest.fixture(params=RANGES)
def ranges(request):
    return RANGES[request.param]


def test_an_index_gives_the_same_sample_whatever_the_batch_size_and_rank_count(device, ranges):
    objects, contexts = make_objects(device), make_contexts(device, count=32)
    collate = CAGCollate(objects, contexts, 24, ranges=ranges, returns="batch")
    pictures = {"clean", "images"} if ranges is RANGES["jpeg"] and device.type == "cuda" else set()

    def agree(one, other):
        numbers = ({name: record[name] for name in record.keys() - pictures} for record in (one, other))
        return equal(*numbers) and all(alike(one[name], other[name]) for name in pictures)

    whole = by_index(map(collate, sampler(objects, contexts, 160)))
    assert whole["rows"].index.tolist() == list(range(160))
    for size in (8, 64):
        assert agree(whole, by_index(map(collate, sampler(objects, contexts, size))))
    ones = [batch for _, batch in zip(range(30), map(collate, sampler(objects, contexts, 1)), strict=False)]
    assert agree({field: mapped(lambda x: x[:30], value) for field, value in whole.items()}, by_index(ones))
    for world in (2, 4):
        ranks = [sampler(objects, contexts, 8, rank=rank, world_size=world) for rank in range(world)]
        assert agree(whole, by_index(collate(rows) for rank in ranks for rows in rank))


def test_epoch_and_seed_give_other_samples(objects, contexts):
    collate = CAGCollate(objects, contexts, 16, returns="batch")
    rows = next(iter(sampler(objects, contexts, 8)))
    steps = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    drawn = [collate(Rows(rows.table + torch.tensor([0, 0, *step]))).clean for step in steps]
    for i in range(4):
        for j in range(i):
            assert (drawn[i] != drawn[j]).flatten(1).any(dim=1).all()


def test_a_sample_on_a_fresh_context_is_the_same_with_a_chain(objects, contexts):
    rows = list(sampler(objects, contexts, 7, samples_per_class=7))
    plain = by_index(map(CAGCollate(objects, contexts, 16, returns="batch"), rows))
    chained = by_index(
        map(CAGCollate(objects, contexts, 16, chain=ContextChain(0.4), returns="batch"), rows), (*DRAWN, "chained")
    )
    fresh = ~chained.pop("chained")
    assert 5 < fresh.sum() < 30
    assert torch.equal(plain["clean"][fresh], chained["clean"][fresh])
    assert not torch.equal(plain["clean"][~fresh], chained["clean"][~fresh])
    assert torch.equal(plain["masks"], chained["masks"])


def hardened(device, ranges=SIGNS.ranges, **options):
    objects, contexts = make_objects(device), make_contexts(device, count=6)
    attack = PGD(eps=0.1, eps_object=0.02, steps=2, fraction=0.7)
    collate = CAGCollate(objects, contexts, 16, ranges=ranges, chain=ContextChain(0.2), model=small_model(device),
                         adversaries=(attack,), returns="batch", **options)  # fmt: skip
    return PairSampler(objects.labels.cpu(), 6, batch_size=8, seed=5), collate


def test_two_runs_with_chain_and_attack_are_bit_identical(device):
    runs = []
    for _ in range(2):
        pairs, collate = hardened(device, strength=Ramp(start=0, stop=2))
        runs.append([batch for _ in range(3) for batch in loader(pairs, collate)])
    assert len(runs[0]) == 12
    assert same(*runs)
    assert sum(int(batch.chained.sum()) for batch in runs[0]) > 20


# --- resume


def take(batches, loader, count):
    """Draw up to ``count`` batches in all, over as many epochs as it takes."""
    while len(batches) < count:
        for batch in loader:
            batches.append(batch)
            if len(batches) == count:
                break
    return batches


@pytest.mark.parametrize("stop", range(9))
def test_stopping_after_any_batch_and_going_on_is_bit_identical(stop, tmp_path):
    """Epochs of four batches; chain and attack; the state goes through a file."""
    pairs, collate = hardened("cpu")
    want = take([], resumable(pairs, collate), 10)
    pairs, collate = hardened("cpu")
    batches = resumable(pairs, collate)
    got = take([], batches, stop)
    torch.save({"loader": batches.state_dict(), "collate": collate.state_dict()}, tmp_path / "state.pt")

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    pairs, collate = hardened("cpu")
    batches = resumable(pairs, collate)
    batches.load_state_dict(state["loader"])
    collate.load_state_dict(state["collate"])
    take(got, batches, 10)
    assert len(pairs) == 4
    assert same(want, got)


def test_without_the_chain_s_state_the_batches_would_differ():
    """The comparison above can tell: the chain carries something that the rows do not."""
    pairs, collate = hardened("cpu")
    want = take([], resumable(pairs, collate), 3)
    pairs, collate = hardened("cpu")
    batches = resumable(pairs, collate)
    take([], batches, 2)
    collate.chain.clear()
    got = next(iter(batches))
    assert not torch.equal(got.images, want[2].images)


@pytest.mark.cuda
def test_a_state_moves_to_the_collate_s_device(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pairs, collate = hardened("cuda")
    rows = list(pairs)
    collate(rows[0])
    torch.save(collate.state_dict(), tmp_path / "state.pt")
    want = collate(rows[1])
    _, again = hardened("cuda")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True, map_location="cpu"))
    assert torch.equal(again(rows[1]).images, want.images)


# --- no file, no waiting


opened: list[str] = []
watching = [False]


def watch(event, arguments):
    if watching[0] and event in ("open", "os.listdir", "os.scandir", "socket.connect"):
        opened.append(f"{event} {arguments[0]}")


sys.addaudithook(watch)


def test_no_file_is_opened_while_batches_are_drawn(tmp_path):
    for i in range(3):
        for kind, mode, color in (("objects", "RGBA", (255, 0, 0, 0)), ("contexts", "RGB", (0, 80 * i, 0))):
            (tmp_path / kind).mkdir(exist_ok=True)
            picture = Image.new(mode, (40, 40), color)
            picture.paste((80 * i, 9, 200, 255)[: len(mode)], (5, 5, 35, 20 + 5 * i))
            picture.save(tmp_path / kind / f"{i}.png")
    objects = ObjectBank.from_folder(tmp_path / "objects", size=32)
    contexts = ContextBank.from_folder(tmp_path / "contexts", size=32) + ContextBank.procedural(count=9, size=32)
    collate = CAGCollate(objects, contexts, 16, ranges=RANGES["jpeg"], chain=ContextChain(0.3),
                         model=small_model(), adversaries=(PGD(eps=0.05, steps=2),))  # fmt: skip
    batches = resumable(sampler(objects, contexts, 4), collate)
    list(batches)  # modules that torch imports on first use
    opened.clear()
    watching[0] = True
    try:
        drawn = list(batches)
        seen = list(opened)
        (tmp_path / "objects" / "0.png").open("rb").close()
    finally:
        watching[0] = False
    assert len(drawn) == 3
    assert seen == []
    assert len(opened) == 1  # the watch was awake


@pytest.mark.parametrize("returns", ["pair", "batch"])
def test_nothing_waits_for_the_device(device, ranges, returns, monkeypatch):
    # Kornia's codec reads numbers that never leave the host; here, host and device look alike.
    monkeypatch.setattr("kornia_cag.scenes.jpeg.jpeg_codec_differentiable", lambda picture, *_: picture)
    objects, contexts = make_objects(device), make_contexts(device)
    attack = PGD(eps=0.1, eps_object=0.02, steps=2, fraction=0.5)
    collate = CAGCollate(objects, contexts, 16, ranges=ranges, chain=ContextChain(0.3), model=small_model(device),
                         adversaries=(attack,), strength=Ramp(start=0, stop=2), returns=returns)  # fmt: skip
    rows = list(sampler(objects, contexts, 8, samples_per_class=7))
    with RefuseWaiting():
        for some in (*rows[:2], rows[-1], rows[0][:1]):  # full, small, one
            collate(some)


@pytest.mark.cuda
def test_cuda_never_synchronises(ranges):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pairs, collate = hardened("cuda", ranges)
    batches = list(pairs)
    for _ in range(2):  # by now it is captured
        collate(batches[0])
    with no_waiting():
        for rows in batches:
            collate(rows)


# --- workers


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on one core
def test_workers_give_the_same_batches(ranges):
    objects, contexts = make_objects(), make_contexts()
    collate = CAGCollate(objects, contexts, 16, ranges=ranges)
    plain, forked = (
        list(loader(sampler(objects, contexts, 16, samples_per_class=7), collate, num_workers=n)) for n in (0, 2)
    )
    assert len(plain) == 3
    for (images, labels), (others, other_labels) in zip(plain, forked, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


# --- strength


def test_a_ramp_is_the_strength_of_its_epoch(objects, contexts):
    ramp, none, half, full = (
        CAGCollate(objects, contexts, 16, strength=s, returns="batch") for s in (Ramp(start=0, stop=4), 0.0, 0.5, 1)
    )
    rows = next(iter(sampler(objects, contexts, 8)))
    for epoch, constant in ((0, none), (2, half), (4, full), (9, full)):
        rows.table[:, 3] = epoch
        assert torch.equal(ramp(rows).images, constant(rows).images)
    assert not torch.equal(half(rows).images, full(rows).images)


def test_without_strength_all_poses_are_neutral(objects, contexts):
    """The same object twice: the same mask, in the middle."""
    rows = next(iter(sampler(objects, contexts, 8)))
    rows = rows.replaced(objects=torch.ones_like(rows.objects))
    masks = CAGCollate(objects, contexts, 16, strength=0.0, returns="batch")(rows).masks
    assert torch.equal(masks, masks[:1].expand_as(masks))
    torch.testing.assert_close(masks, masks.flip(3), atol=1e-3, rtol=0)


# --- stages after the camera


def test_a_kornia_augmentation_after_the_camera(objects, contexts, device):
    ranges = SceneRange(finish=(Unkeyed(kornia.augmentation.RandomGaussianBlur((5, 5), (2.0, 2.0), p=1.0)),))
    rows = next(iter(sampler(objects, contexts, 8)))
    plain = CAGCollate(objects, contexts, 16, returns="batch")(rows)
    torch.manual_seed(1)
    blurred = CAGCollate(objects, contexts, 16, ranges=ranges, returns="batch")(rows)
    torch.manual_seed(1)
    again = CAGCollate(objects, contexts, 16, ranges=ranges, returns="batch")(rows)
    assert torch.equal(blurred.images, again.images)

    def roughness(images):
        return (images[..., 1:] - images[..., :-1]).abs().mean()

    assert roughness(blurred.images) < 0.8 * roughness(plain.images)
    assert torch.equal(blurred.masks, plain.masks)


def finishing(change):
    return SceneRange(finish=(lambda images, keys: change(images),))


def test_a_stage_is_clamped_and_comes_before_the_attack(objects, contexts, device):
    collate = CAGCollate(objects, contexts, 16, ranges=finishing(lambda x: 3 * x - 1), model=small_model(device),
                         adversaries=(FGSM(eps=0.01),), returns="batch")  # fmt: skip
    batch = collate(next(iter(sampler(objects, contexts, 8))))
    assert (batch.clean.amin(), batch.clean.amax()) == (0, 1)
    assert 0 < (batch.images - batch.clean).abs().max() <= 0.01 + 1e-7


@pytest.mark.parametrize("change", [lambda x: x[..., 1:], lambda x: x.byte(), lambda x: x[:, :1], lambda x: None])
def test_a_stage_that_changes_more_than_values_is_refused(objects, contexts, change):
    collate = CAGCollate(objects, contexts, 16, ranges=finishing(change))
    with pytest.raises(InputError, match=r"finish\[0\]: expected float16 .* \(8, 3, 16, 16\).*keep shape and device"):
        collate(next(iter(sampler(objects, contexts, 8))))


# --- the attack


@pytest.mark.parametrize("attack", [PGD(eps=0.1, eps_object=0.02, steps=3), PGD(eps=0.06, eps_object=0.0, steps=2),
                                    FGSM(eps=0.05)])  # fmt: skip
def test_the_attack_stays_in_its_budget_and_leaves_the_model_as_it_was(objects, contexts, device, attack):
    model = small_model(device)
    model[0].weight.requires_grad_(False)
    model[3].eval()
    before = copy.deepcopy(model.state_dict())
    flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    collate = CAGCollate(objects, contexts, 16, model=model, adversaries=(attack,), returns="batch")
    for rows in sampler(objects, contexts, 18, samples_per_class=7):
        batch = collate(rows)
        inner = attack.eps if attack.eps_object is None else attack.eps_object
        budget = attack.eps * (1 - batch.masks) + inner * batch.masks
        moved = (batch.images - batch.clean).abs()
        assert (moved <= budget + 1e-7).all()
        assert (moved.amax(dim=(1, 2, 3)) > 0.5 * attack.eps).all()
        assert batch.images.amin() >= 0
        assert batch.images.amax() <= 1
        assert not batch.images.requires_grad
        if inner == 0:
            inside = (batch.masks == 1).expand_as(moved)
            assert inside.any()
            assert torch.where(inside, moved, 0).amax() == 0
    assert flags == ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()])
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_attack_raises_the_loss(objects, contexts, device):
    model = small_model(device).eval()
    collate = CAGCollate(objects, contexts, 16, model=model, adversaries=(PGD(eps=0.1, steps=3),),
                         returns="batch")  # fmt: skip
    batch = collate(next(iter(sampler(objects, contexts, 35, samples_per_class=7))))
    with torch.no_grad():
        clean, attacked = (nn.functional.cross_entropy(model(x), batch.labels) for x in (batch.clean, batch.images))
    assert attacked > clean + 0.01


# --- a twin


def test_a_twin_leaves_no_trace():
    """Neither in the chain nor in its pairing, the count of photos, or memory that is used again."""
    objects, contexts = make_objects(), make_contexts()
    hard = HardPairing(5, decay=0.5)
    chain = ContextChain(0.2, pairing=hard, warm_start=True)
    collate = CAGCollate(objects, contexts, 16, chain=chain, model=small_model(), adversaries=(PGD(eps=0.1, steps=1),),
                         returns="batch")  # fmt: skip
    rows = next(iter(sampler(objects, contexts, 8)))
    collate(rows)
    hard.observe(torch.eye(5), torch.arange(5))
    kept, before = collate(photos(8)), copy.deepcopy(collate.state_dict())
    pictures = mapped(torch.clone, kept)
    other = small_model()
    other[0].weight.data.mul_(-1)
    twin = collate.twin(other)
    assert twin.model is other
    seen = twin(photos(8))
    twin.chain.pairing.observe(torch.ones(5, 5), torch.arange(5))
    twin(rows)
    now = collate.state_dict()
    assert now["photos"] == before["photos"]
    assert same(tuple(now["chain"][name] for name in ("images", "labels", "changes")),
                tuple(before["chain"][name] for name in ("images", "labels", "changes")))  # fmt: skip
    assert all(
        torch.equal(now["chain"]["pairing"][name], before["chain"]["pairing"][name]) for name in ("running", "shown")
    )
    assert same(kept, pictures)
    again = collate(photos(8))  # what the twin was given first
    assert torch.equal(again.rows.table, seen.rows.table)
    assert torch.equal(again.clean, seen.clean)
    assert not torch.equal(again.images, seen.images)  # another model


# --- the items of a data set


def photos(count=23):
    """Pictures of one value each, so that a pixel tells the photo."""
    return [torch.full((3, 20 + i % 3, 24), 10 * i, dtype=torch.uint8) for i in range(count)]


PLAIN = replace(SceneRange(), color=replace(SceneRange().color, brightness=(1, 1), contrast=(1, 1)))


def test_a_data_set_s_images_become_contexts(objects, device):
    collate = CAGCollate(objects, None, (20, 16), ranges=PLAIN, strength=0.0, returns="batch")
    for batch_size, batches in ((8, [8, 8, 7]), (1, [1] * 23)):
        seen = list(DataLoader(photos(), batch_size=batch_size, collate_fn=collate))
        assert [len(batch.labels) for batch in seen] == batches
        assert all(tensor.device.type == device.type for tensor in tensors(seen[0]))
        values = torch.cat([batch.images[:, :, 0, 0] for batch in seen])
        want = torch.arange(23, device=device)[:, None].expand(-1, 3) * 10 / 255
        torch.testing.assert_close(values, want)
    batch = seen[0]
    assert batch.images.shape == (1, 3, 20, 16)
    assert batch.contexts.tolist() == [0]
    assert torch.equal(batch.labels, objects.labels[batch.objects])


def test_kinds_of_items(objects, device):
    """The same picture in every wrapping is the same context."""
    array = torch.arange(24, dtype=torch.uint8)[:, None].expand(24, 36) * 7
    picture = array.expand(3, -1, -1)
    pil = Image.fromarray(array.numpy())
    kinds = [
        picture, picture.float() / 255, array[None], pil, pil.convert("RGB"), (picture, 3), [5, "name", picture],
        {"label": torch.tensor(1), "image": pil, "mask": array[None] * 0},
    ]  # fmt: skip
    for kind in kinds:
        collate = CAGCollate(objects, make_contexts(device), 16, seed=3)  # the items go before the bank
        images, labels = collate([kind] * 4)
        if kind is picture:
            first = images
        assert torch.equal(images, first)
        assert sorted(labels.tolist()) == sorted(set(labels.tolist()))


def drawn(seed=0, epoch=None, batch_size=7):
    collate = CAGCollate(make_objects(), None, 16, returns="batch", seed=seed)
    if epoch is not None:
        collate.set_epoch(epoch)
    return by_index(DataLoader(photos(), batch_size=batch_size, collate_fn=collate))


def test_items_repeat_with_seed_and_epoch():
    one = drawn()
    assert one["rows"].index.tolist() == list(range(23))
    assert equal(one, drawn())
    assert equal(one, drawn(epoch=0))
    for other in (drawn(seed=1), drawn(epoch=1)):
        assert not torch.equal(one["objects"], other["objects"])
        assert (one["masks"] != other["masks"]).flatten(1).any(dim=1).all()
    assert torch.equal(one["objects"], drawn(batch_size=5)["objects"])  # which photo it meets depends on the batch
    assert torch.equal(one["masks"], drawn(batch_size=5)["masks"])


def test_stopping_and_going_on_with_items_is_bit_identical(tmp_path):
    def collate():
        return CAGCollate(make_objects(), None, 16, chain=ContextChain(0.2), returns="batch", seed=4)

    batches = [photos()[i : i + 7] for i in (0, 7, 14)] * 2
    whole = collate()
    whole.set_epoch(3)
    want = [whole(items) for items in batches]
    first = collate()
    first.set_epoch(3)
    for items in batches[:4]:
        first(items)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again = collate()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for items, batch in zip(batches[4:], want[4:], strict=True):
        assert same(again(items), batch)
    assert any(batch.chained.any() for batch in want)


def test_items_are_never_recorded_as_their_bank_comes_once():
    objects, contexts = make_objects(), make_contexts()
    collate, eager = (CAGCollate(objects, contexts, 16, returns="batch") for _ in range(2))
    recorder = replaying(collate)
    made = [(collate(photos(7)), eager(photos(7))) for _ in range(4)]
    assert all(same(one, other) for one, other in made)
    assert not recorder.recorded
    rows = next(iter(sampler(objects, contexts, 7)))
    assert all(same(collate(rows), eager(rows)) for _ in range(3))
    assert len(recorder.recorded) == 1


def test_items_in_a_worker_are_refused_and_the_way_out_works():
    collate = CAGCollate(make_objects(), None, 16)
    with pytest.raises(InputError, match=r"num_workers: expected 0 with the items.*pass collate_fn=list"):
        next(iter(DataLoader(photos(), batch_size=8, collate_fn=collate, num_workers=1)))
    for items in DataLoader(photos(8), batch_size=8, collate_fn=list, num_workers=1):
        assert collate(items)[0].shape == (8, 3, 16, 16)


@pytest.mark.cuda
def test_cuda_never_synchronises_on_items():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    collate = CAGCollate(make_objects("cuda"), None, 16)
    collate(photos())
    with no_waiting():
        collate(photos())


# --- misuse


@pytest.mark.parametrize(
    ("rows", "got"),
    [
        (
            lambda: Rows(torch.zeros(4, 3, dtype=torch.int64)),
            r"at least one row of 5 or more columns, got int64 \(4, 3\)",
        ),
        (lambda: Rows(torch.zeros(4, 5)), r"float32 \(4, 5\)"),
        (lambda: Rows(torch.zeros(5, dtype=torch.int64)), r"int64 \(5,\)"),
        (lambda: Rows(torch.zeros(0, 5, dtype=torch.int64)), r"at least one row .*got int64 \(0, 5\)"),
        (lambda: torch.zeros(4, 5, dtype=torch.int64), r"int64 \(4, 5\)"),
        (list, r"got \[\]"),
        (lambda: [torch.zeros(4, 5, dtype=torch.int64)] * 2, r"got a list that begins with int64 \(4, 5\)"),
    ],
)
def test_collate_of_something_else_than_rows(rows, got, untyped):
    with pytest.raises(InputError, match=rf"rows(\.table)?: .*{got}.*batch_sampler=pairs"):
        CAGCollate(make_objects(), make_contexts(), 16)(rows())


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 5, "object ids from 0 to 4, got 0 to 5"),
        (0, -1, "object ids from 0 to 4, got -1 to 0"),
        (1, 7, "context ids from 0 to 6, got 0 to 7"),
        (1, -1, "context ids from 0 to 6, got -1 to 0"),
    ],
)
def test_rows_of_other_banks_are_refused(column, value, message):
    rows = torch.zeros(4, 5, dtype=torch.int64)
    rows[2, column] = value
    with pytest.raises(InputError, match=rf"rows: expected {message}\. Build the PairSampler with"):
        CAGCollate(make_objects(), make_contexts(), 16)(Rows(rows))


@pytest.mark.cuda
def test_cuda_batches_are_not_pinned():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    objects, contexts = make_objects("cuda"), make_contexts("cuda")
    with pytest.raises(InputError, match="pin_memory: expected False"):
        next(iter(loader(sampler(objects, contexts, 8), CAGCollate(objects, contexts, 16), pin_memory=True)))


def test_repr():
    collate = CAGCollate(make_objects(), make_contexts(), (20, 16), chain=ContextChain(0.5))
    for part in ("ObjectBank(objects=5", "size=(20, 16)", "ContextChain(reset=0.5, slots=0)", "adversaries=()"):
        assert part in repr(collate)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8])
def test_other_formats_hold_the_same_pictures(objects, contexts, device, dtype):
    rows = next(iter(sampler(objects, contexts, 8)))
    plain = CAGCollate(objects, contexts, (16, 20), returns="batch")(rows)
    batch = CAGCollate(objects, contexts, (16, 20), returns="batch", dtype=dtype, channels_last=True)(rows)
    assert (batch.images.dtype, batch.images.shape) == (dtype, plain.images.shape)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    found = batch.images.float() / (255 if dtype == torch.uint8 else 1)
    assert (found - plain.images).abs().max() < 1 / 255
    assert torch.equal(batch.masks, plain.masks)


def test_a_chain_of_bytes(objects, contexts, device):
    """What stands around the object is the earlier composite, bit for bit, also in uint8."""
    collate = CAGCollate(objects, contexts, 16, chain=ContextChain(0.0), returns="batch", dtype=torch.uint8)
    first, second = (collate(rows) for rows in list(sampler(objects, contexts, 10))[:2])
    assert second.chained.any()
    outside = (second.masks == 0).expand_as(second.images) & second.chained[:, None, None, None]
    assert torch.equal(second.images[outside], first.images[outside])


@pytest.mark.parametrize("options", [{}, {"dtype": torch.uint8, "channels_last": True}, {"returns": "pair"}], ids=str)
def test_a_batch_made_in_parts_is_the_same(monkeypatch, options):
    """A chain, an odd batch, all fields and formats."""
    objects, contexts = make_objects(), make_contexts()

    def run():
        collate = CAGCollate(objects, contexts, (16, 20), ranges=SIGNS.ranges, chain=ContextChain(0.3),
                             **{"returns": "batch"} | options)  # fmt: skip
        return [collate(rows) for rows in sampler(objects, contexts, 17)]

    whole = run()
    calls = []
    make = Composer.shoot
    monkeypatch.setattr(chunks, "PIXELS", 16 * 20 * 4)
    monkeypatch.setattr(Composer, "shoot", lambda *given, **o: calls.append(len(given[1].keys)) or make(*given, **o))
    for one, other in zip(whole, run(), strict=True):
        assert same(one, other)
        assert [x.dtype for x in tensors(one)] == [x.dtype for x in tensors(other)]
        assert one.images.stride() == other.images.stride()
    assert max(calls) < 17


@pytest.mark.parametrize("returns", ["pair", "batch"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_that_are_held_stay_as_they_are(monkeypatch, objects, contexts, returns, channels_last):
    """Memory is used again, in parts or whole, but none that anybody still reads; and its owner may write to it."""
    monkeypatch.setattr(memory, "LARGE", 1)
    monkeypatch.setattr(chunks, "PIXELS", 16 * 16 * 4)
    collate = CAGCollate(objects, contexts, 16, returns=returns, channels_last=channels_last, chain=ContextChain(0.3),
                         graph=False)  # fmt: skip
    first, *rest = sampler(objects, contexts, 12)
    held, places = collate(first), set()
    before = mapped(torch.clone, held)
    for rows in rest[:4] * 2:
        places |= {tuple(tensor.data_ptr() for tensor in held._replace(**collate(rows)._asdict())[:1])}
    assert len(places) <= 2 or held.images.device.type == "cuda"  # where torch has its own way with memory
    assert same(held, before)
    weight = torch.ones(1, device=objects.device, requires_grad=True)
    held.images.mul_(weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_surrounding_autocast_changes_no_sample(objects, contexts, device, dtype):
    ranges = SceneRange(camera=replace(SIGNS.ranges.camera, blur=1.0))
    rows = next(iter(sampler(objects, contexts, 8)))
    plain = CAGCollate(objects, contexts, 16, ranges=ranges)(rows)
    with torch.autocast(device.type, dtype):
        cast = CAGCollate(objects, contexts, 16, ranges=ranges)(rows)
    assert torch.equal(plain.images, cast.images)
