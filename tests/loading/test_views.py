"""Every scene under every blend: one batch, whose labels repeat."""

import pickle
from typing import Any

import pytest
import torch
from conftest import make_contexts, make_objects
from models import Net
from recorder import Strict
from torch.utils.data import DataLoader

from kornia_cag import (
    PGD,
    Average,
    CAGCollate,
    ContextChain,
    Eroded,
    Feather,
    Hard,
    InputError,
    MultiBand,
    OneOf,
    Over,
    PairSampler,
    PoseRange,
    Prefetcher,
    ScenePGD,
    SceneRange,
)  # fmt: skip
from kornia_cag.scenes.capture import Captures
from kornia_cag.scenes.chunks import Renderer

BLENDS = (Over(), Hard(), Average(0.5), Feather(width=(2, 3)), Eroded(pixels=(1, 2)), MultiBand(levels=2))
RANGES = SceneRange(blend=OneOf(BLENDS), pose=PoseRange(scale=(0.4, 0.7)))
COUNT = len(BLENDS)


def collate(ranges: SceneRange = RANGES, **options: Any) -> CAGCollate[Any]:
    return CAGCollate(make_objects(), make_contexts(), 20, ranges=ranges, **{"returns": "batch", **options})


def sampler() -> PairSampler:
    return PairSampler(make_objects().labels, 7, batch_size=6, samples_per_class=7)


def test_each_scene_comes_under_each_blend(device: torch.device) -> None:
    make = CAGCollate(make_objects().to(device), make_contexts(device), 20, ranges=RANGES, returns="batch",
                      views="all blends")  # fmt: skip
    rows = next(iter(sampler()))
    batch, drawn = make(rows), collate()(rows)
    assert len(batch.images) == len(batch.labels) == len(batch.rows) == len(batch.targets.boxes) == COUNT * 6
    assert torch.equal(batch.labels.view(COUNT, 6).cpu(), drawn.labels.expand(COUNT, 6))
    assert torch.equal(batch.index.view(COUNT, 6).cpu(), drawn.index.expand(COUNT, 6))
    assert torch.equal(batch.scene.pose.x.view(COUNT, 6)[0], batch.scene.pose.x.view(COUNT, 6)[-1])
    which = drawn.scene.layers[0].blend.which
    views = batch.images.view(COUNT, 6, 3, 20, 20).cpu()
    for i, place in enumerate(which.tolist()):
        torch.testing.assert_close(views[place, i], drawn.images[i], rtol=0, atol=1e-5)
    apart = (views[:, None] - views[None]).abs().amax(dim=(2, 3, 4, 5))
    assert (apart[~torch.eye(COUNT, dtype=torch.bool)] > 0.01).all()
    again = make.composer.render(batch.scene)
    torch.testing.assert_close(again.images, batch.clean, rtol=0, atol=1e-5)


def test_it_is_attacked_composed_ahead_sent_and_replayed() -> None:
    rows = list(sampler())[:4]
    plain = [collate(returns="pair", views="all blends")(row) for row in rows]
    attacked = collate(views="all blends", adversaries=(PGD(eps=0.1, steps=1),), model=Net())(rows[0])
    assert torch.equal(attacked.clean, plain[0].images)
    assert attacked.attacked.all()
    compose = collate(returns="pair", views="all blends")
    ahead = Prefetcher(DataLoader(rows, batch_size=None, collate_fn=compose.compose), compose)  # type: ignore[arg-type]
    sent = pickle.loads(pickle.dumps(collate(returns="pair", views="all blends")))
    replayed, recorders = collate(returns="pair", views="all blends"), [Strict() for _ in BLENDS]
    replayed._renderer._renderers = tuple(Renderer(Captures(recorder)) for recorder in recorders)  # type: ignore[union-attr]
    for row, one, other in zip(rows, plain, ahead, strict=True):
        for made in (other, sent(row), replayed(row), replayed.twin(None)(row)):
            assert torch.equal(made.images, one.images)
            assert torch.equal(made.labels, one.labels)
    assert all(recorder.replays for recorder in recorders)


@pytest.mark.compile
def test_compiled() -> None:
    torch._dynamo.reset()
    two = SceneRange(blend=OneOf((Over(), Feather())), pose=PoseRange(scale=(0.4, 0.7)))  # a program each
    quick, plain = (collate(two, views="all blends", compile=compile) for compile in (True, False))
    for rows in list(sampler())[:2]:
        one, other = quick(rows), plain(rows)
        close = (one.images - other.images).abs().flatten(1).amax(dim=1) < 1 / 255
        assert close.float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "all"}, r"^views: expected one of None, 'all blends', got 'all'"),
        ({"views": "all blends", "ranges": SceneRange()}, r"^views: expected ranges with several blends, got Over"),
        ({"views": "all blends", "chain": ContextChain(0.2)}, r"^views: expected no ContextChain with it, got "),
        ({"views": "all blends", "adversaries": (ScenePGD(),), "model": Net()}, r"^views: expected no ScenePGD"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        collate(**options)
