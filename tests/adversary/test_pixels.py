import contextlib
import dataclasses
import pickle
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from devicewait import RefuseWaiting, no_waiting
from hypothesis import given, settings
from hypothesis import strategies as st
from models import EPS, Net, Restless, Slope, make_batch, make_keys, make_mixed, state
from torch import Tensor, nn

from kornia_cag.adversary.ascent import pgd
from kornia_cag.adversary.losses import dlr, kl, margin
from kornia_cag.adversary.pixels import PGD
from kornia_cag.adversary.presets import BIM, FGSM, MIFGSM
from kornia_cag.adversary.recapture import Recapture
from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import uniform
from kornia_cag.scenes.camera import CameraRange

# the budget


# analytic results on a linear loss


def test_fgsm_on_a_linear_model_is_the_clipped_sign_step(device):
    batch = make_batch(device=device)
    weight = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1)).to(device)
    labels = torch.zeros_like(batch["labels"])
    out = FGSM(eps=EPS)(Slope(weight), batch["images"], labels, keys=batch["keys"])
    assert torch.allclose(out, (batch["images"] + EPS * weight.sign()).clamp(0, 1), rtol=0, atol=1e-7)
    out = FGSM(eps=EPS)(Slope(weight), batch["images"], 1 - labels, keys=batch["keys"])
    assert torch.allclose(out, (batch["images"] - EPS * weight.sign()).clamp(0, 1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("start", [False, True])
def test_many_steps_reach_the_corner_of_the_box(start):
    batch = make_batch()
    weight = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1))
    attack = PGD(eps=0.1, steps=10, random_start=start)
    out = attack(Slope(weight), batch["images"], torch.zeros_like(batch["labels"]), keys=batch["keys"])
    assert torch.allclose(out, (batch["images"] + 0.1 * weight.sign()).clamp(0, 1), rtol=0, atol=1e-7)


def test_l2_on_a_linear_model_goes_along_the_gradient_to_the_rim():
    images, labels = torch.full((2, 3, 6, 6), 0.5), torch.zeros(2, dtype=torch.int64)
    weight = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1))
    for alpha, moved in ((0.05, 0.1), (1.0, 0.2)):
        attack = PGD(eps=0.2, alpha=alpha, steps=2, norm="l2", random_start=False)
        out = attack(Slope(weight), images, labels, keys=make_keys(2))
        torch.testing.assert_close(out - images, (moved * weight / weight.norm()).expand(2, -1, -1, -1))


def test_l2_with_two_budgets_goes_along_the_scaled_gradient():
    """Half-axes of 0.1 and 0.4: the gain of a step along an axis grows with its square."""
    images, mask = torch.full((1, 1, 1, 2), 0.5), torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    attack = PGD(eps=0.4, eps_object=0.1, norm="l2", steps=1, alpha=0.4, random_start=False)
    out = attack(Slope(torch.ones(1, 1, 2)), images, torch.zeros(1, dtype=torch.int64), keys=make_keys(1), mask=mask)
    change = (out - images).flatten()
    torch.testing.assert_close(change, torch.tensor([0.01, 0.16]) / 0.17**0.5)
    torch.testing.assert_close((change / torch.tensor([0.1, 0.4])).norm(), torch.tensor(1.0))


def test_an_image_stops_once_the_model_is_fooled():
    """Two logits, ``x - 0.5`` and 0: from 0.6 downwards in steps of 0.04, the third picture below 0.5 is the first."""

    class Threshold(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            own = x.mean((1, 2, 3)) - 0.5
            return torch.stack([own, torch.zeros_like(own)], dim=1)

    images = torch.tensor([0.6, 0.45, 0.9]).reshape(3, 1, 1, 1)
    for momentum in (0.0, 1.0):
        attack = PGD(eps=0.3, alpha=0.04, steps=7, random_start=False, early_stop=True, momentum=momentum)
        out = attack(Threshold(), images, torch.zeros(3, dtype=torch.int64), keys=make_keys(3))
        torch.testing.assert_close(out.flatten(), torch.tensor([0.48, 0.45, 0.62]))


def test_alpha_is_the_step_where_the_larger_budget_holds():
    images, labels, keys = torch.full((1, 1, 1, 3), 0.5), torch.zeros(1, dtype=torch.int64), make_keys(1)
    mask = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    for eps, eps_object, moved in ((0.2, 0.1, [0.06, 0.045, 0.03]), (0.1, 0.2, [0.03, 0.045, 0.06])):
        attack = PGD(eps=eps, eps_object=eps_object, alpha=0.02, steps=3, random_start=False)
        out = attack(Slope(torch.ones(1, 1, 3)), images, labels, keys=keys, mask=mask)
        assert torch.allclose(out.flatten() - 0.5, torch.tensor(moved), atol=1e-6)


def test_small_losses_survive_half_precision():
    images, eps = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float16), torch.full((1, 1, 1, 1), 0.1)
    out = pgd(lambda x: 1e-8 * x.float().sum((1, 2, 3)), images, eps, make_keys(1), steps=1, relative_alpha=1.0)
    assert torch.allclose(out.float(), torch.tensor(0.6), atol=1e-3)


# budgets


def test_budget_is_exact_at_both_ends_of_the_mask_and_scales_per_sample(device):
    images, keys = torch.full((3, 2, 2, 2), 0.5, device=device), make_keys(3, device)
    mask = torch.tensor([0.0, 1.0, 0.5, 0.25], device=device).reshape(1, 1, 2, 2).repeat(3, 1, 1, 1)
    attack = FGSM(eps=0.1, eps_object=0.03)
    eps, eps_object = torch.tensor([0.1, 0.03])
    budget = attack.budget(images, keys, mask=mask)
    assert budget.shape == (3, 1, 2, 2)
    assert (budget[:, 0, 0, 0] == eps).all()
    assert (budget[:, 0, 0, 1] == eps_object).all()
    assert torch.allclose(budget[:, 0, 1].cpu(), torch.tensor([0.065, 0.0825]))
    assert torch.equal(attack.budget(images, keys, mask=mask.half()), budget)
    assert torch.equal(
        attack.budget(images, keys, mask=mask > 0.4), attack.budget(images, keys, mask=(mask > 0.4) + 0.0)
    )
    scale = torch.tensor([0.0, 0.5, 2.0], device=device)
    assert torch.equal(attack.budget(images, keys, mask=mask, scale=scale), budget * scale.reshape(3, 1, 1, 1))
    labels = torch.zeros(3, dtype=torch.int64, device=device)
    out = attack(Slope(torch.ones(2, 2, 2, device=device)), images, labels, keys=keys, mask=mask, scale=scale)
    assert torch.allclose(out - images, (budget * scale.reshape(3, 1, 1, 1)).expand_as(out), rtol=0, atol=1e-7)
    assert torch.equal(out[0], images[0])


def test_budgets_are_drawn_evenly_in_the_logarithm():
    images, mask, keys = torch.zeros(2000, 1, 1, 2), torch.tensor([[[0.0, 1.0]]]).expand(2000, 1, 1, 2), make_keys(2000)
    attack = PGD(eps=0.64, eps_min=0.01, eps_object=0.16)
    eps = attack.budget(images, keys, mask=mask)
    torch.testing.assert_close(eps[..., 1], eps[..., 0] / 4)
    drawn = eps[..., 0].flatten()
    assert drawn.min() >= 0.01 * (1 - 1e-5)
    assert drawn.max() <= 0.64
    assert [(drawn < edge).float().mean().item() for edge in (0.02, 0.08, 0.32)] == pytest.approx(
        [1 / 6, 3 / 6, 5 / 6], abs=0.03
    )
    assert torch.equal(attack.budget(images[:3], keys[:3], mask=mask[:3]), eps[:3])


def test_object_budget_may_exceed_or_replace_that_of_the_context():
    images, keys, labels = torch.full((1, 1, 1, 2), 0.5), make_keys(1), torch.zeros(1, dtype=torch.int64)
    mask = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    out = PGD(eps=0.0, eps_object=0.1, steps=2)(Slope(torch.ones(1, 1, 2)), images, labels, keys=keys, mask=mask)
    assert torch.allclose(out.flatten(), torch.tensor([0.5, 0.6]))


def test_without_object_budget_the_mask_changes_nothing():
    batch, model = make_batch(), Net()
    mask = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    attack = PGD(eps=EPS, steps=2)
    assert torch.equal(attack(model, **batch), attack(model, **batch, mask=mask))


def test_fraction_attacks_a_share_and_leaves_the_others_untouched():
    n = 400
    images, labels, keys = torch.full((n, 1, 2, 2), 0.5), torch.zeros(n, dtype=torch.int64), make_keys(n)
    model = Slope(torch.ones(1, 2, 2))
    out = FGSM(eps=0.1, fraction=0.25)(model, images, labels, keys=keys)
    moved = (out != images).flatten(1)
    assert torch.equal(moved.all(1), moved.any(1))
    assert 70 <= moved.any(1).sum() <= 130  # binomial: 100, standard deviation 8.7
    assert torch.equal(
        out[100:200], FGSM(eps=0.1, fraction=0.25)(model, images[:100], labels[:100], keys=keys[100:200])
    )
    assert torch.equal(FGSM(eps=0.1, fraction=0.0)(model, images, labels, keys=keys), images)
    assert (FGSM(eps=0.1)(model, images, labels, keys=keys) != images).all()


# strength


def test_targeted_raises_the_target_and_untargeted_the_loss(device):
    """After a short training, but with room: over ten seeds the losses and the targets rise threefold and more."""
    torch.manual_seed(0)
    labels = torch.arange(40, device=device) % 4
    patterns = 0.4 + 0.2 * torch.rand(4, 3, 6, 6, device=device)
    images = (patterns[labels] + 0.02 * torch.randn(40, 3, 6, 6, device=device)).clamp(0, 1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    keys, targets = make_keys(40, device), (labels + 1) % 4
    hurt = PGD(eps=0.1, steps=5)(model, images, labels, keys=keys)
    fooled = PGD(eps=0.1, steps=5, target="given")(model, images, labels, keys=keys, targets=targets)
    paper = PGD(eps=0.1, steps=5, random_start=False, schedule="paper")(model, images, labels, keys=keys)
    model.eval()
    with torch.no_grad():
        clean = F.cross_entropy(model(images), labels, reduction="none")
        assert (F.cross_entropy(model(hurt), labels, reduction="none") > clean).all()
        assert (F.cross_entropy(model(paper), labels, reduction="none") > clean).all()
        rise = model(fooled).softmax(1).gather(1, targets[:, None]) > model(images).softmax(1).gather(
            1, targets[:, None]
        )
        assert rise.all()
        assert (model(images).argmax(1) == labels).float().mean() > 0.95
        assert (model(hurt).argmax(1) == labels).float().mean() < 0.5


def smooth_model(size: int) -> nn.Sequential:
    torch.manual_seed(size)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 16), nn.Softplus(), nn.Linear(16, 4)).eval()


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(2, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    eps=st.sampled_from([0.01, 0.05, 0.2]),
    norm=st.sampled_from(["linf", "l2"]),
    steps=st.integers(1, 6),
    momentum=st.sampled_from([0.0, 0.7]),
    start=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_larger_budget_or_more_steps_never_lower_the_loss(size, dtype, eps, norm, steps, momentum, start, seed):
    """On a smooth model, beyond what the place of a step costs; and what is aimed at becomes more probable."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((24, 3, size, size), generator=generator).to(dtype)
    labels, keys, model = torch.arange(24) % 4, make_keys(24, seed=seed), smooth_model(size).to(dtype)
    numbers = {"norm": norm, "momentum": momentum, "random_start": start}

    def loss(attack: PGD, aims: Tensor | None = None) -> float:
        found = attack(model, images, labels, keys=keys, targets=aims)
        with torch.no_grad():
            return float(F.cross_entropy(model(found), labels if aims is None else aims))

    with torch.no_grad():
        clean = float(F.cross_entropy(model(images), labels))
        other = float(F.cross_entropy(model(images), (labels + 1) % 4))
    small = loss(PGD(eps=eps, steps=steps, **numbers))
    slack = 0.1 * (small - clean) + 1e-6
    assert small >= clean - 1e-6
    assert loss(PGD(eps=2 * eps, steps=steps, **numbers)) >= small - slack
    assert loss(PGD(eps=eps, steps=2 * steps, **numbers)) >= small - slack
    assert loss(PGD(eps=eps, steps=steps, target="given", **numbers), (labels + 1) % 4) <= other + 1e-6


@pytest.mark.parametrize("random_start", [False, True])
def test_wrong_classes_are_drawn_or_asked_of_the_model(random_start):
    """The same pictures as with those classes given; every wrong class is drawn, the right one never."""
    batch, model = make_batch(40), Net().eval()
    keys, labels = batch["keys"], batch["labels"]
    with torch.no_grad():
        logits = model(batch["images"].clone())
    classes = logits.shape[1]
    drawn = (labels + 1 + (uniform(keys, "attack.target") * (classes - 1)).long()) % classes
    assert not (drawn == labels).any()
    assert {((d - y) % classes).item() for d, y in zip(drawn, labels, strict=True)} == set(range(1, classes))
    unlikely = torch.stack([row.scatter(0, y, torch.inf).argmin() for row, y in zip(logits, labels, strict=True)])
    for target, targets in (("random", drawn), ("least likely", unlikely)):
        attack = PGD(eps=0.1, steps=2, random_start=random_start, target=target)
        told = dataclasses.replace(attack, target="given")
        assert torch.equal(attack(model, **batch), told(model, **batch, targets=targets))


def test_custom_loss_is_climbed():
    batch, model = make_batch(), Net().eval()

    def margin(logits: Tensor, labels: Tensor) -> Tensor:
        return -logits.gather(1, labels[:, None])[:, 0]

    out = PGD(eps=0.2, steps=3, loss=margin)(model, **batch)
    with torch.no_grad():
        raised = margin(model(out), batch["labels"]) > margin(model(batch["images"].clone()), batch["labels"])
    assert raised.all()


def peers(peer: str, device: torch.device) -> Any:
    """A library, and a model and images that leave no sign to chance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they import names that scipy has deprecated
        library = pytest.importorskip(peer, reason=f"{peer} is not installed")
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(128, 5)
    model, batch = nn.Sequential(*layers).double().to(device).eval(), make_batch(device=device)
    images = (256 * batch["images"].double()).round() / 256  # sums of whole 256ths are exact, so no sign is by chance
    return library, model, images, batch


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("peer", ["torchattacks", "foolbox"])
def test_equals_other_libraries(peer, steps, device):
    library, model, images, batch = peers(peer, device)
    eps, alpha = 8 / 256, (8 if steps == 1 else 3) / 256
    if peer == "foolbox":
        attack = library.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=False)
        net = library.PyTorchModel(model, bounds=(0, 1), device=device)
        theirs = attack.run(net, images, batch["labels"], epsilon=eps)
    elif steps == 1:
        theirs = library.FGSM(model, eps=eps)(images, batch["labels"])
    else:
        theirs = library.PGD(model, eps, alpha, steps, random_start=False)(images, batch["labels"])
    ours = PGD(eps=eps, alpha=alpha, steps=steps, random_start=False)(model, **{**batch, "images": images})
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert (ours != images).any()


@pytest.mark.parametrize("peer", ["torchattacks", "foolbox"])
def test_equals_other_libraries_in_l2(peer, device):
    library, model, images, batch = peers(peer, device)
    eps, alpha, steps = 0.5, 0.2, 4
    if peer == "foolbox":
        attack = library.attacks.L2PGD(abs_stepsize=alpha, steps=steps, random_start=False)
        net = library.PyTorchModel(model, bounds=(0, 1), device=device)
        theirs = attack.run(net, images, batch["labels"], epsilon=eps)
    else:
        theirs = library.PGDL2(model, eps, alpha, steps, random_start=False)(images, batch["labels"])
    ours = BIM(eps=eps, alpha=alpha, steps=steps, norm="l2")(model, **{**batch, "images": images})
    assert (ours - images).flatten(1).norm(dim=1).max() > 0.4
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def test_equals_other_libraries_with_momentum(device):
    library, model, images, batch = peers("torchattacks", device)
    theirs = library.MIFGSM(model, eps=8 / 256, alpha=2 / 256, steps=4, decay=1.0)(images, batch["labels"])
    ours = MIFGSM(eps=8 / 256, steps=4)(model, **{**batch, "images": images})
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def test_fgsm_is_pgd_with_one_step():
    assert FGSM(eps=0.1) == PGD(eps=0.1, alpha=0.1, steps=1, random_start=False)
    assert FGSM(eps=0.1, random_start=True, fraction=0.5) == PGD(eps=0.1, alpha=0.125, steps=1, fraction=0.5)
    assert FGSM(eps=0.1, eps_object=0.2).alpha == 0.2
    assert FGSM(eps=0.1, alpha=0.02).alpha == MIFGSM(eps=0.1, alpha=0.02).alpha == 0.02
    assert BIM(eps=0.1) == PGD(eps=0.1, random_start=False)
    assert MIFGSM(eps=0.1, steps=4) == PGD(eps=0.1, alpha=0.025, steps=4, random_start=False, momentum=1.0)
    assert pickle.loads(pickle.dumps(FGSM(eps=0.1))) == FGSM(eps=0.1)


# randomness and independence


def test_the_keys_decide_the_start():
    batch, model = make_batch(), Net()
    attack = PGD(eps=EPS, steps=1, alpha=EPS / 10)
    out = attack(model, **batch)
    torch.manual_seed(99)
    assert torch.equal(attack(model, **batch), out)
    other = {**batch, "keys": make_keys(4, seed=1)}
    assert (attack(model, **other) != out).flatten(1).any(1).all()
    plain = PGD(eps=EPS, steps=1, alpha=EPS / 10, random_start=False)
    assert torch.equal(plain(model, **other), plain(model, **batch))


def test_a_given_start_is_taken_as_near_as_the_budget_allows(device):
    generator = torch.Generator().manual_seed(0)
    images, other = (torch.rand(4, 3, 6, 5, generator=generator).to(device) for _ in range(2))
    mask = (torch.rand(4, 1, 6, 5, generator=generator) > 0.5).float().to(device)
    labels, keys = torch.zeros(4, dtype=torch.int64, device=device), make_keys(4).to(device)
    still = PGD(eps=0.2, eps_object=0.0, alpha=0.0, steps=2)
    started = still(Net().to(device), images, labels, keys=keys, mask=mask, start=other)
    near = torch.minimum(torch.maximum(other, images - 0.2), images + 0.2)
    torch.testing.assert_close(started, torch.where(mask > 0, images, near))
    free = PGD(eps=1.0, eps_object=0.0, alpha=0.0, steps=1)
    swapped = free(Net().to(device), images, labels, keys=keys, mask=mask, start=other)
    assert torch.equal(swapped, torch.where(mask > 0, images, other))


# no trace


ATTACKS = {
    "fgsm": FGSM(eps=EPS),
    "pgd": PGD(eps=EPS, steps=3),
    "paper": PGD(eps=EPS, steps=2, random_start=False, schedule="paper"),
    "autocast": PGD(eps=EPS, steps=2, autocast=torch.bfloat16),
    "fraction": PGD(eps=EPS, steps=2, fraction=0.5),
    "l2": PGD(eps=0.5, steps=3, norm="l2", momentum=0.5),
    "random target, stopped early": PGD(eps=EPS, steps=3, target="random", early_stop=True, loss=dlr),
    "least likely": MIFGSM(eps=EPS, steps=2, target="least likely", loss=margin),
    "kl": PGD(eps=EPS, steps=2, loss=kl),
    "through a camera": PGD(eps=EPS, steps=2, transform=Recapture(camera=CameraRange(blur=0.5)), eot_samples=2),
    "two budgets, drawn": PGD(eps=0.5, eps_object=EPS, eps_min=0.1, steps=2),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("cls", [Net, Restless])
def test_the_model_is_left_as_it_was(cls, attack):
    model, batch = make_mixed(cls), make_batch()
    before = state(model)
    out = attack(model, **batch, mask=torch.full((4, 1, 6, 6), 0.5))
    assert (out != batch["images"]).any()
    assert state(model) == before


def test_the_model_is_left_as_it_was_when_the_loss_is_refused(untyped):
    model, batch = make_mixed(), make_batch()
    before = state(model)
    with pytest.raises(InputError, match=r"loss: expected .* \(4\), got float32 \(\)"):
        PGD(eps=EPS, loss=F.cross_entropy)(model, **batch)
    assert state(model) == before


def test_no_graph_is_left_and_the_input_gets_no_gradient():
    batch, model = make_batch(), make_mixed()
    images = batch["images"].requires_grad_()
    out = PGD(eps=EPS, steps=2)(model, **batch)
    assert out.grad_fn is None
    assert not out.requires_grad
    assert images.grad is None
    assert images._version == 0


# wrappers, modes, formats


@pytest.mark.compile
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# The model gets a copy of the point, no leaf, as it may begin with an in-place operation. To learn whether it has a
# gradient, the compiler of torch 2.11 touches .grad and hides torch's warning from users, but not from "error".
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_model_in_a_cuda_graph_gives_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(128, 5))
    model, batch = model.double().cuda(), make_batch(device="cuda")
    batch["images"] = (256 * batch["images"].double()).round() / 256
    graph = torch.compile(model, mode="reduce-overhead")
    attack = PGD(eps=8 / 256, alpha=3 / 256, steps=3, random_start=False)
    expected = attack(model, **batch)
    for _ in range(4):  # warm up, record, replay
        assert torch.allclose(attack(graph, **batch), expected, rtol=0, atol=1e-9)
    torch.compiler.reset()


@pytest.mark.parametrize("start", [False, True])
def test_works_under_no_grad_and_refuses_inference_mode(start, untyped):
    batch, model = make_batch(), Net()
    attack = PGD(eps=EPS, steps=2, random_start=start)
    expected = attack(model, **batch)
    with torch.no_grad():
        assert torch.equal(attack(model, **batch), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        with pytest.raises(InputError, match=r"got torch\.inference_mode\(\)\. Evaluate under torch\.no_grad\(\)"):
            attack(model, **batch)
        inference = {name: value.clone() for name, value in batch.items()}
        with torch.inference_mode(False):
            assert torch.equal(attack(model, **inference), expected)
    assert inference["images"].is_inference()
    assert torch.equal(attack(model, **inference), expected)


def test_autocast_is_that_around_the_attack_or_its_own():
    batch, model, seen = make_batch(), Net(), []

    def spy(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return F.cross_entropy(logits, labels, reduction="none")

    around = [contextlib.nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16)]
    for context in around:
        for dtype in (None, torch.bfloat16, torch.float32):
            with context:
                before = state(model)
                out = PGD(eps=EPS, steps=1, loss=spy, autocast=dtype)(model, **batch)
                assert state(model) == before
            assert out.dtype == torch.float32
    wide, narrow = torch.float32, torch.bfloat16
    assert seen == [wide, narrow, wide, narrow, narrow, wide]


def test_an_empty_batch_stays_empty():
    assert PGD(eps=EPS)(Net(), **make_batch(0)).shape == (0, 3, 6, 6)


# nothing waits for the device


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_waits_for_the_device(attack, untyped):
    batch, model = make_batch(), make_mixed(Restless)
    mask, scale = torch.full((4, 1, 6, 6), 0.5), torch.ones(4)
    with RefuseWaiting():
        attack(model, **batch, mask=mask, scale=scale)
        attack(model, **batch, mask=mask, start=batch["images"].flip(0))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_waits_on_cuda_and_its_random_state_is_kept(attack, untyped):
    device = torch.device("cuda", torch.cuda.current_device())
    batch, model = make_batch(device=device), make_mixed(Restless).to(device)
    mask, scale = torch.full((4, 1, 6, 6), 0.5, device=device), torch.ones(4, device=device)
    attack(model, **batch, mask=mask, scale=scale)  # libraries set themselves up in the first call
    before, random = state(model), torch.cuda.get_rng_state(device).tolist()
    with no_waiting():
        attack(model, **batch, mask=mask, scale=scale)
    assert state(model) == before
    assert torch.cuda.get_rng_state(device).tolist() == random


# errors


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"eps": 8}, r"eps: expected a number in \[0, 1\], got 8\. Budgets are in units of \[0, 1\]: write 8 / 255"),
        ({"eps": float("nan")}, "eps: expected a number"),
        ({"eps": 0.1, "eps_object": -0.1}, "eps_object: expected a number"),
        ({"eps": 0.1, "alpha": -0.1}, "alpha: expected a number"),
        ({"eps": 0.1, "alpha": 0.1, "schedule": "paper"}, "alpha: expected None with schedule='paper'"),
        ({"eps": 0.1, "steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"eps": 0.1, "schedule": "cosine"}, "schedule: expected one of 'sign', 'paper', got 'cosine'"),
        ({"eps": 0.1, "fraction": 1.5}, r"fraction: expected a number in \[0, 1\], got 1\.5"),
        ({"eps": 0.1, "autocast": torch.int8}, "autocast: expected one of None, torch.bfloat16"),
        ({"eps": 0.1, "eps_min": 0.2}, r"eps_min: expected a number in \[0, 0\.1\]"),
        ({"eps": 0.1, "eps_min": 0}, "eps_min: expected a number above 0"),
        ({"eps": 0.1, "norm": "l1"}, "norm: expected one of 'linf', 'l2', got 'l1'"),
        ({"eps": 0.1, "momentum": -1}, "momentum: expected a number"),
        ({"eps": 0.1, "norm": "l2", "schedule": "paper"}, "schedule: expected 'sign' in L2"),
        ({"eps": 0.1, "target": "likely"}, "target: expected one of None, 'given', 'random', 'least likely'"),
        ({"eps": 0.1, "loss": kl, "random_start": False}, "random_start: expected True with loss=kl"),
        ({"eps": 0.1, "loss": kl, "target": "random"}, "target: expected None with loss=kl"),
    ],
)
def test_wrong_numbers_are_refused(numbers, words, untyped):
    with pytest.raises(InputError, match=words):
        PGD(**numbers)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"images": torch.zeros(4, 3, 6, 6, dtype=torch.uint8)},
            r"images: expected float16 or .*, got uint8 \(4, 3, 6, 6\)",
        ),
        ({"images": torch.zeros(3, 6, 6)}, r"images: expected .* \(b, c, h, w\), got float32 \(3, 6, 6\)"),
        ({"labels": torch.zeros(4)}, r"labels: expected int64 \(4\) on cpu, got float32 \(4,\)"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels: expected int64 \(4\) on cpu, got int64 \(3,\)"),
        (
            {"keys": torch.zeros(5, dtype=torch.int64)},
            r"keys: expected int64 \(4\) on cpu, got int64 \(5,\)\. One key per image",
        ),
        ({"mask": torch.zeros(4, 6, 6)}, r"mask: expected .* \(4, 1, 6, 6\) on cpu, got float32 \(4, 6, 6\)"),
        ({"mask": None}, r"mask: expected the object's mask \(4, 1, 6, 6\), since eps_object is set, got None\."),
        ({"scale": torch.ones(4, 1)}, r"scale: expected .* \(4\) on cpu, got float32 \(4, 1\)"),
        ({"targets": torch.zeros(4, dtype=torch.int64)}, "targets: expected None with target=None"),
        ({"model": lambda x: x}, r"model: expected a torch\.nn\.Module, got .*\. Attack another function with pgd\."),
        (
            {"model": nn.Flatten(0)},
            r"model output: expected .* \(4, classes\), got float32 \(432,\)\. Give another kind",
        ),
        (
            {"model": nn.Sequential(nn.Flatten(), nn.Linear(108, 1))},
            "model output: expected logits of at least 2",
        ),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(108, 9), nn.Unflatten(1, (3, 3)))}, "model output: expected"),
    ],
)
def test_wrong_arguments_are_refused(change, words, untyped):
    arguments = {"model": Net(), **make_batch(), "mask": torch.zeros(4, 1, 6, 6), **change}
    with pytest.raises(InputError, match=words):
        PGD(eps=0.1, eps_object=0.05, steps=1)(**arguments)


def test_a_targeted_attack_needs_targets(untyped):
    with pytest.raises(
        InputError, match=r"targets: expected int64 \(4\) on cpu, got None\. target='given' needs targets="
    ):
        PGD(eps=0.1, target="given")(Net(), **make_batch())
