"""Stages of one's own, other libraries' attacks, and stages one after the other."""

import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import make_contexts, make_objects
from torch import nn
from torch.utils.data import DataLoader

from kornia_cag import (
    FGSM,
    PGD,
    Adversary,
    CAGCollate,
    ContextChain,
    Draft,
    External,
    InputError,
    PairSampler,
    Prefetcher,
    Rows,
    ScenePGD,
    WorstOf,
)
from kornia_cag.core.records import tensors
from kornia_cag.scenes import front

SIZE = 16


class Linear(nn.Module):
    """Logits of 5 classes whose losses rise all the way along a gradient."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(0.1 * torch.randn(5, 3 * SIZE * SIZE, generator=generator))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


class Veil(Adversary):
    """Ten lines: grey over the context of the samples that the model is sure of."""

    needs_targets = True

    def harden(self, model, draft):
        sure = model(draft.pictures).softmax(dim=1).amax(dim=1) > 0.2
        veiled = torch.lerp(draft.pictures, torch.full_like(draft.pictures, 0.5), 0.5 * (1 - draft.mask))
        return draft.with_images(torch.where(sure[:, None, None, None], veiled, draft.pictures), sure)


class Swap(Adversary):
    """Only plans: every sample lies over the context of the next one."""

    needs_model = False

    def plan(self, draft):
        return replace(draft, rows=draft.rows.replaced(contexts=draft.rows.contexts.roll(1)))


def collated(*adversaries, net=None, **options):
    options = {"returns": "batch", "model": net or Linear(), **options}
    return CAGCollate(make_objects(), make_contexts(), SIZE, adversaries=adversaries, **options)


def rows_of(count=20):
    return next(iter(PairSampler(make_objects().labels, 7, batch_size=count, seed=5)))


def losses(net, images, labels):
    with torch.no_grad():
        return F.cross_entropy(net(images), labels, reduction="none")


# --- a stage of one's own


@pytest.mark.parametrize("count", [1, 20])
def test_a_stage_of_one_s_own_changes_pixels(count):
    plain, batch = collated()(rows_of(count)), collated(Veil())(rows_of(count))
    assert torch.equal(batch.clean, plain.images)
    veiled = torch.lerp(plain.images, torch.full_like(plain.images, 0.5), 0.5 * (1 - plain.masks))
    assert batch.attacked.any()
    assert torch.equal(batch.images, torch.where(batch.attacked[:, None, None, None], veiled, plain.images))
    assert not batch.images.requires_grad


def test_a_stage_of_one_s_own_beside_the_others():
    net = Linear()
    scenes, pixels = ScenePGD(steps=1), PGD(eps=0.05, steps=2)
    batch = collated(scenes, Veil(), pixels, net=net)(rows_of())
    veiled = collated(scenes, Veil(), net=net)(rows_of())
    assert torch.equal(batch.clean, collated(scenes, net=net)(rows_of()).images)
    assert torch.equal(batch.images, pixels(net, veiled.images, batch.labels, keys=batch.scene.keys))
    assert batch.attacked.all()


def test_a_stage_of_one_s_own_in_a_prefetcher():
    pairs = PairSampler(make_objects().labels, 7, batch_size=8, seed=5)
    collate = collated(Swap(), Veil(), FGSM(eps=0.1), chain=ContextChain(0.2))
    want = list(DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate))
    pairs, collate = (
        PairSampler(make_objects().labels, 7, batch_size=8, seed=5),
        collated(*collate.adversaries, chain=ContextChain(0.2)),
    )
    got = list(Prefetcher(DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate.compose), collate))
    assert len(got) == len(want) > 3
    for one, other in zip(want, got, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_a_stage_that_only_plans_is_seen_in_the_batch():
    rows = rows_of()
    batch, plain = collated(Swap(), model=None)(rows), collated(model=None)(rows)
    swapped = rows.replaced(contexts=rows.contexts.roll(1))
    assert torch.equal(batch.rows.table, swapped.table)
    assert torch.equal(batch.images, collated(model=None)(swapped).images)
    assert torch.equal(batch.masks, plain.masks)
    assert not torch.equal(batch.images, plain.images)
    assert batch.attacked is None  # no pixel was changed


@pytest.mark.parametrize("stages", [(Swap(), WorstOf(k=3)), (Swap(), ScenePGD(steps=1)), (ScenePGD(steps=1), Swap())])
def test_a_plan_goes_before_the_composing_of_scene_attacks(stages):
    """The same as of rows that were swapped by hand."""
    net, rows = Linear(), rows_of()
    other = next(stage for stage in stages if not isinstance(stage, Swap))
    batch = collated(*stages, net=net)(rows)
    want = collated(other, net=net)(rows.replaced(contexts=rows.contexts.roll(1)))
    assert torch.equal(batch.images, want.images)


def test_draft_is_what_the_docs_say():
    """(n,) rows, composites once nothing waits, labels and keys of samples, pixels as they are by now."""
    seen = []

    class Look(Adversary):
        needs_model = False

        def harden(self, model, draft):
            seen.append(draft)
            return draft

    batch = collated(Look(), model=None, returns="batch")(rows_of())
    (draft,) = seen
    assert draft.size == len(draft.rows) == 20
    assert draft.pictures is draft.composites.images is batch.images
    assert torch.equal(draft.labels, batch.labels)
    assert torch.equal(draft.keys, batch.rows.keys)
    darker = draft.with_images(0.5 * draft.pictures, torch.arange(20) < 3)
    assert torch.equal(darker.pictures, 0.5 * batch.images)
    assert darker.attacked.sum() == 3
    assert darker.with_images(draft.pictures, torch.arange(20) > 15).attacked.sum() == 7
    assert darker.with_images(draft.pictures).attacked.all()
    some = draft.chosen(torch.tensor([4, 1]))
    assert torch.equal(some.pictures, batch.images[[4, 1]])
    assert torch.equal(some.rows.table, batch.rows.table[[4, 1]])
    assert torch.equal(some.composites.scene.pose.angle, batch.scene.pose.angle[[4, 1]])


# --- masks are made where somebody asks


@pytest.mark.parametrize(
    ("stages", "returns", "made"),
    [((), "pair", 0), ((FGSM(eps=0.1),), "pair", 0), ((FGSM(eps=0.1, eps_object=0.0),), "pair", 1),
     ((External(torch.relu),), "pair", 0), ((Swap(),), "pair", 0),
     ((WorstOf(k=2),), "pair", 0), ((ScenePGD(steps=1),), "pair", 0), ((), "batch", 1)],
)  # fmt: skip
def test_no_masks_are_made_that_nobody_asks_for(stages, returns, made, monkeypatch):
    calls, outline = [], front.outline
    monkeypatch.setattr(front, "outline", lambda *given: calls.append(1) or outline(*given))
    stages = tuple(
        stage if not isinstance(stage, External) else External(lambda x, y: torch.relu(x)) for stage in stages
    )
    collated(*stages, returns=returns)(rows_of())
    assert len(calls) == made


# --- orders


SCENES = {"gradient": ScenePGD(steps=2), "worst": WorstOf(k=3)}


@pytest.mark.parametrize("names", [("worst", "gradient"), ("gradient", "worst")], ids="-".join)
@pytest.mark.parametrize("chain", [False, True])
def test_two_attacks_on_scenes_are_worse_than_either(names, chain):
    net, rows = Linear(), rows_of()

    def run(*stages):
        collate = collated(*stages, net=net, chain=ContextChain(0.2) if chain else None)
        first = collate(rows)
        return losses(net, first.images, first.labels), collate(rows)

    (plain, _), (first, _), (both, again) = run(), run(SCENES[names[0]]), run(*(SCENES[name] for name in names))
    assert (first >= plain - 1e-5).all()
    assert (both >= first - 1e-5).all()
    assert both.mean() > first.mean() + 1e-3
    assert again.images.shape == (20, 3, SIZE, SIZE)
    assert again.chained.any() == chain


@pytest.mark.parametrize("scene", [*SCENES.values(), ScenePGD(steps=1, fraction=0.4), WorstOf(k=2, fraction=0.4)])
def test_pixels_after_scenes_stay_in_their_budget(scene):
    net, rows = Linear(), rows_of()
    attack = PGD(eps=0.06, eps_object=0.01, steps=3)
    batch = collated(scene, attack, net=net)(rows)
    chosen = collated(scene, net=net)(rows)
    assert torch.equal(batch.clean, chosen.images)
    assert ((batch.images - batch.clean).abs() <= 0.06 * (1 - batch.masks) + 0.01 * batch.masks + 1e-7).all()
    assert (losses(net, batch.images, batch.labels) > losses(net, batch.clean, batch.labels)).all()
    assert torch.equal(batch.masks, chosen.masks)


def test_two_attacks_on_pixels_add_up():
    net, rows = Linear(), rows_of()
    one, other = PGD(eps=0.05, steps=2), PGD(eps=0.5, norm="l2", steps=2)
    first, both = collated(one, net=net)(rows), collated(one, other, net=net)(rows)
    assert torch.equal(first.clean, both.clean)
    assert (first.images - first.clean).abs().max() <= 0.05 + 1e-7
    assert (both.images - first.images).flatten(1).norm(dim=1).max() <= 0.5 + 1e-5
    assert (losses(net, both.images, both.labels) > losses(net, first.images, first.labels)).all()


def test_worst_pixels_and_another_library_s():
    net, rows = Linear(), rows_of()
    stages = WorstOf(k=3), PGD(eps=0.05, steps=2), External(lambda images, labels: (images + 0.02).clamp(0, 1))
    two, all_three = collated(*stages[:2], net=net)(rows), collated(*stages, net=net)(rows)
    assert torch.equal(all_three.clean, two.clean)
    assert torch.equal(all_three.images, (two.images + 0.02).clamp(0, 1))


def test_a_warm_start_is_taken_once():
    """A second attack starts from what the first one found, not as far again from it."""
    rows = rows_of()
    still = PGD(eps=0.3, alpha=0.0, steps=1, random_start=False)
    one, both = (collated(*stages, chain=ContextChain(1.0, warm_start=True)) for stages in ((still,), (still, still)))
    for collate in (one, both):
        changes = torch.full((20, 3, SIZE, SIZE), 0.1)
        collate.chain.keep(0.5 + changes, torch.zeros(20, 1, dtype=torch.int64), changes)
    want = (one(rows).clean + 0.1).clamp(0, 1)
    one.chain.keep(0.5 + changes, torch.zeros(20, 1, dtype=torch.int64), changes)
    torch.testing.assert_close(one(rows).images, want)
    torch.testing.assert_close(both(rows).images, want)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_attacked_are_the_samples_whose_pixels_changed(fraction):
    batch = collated(PGD(eps=0.1, steps=1, fraction=fraction))(rows_of(35))
    changed = (batch.images != batch.clean).flatten(1).any(dim=1)
    assert torch.equal(batch.attacked, changed)
    assert changed.float().mean() == pytest.approx(fraction, abs=0.3)


# --- what is refused


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((PGD(eps=0.1), ScenePGD()), r"adversaries\[1\]: expected a ScenePGD, which chooses scenes, before what "
         r"changes pixels, got it after PGD\. Put it first\."),
        ((WorstOf(), External(abs), ScenePGD()), r"adversaries\[2\]: .*got it after External\. Put it first\."),
        ((lambda images, labels: images,), r"adversaries\[0\]: expected Adversary, got <function.*External\(a"),
        ((PGD,), r"adversaries\[0\]: expected Adversary, got .*PGD.*External\(attack\)\."),
        (("pgd",), r"adversaries\[0\]: expected Adversary, got 'pgd'"),
        ((PGD(eps=0.1), None), r"adversaries\[1\]: expected Adversary, got None"),
        (PGD(eps=0.1), r"adversaries: expected a tuple of adversaries, got .*PGD.*Pass adversaries=\(PGD\("),
        ("pgd", r"adversaries: expected a tuple of adversaries, got 'pgd'"),
        (iter([PGD(eps=0.1)]), "adversaries: expected a tuple of adversaries, got"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_what_is_no_order_of_adversaries_is_refused(stages, message):
    with pytest.raises(InputError, match=f"^{message}"):
        CAGCollate(make_objects(), make_contexts(), SIZE, model=Linear(), adversaries=stages)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((WorstOf(), WorstOf(k=2)), r"one WorstOf, got two, whose rivals would be each other's\. Raise its k"),
        ((ScenePGD(), ScenePGD()), r"one ScenePGD, got two, the second of which would start over\. Raise its steps"),
    ],
)  # fmt: skip
def test_two_of_a_kind_are_refused_where_they_cannot_be(stages, message):
    with pytest.raises(InputError, match=f"^adversaries: expected {message}"):
        collated(*stages)(rows_of())


def test_an_adversary_that_asks_a_model_needs_one(untyped):
    with pytest.raises(InputError, match=r"^model: expected the model to attack, got None\. .*leave out the Veil\.$"):
        collated(Swap(), Veil(), model=None)
    collated(Swap(), External(lambda images, labels: images), model=None)(rows_of())


def hardening(change):
    class Wrong(Adversary):
        def harden(self, model, draft):
            return change(draft)

    return Wrong()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda draft: None, r"adversaries\[1\]: expected Draft, got None\. Return draft\.with_images"),
        (lambda draft: draft.pictures, r"adversaries\[1\]: expected Draft, got float32 \(8, 3, 16, 16\)"),
        (lambda draft: draft.with_images(draft.pictures[:1]),
         r"adversaries\[1\]: expected float32 \(8, 3, 16, 16\) on cpu, got float32 \(1, 3, 16, 16\)\. An"),
        (lambda draft: draft.with_images(draft.pictures[..., 1:]), r"adversaries\[1\]: .*got float32 \(8, 3, 16, 15\)"),
        (lambda draft: draft.chosen(torch.arange(3)),
         r"adversaries: expected rows and composites of all 8 samples .* got 3 rows, 3 composites"),
        (lambda draft: draft.with_images(draft.pictures.to("meta")), r"adversaries\[1\]: .* on cpu, got .* on meta"),
        (lambda draft: draft.with_images(draft.pictures.clone(), torch.ones(8)),
         r"adversaries\[1\]\.attacked: expected bool \(8\) on cpu, got float32 \(8,\)\. Say which samples"),
        (lambda draft: draft.with_images(draft.pictures.clone(), torch.tensor(True)),
         r"adversaries\[1\]\.attacked: expected bool \(8\) on cpu, got bool \(\)"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_a_stage_that_gives_something_else_is_named_by_its_place(change, message):
    with pytest.raises(InputError, match=f"^{message}"):
        collated(Swap(), hardening(change))(rows_of(8))


def test_a_plan_that_gives_something_else_is_named_by_its_place(untyped):
    class Wrong(Adversary):
        def plan(self, draft):
            draft.rows.replaced(contexts=draft.rows.contexts.roll(1))

    with pytest.raises(InputError, match=r"^adversaries\[1\]: expected Draft, got None\. Return dataclasses"):
        collated(Swap(), Wrong())(rows_of(8))


# --- another library's


class Torchattack:
    """As torchattacks' objects are: it holds a model and is called with images and labels."""

    def __init__(self, model, eps):
        self.model, self.eps = model, eps

    def __call__(self, images, labels):
        images = images.clone().detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(self.model(images), labels), images)
        return (images + self.eps * gradient.sign()).clamp(0, 1).detach()


def test_an_attack_of_another_library_gives_what_ours_gives():
    net = Linear()
    theirs = collated(External(Torchattack(net, 0.1)), model=None)(rows_of())
    ours = collated(FGSM(eps=0.1), net=net)(rows_of())
    torch.testing.assert_close(theirs.images, ours.images)
    assert theirs.attacked.all()
    assert "External(<" in repr(External(Torchattack(net, 0.1)))


def test_a_function_that_works_in_place_leaves_the_clean_images_alone():
    want = collated()(rows_of()).images
    batch = collated(External(lambda images, labels: images.mul_(0.5)), model=None)(rows_of())
    assert torch.equal(batch.clean, want)
    assert torch.equal(batch.images, 0.5 * want)


def test_a_function_is_told_the_labels_and_leaves_no_graph():
    seen, weight = [], torch.ones((), requires_grad=True)

    def darken(images, labels):
        seen.append(labels)
        return 0.5 * weight * images

    batch = collated(External(darken), model=None)(rows_of())
    assert torch.equal(seen[0], batch.labels)
    assert not batch.images.requires_grad


@pytest.mark.parametrize("attack", [PGD(eps=0.1), PGD, Torchattack, 0.1, None], ids=str)
@pytest.mark.usefixtures("untyped")
def test_what_is_no_function_of_images_and_labels_is_not_wrapped(attack):
    with pytest.raises(InputError, match=r"^attack: expected a function of images and labels, got .*directly\."):
        External(attack)


def test_a_draft_can_be_sent_to_a_process():
    draft = collated(WorstOf(k=2), PGD(eps=0.1), chain=ContextChain(0.2)).compose(rows_of())
    again = pickle.loads(pickle.dumps(draft))
    assert isinstance(again, Draft)
    assert isinstance(again.rows, Rows)
    assert (again.size, again.waiting, again.earlier.reset) == (20, 0, 0.2)
    one, other = [*tensors(draft)], [*tensors(again)]
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Idle(Adversary):
    """Misspells its method."""

    def hardn(self, model, draft):
        return draft


class Blind(Adversary):
    """Reads masks, and does not say so."""

    needs_model = False

    def harden(self, model, draft):
        return draft.with_images(draft.pictures * draft.mask)


def test_an_adversary_that_does_nothing_or_reads_what_it_did_not_ask_for():
    with pytest.raises(InputError, match=r"adversaries\[0\]: expected an adversary with .* got a Idle"):
        collated(Idle())
    with pytest.raises(InputError, match=r"draft\.targets: expected an adversary .* Set needs_targets = True"):
        collated(Blind(), returns="pair")(rows_of())


def test_images_are_clipped_and_keep_their_dtype():
    class Bright(Adversary):
        needs_model = False

        def harden(self, model, draft):
            return draft.with_images(draft.pictures.double() * 3 - 1)

    batch = collated(Bright())(rows_of())
    assert batch.images.dtype == torch.float32
    assert (float(batch.images.min()), float(batch.images.max())) == (0.0, 1.0)
