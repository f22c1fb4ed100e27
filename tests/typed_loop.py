"""What a user writes, as a strict type checker reads it; ``test_typing.py`` checks it, nothing runs it."""

from collections.abc import Iterator
from typing import assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader  # type: ignore[import-untyped]

from kornia_cag import (
    PGD,
    Adversary,
    Batch,
    CAGCollate,
    CameraRange,
    Composer,
    ContextBank,
    Draft,
    External,
    ObjectBank,
    PairSampler,
    Prefetcher,
    Rows,
    ScenePGD,
    SceneRange,
)
from kornia_cag.loading.batch import Pair


def plain(model: nn.Module) -> Tensor:
    objects = ObjectBank.from_folder("signs", size="auto", device="auto")
    contexts = ContextBank.procedural(size=64).to(objects.device)
    pairs = PairSampler(objects.labels, len(contexts), batch_size=32)
    collate = CAGCollate(objects, contexts, 64, model=model, adversaries=(ScenePGD(), PGD(eps=0.01)))
    assert_type(collate, CAGCollate[Pair])
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate, num_workers=0, pin_memory=False)
    total = torch.zeros(())
    for images, labels in loader:
        total += nn.functional.cross_entropy(model(images), labels)
    images, labels = collate(next(iter(pairs)))
    assert_type(images, Tensor)
    return total + labels.sum()


def boxes(objects: ObjectBank, contexts: ContextBank, pairs: PairSampler) -> Iterator[Tensor]:
    ranges = SceneRange(camera=CameraRange(blur=0.5))
    collate = CAGCollate(objects, contexts, size=(64, 48), ranges=ranges, returns="batch", compile=True)
    assert_type(collate, CAGCollate[Batch])
    assert_type(collate.compile(), CAGCollate[Batch])
    for rows in pairs:
        batch = collate(rows)
        assert_type(batch, Batch)
        yield batch.boxes[batch.visible]


def ahead(collate: CAGCollate[Batch], either: CAGCollate[Pair], pairs: PairSampler) -> Iterator[Tensor]:
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate.compose)
    for batch in Prefetcher(loader, collate):
        assert_type(batch, Batch)
        yield batch.masks
    for images, labels in Prefetcher(StatefulDataLoader(pairs.dataset, batch_sampler=pairs), either):
        assert_type(images, Tensor)
        yield labels


def any_of_both(collate: CAGCollate[Pair | Batch], rows: Rows) -> Tensor:
    return collate(rows).images


def scene(composer: Composer, rows: Rows) -> Tensor:
    drawn = composer.ranges.sample(rows)
    made = composer.render(drawn.posed(angle=drawn.pose.angle + 90))
    assert made.targets is not None
    return made.targets.visible


class Darken(Adversary):
    needs_model = False

    def harden(self, model: nn.Module | None, draft: Draft) -> Draft:
        return draft.with_images(draft.pictures * (1 - draft.mask))


any_of_both(
    CAGCollate(ObjectBank.from_glyphs("a"), None, 8, returns="batch"), Rows(torch.zeros(1, 5, dtype=torch.int64))
)
CAGCollate(ObjectBank.from_glyphs("a"), None, 8, adversaries=(Darken(), External(lambda images, labels: images)))
CAGCollate(ObjectBank.from_glyphs("a"), None, 8, sise=8)  # type: ignore[call-overload]
