"""Wild ranges, small composers, and the oracle beside them."""

from dataclasses import replace

import numpy as np
import oracle
import torch
from conftest import make_contexts, make_objects
from torch import Tensor
from torch._dynamo.utils import counters

from kornia_cag.banks.pyramid import build_pyramid
from kornia_cag.core.records import mapped, tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Average, Difference, Hard
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Scene
from kornia_cag.scenes.targets import Composites

WILD_POSE = PoseRange(
    scale=(0.3, 1.2), aspect=(0.6, 1.6), angle=(-180, 180), shear=(-35, 35), translate=(-0.3, 0.3),
    perspective=(-0.35, 0.35),
)  # fmt: skip
WILD_COLOR = ColorRange(
    brightness=(0.4, 1.5), exposure=(-2, 1), contrast=(0.3, 1.6), saturation=(0, 2), hue=(-180, 180), tint=(-0.3, 0.3),
    veil=(0, 0.4), illumination=(-0.8, 0.8), invert=0.3,
)  # fmt: skip
WARPED = replace(WILD_POSE, elastic=(0.02, 0.15), hole=(0.05, 0.4), holes=2)
LENS = CameraRange(blur=0.8, gaussian=(0.4, 1.5), box=(1, 5), motion=(1, 6), noise=(0, 0.1), grain=(0, 0.1),
                   low_resolution=(0, 2))  # fmt: skip

RANGES = {
    "default": SceneRange(),
    "hard": SceneRange(pose=WILD_POSE, blend=Hard()),
    "difference": SceneRange(pose=WILD_POSE, blend=Difference()),
    "average": SceneRange(pose=WILD_POSE, blend=Average(0.6)),
    "pose": SceneRange(pose=WILD_POSE, crop=(0.05, 1.0)),
    "elastic": SceneRange(pose=replace(WILD_POSE, elastic=(0.02, 0.2), wavelength=(0.4, 2))),
    "holes": SceneRange(pose=replace(WILD_POSE, hole=(0.0, 0.5), holes=3)),
    "framing": SceneRange(pose=WARPED, framing=Framing()),
    "framing, large": SceneRange(pose=WILD_POSE, framing=Framing(1.4), blend=Average()),
    "low resolution": SceneRange(camera=CameraRange(low_resolution=(0, 3))),
    "blur": SceneRange(camera=replace(LENS, noise=(0, 0), grain=(0, 0), low_resolution=(0, 0))),
    "grain": SceneRange(camera=CameraRange(grain=(0.02, 0.2), grain_size=(1.0, 4.0))),
    "noise": SceneRange(camera=CameraRange(noise=(0.02, 0.2))),
    "color": SceneRange(color=WILD_COLOR),
    "own colors": SceneRange(color=WILD_COLOR, object_color=WILD_COLOR, context_color=WILD_COLOR),
    "all": SceneRange(
        pose=WARPED,
        framing=None,
        crop=(0.2, 0.9),
        color=WILD_COLOR,
        object_color=WILD_COLOR,
        context_color=WILD_COLOR,
        camera=LENS,
    ),
    "all, hard": SceneRange(
        pose=WARPED,
        framing=Framing(),
        crop=(0.2, 0.9),
        color=WILD_COLOR,
        object_color=WILD_COLOR,
        context_color=None,
        camera=LENS,
        blend=Hard(),
    ),
    "all, average": SceneRange(
        pose=WARPED,
        framing=Framing(),
        crop=(0.2, 0.9),
        color=WILD_COLOR,
        object_color=None,
        context_color=WILD_COLOR,
        camera=LENS,
        blend=Average(0.7),
    ),
}


def rows(n: int, device: torch.device | str = "cpu", layers: int = 1) -> Rows:
    """Five objects, three times as fast from layer to layer, on seven contexts."""
    index = torch.arange(n, device=device)
    objects = torch.stack([(index * 3**layer + layer) % 5 for layer in range(layers)], dim=1)
    return Rows.of(objects, index % 7, index, epoch=2)


def make_composer(ranges: SceneRange, size: tuple[int, int], device: torch.device | str = "cpu") -> Composer:
    """With thickness variants, and levels that follow from the finest one alone."""
    bank = make_objects().with_thickness([-1, 1])
    bank = replace(bank, pyramid=build_pyramid(bank.pyramid.level(0), replicate=False))
    return Composer(bank.to(device), make_contexts(device), size, ranges)


def scene_of(made: Composites) -> Scene:
    assert made.scene is not None
    return made.scene


def compare(
    composer: Composer, rows: Rows, made: Composites, strength: float = 1.0, earlier: Tensor | None = None
) -> int:
    """Hold every composite against the oracle; say how many have no rounding tie."""
    sure, targets = 0, made.targets
    assert targets is not None
    told = composer.ranges.layout is not None or composer.ranges.blend.draws()  # by the scene, beside its keys
    for i, row in enumerate(rows):
        behind = None if earlier is None else earlier[i].permute(1, 2, 0).double().cpu().numpy()
        objects = row.layers[0].tolist()
        drawn = mapped(lambda tensor, i=i: tensor[i : i + 1].cpu(), scene_of(made).layers) if told else None
        expected = oracle.scene(composer, objects, int(row.contexts), row.keys, strength, behind, drawn)
        hidden = [drawn is not None and layer.shown is not None and not bool(layer.shown) for layer in drawn or objects]
        labels = [-1 if gone else int(composer.objects.labels[n]) for n, gone in zip(objects, hidden, strict=True)]
        assert made.labels[i].tolist() == targets.labels[i].tolist() == labels
        if not expected.sure:
            continue
        sure += 1
        assert np.abs(made.images[i].permute(1, 2, 0).cpu().numpy() - expected.image).max() < 1 / 255
        assert len(expected.objects) == len(objects)
        for k, one in enumerate(expected.objects):
            assert np.abs(targets.masks[i, k].cpu().numpy() - one.mask).max() < 1 / 255
            assert np.abs(targets.full[i, k].cpu().numpy() - one.full).max() < 1 / 255
            assert abs(float(targets.share[i, k]) - one.mask.sum() / max(one.full.sum(), 1e-6)) < 1 / 255
            assert bool(targets.visible[i, k]) == (one.box is not None)
            box = targets.boxes[i, k]
            assert box.isnan().all() if one.box is None else tuple(box.tolist()) == one.box
    return sure


def same(one: object, other: object, layout: bool = True) -> bool:
    """Whether two records hold the same tensors, to the bit, NaN included, and laid out alike."""
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return bool(pairs) and all(
        a.dtype == b.dtype and torch.equal(bits(a), bits(b)) and (a.stride() == b.stride() or not layout)
        for a, b in pairs
    )


def bits(tensor: Tensor) -> Tensor:
    return tensor if not tensor.is_floating_point() else torch.nan_to_num(tensor, nan=-9.0)


def pictures(made: Composites) -> tuple[Tensor, ...]:
    """Everything about composites that has pixels, and where they are."""
    assert made.targets is not None
    return made.images, made.targets.masks, made.targets.boxes, made.targets.visible, made.targets.full


def equal_when_compiled(maker: Composer, layers: int) -> None:
    """Compose two batches of other sizes by the same compiled graphs, and hold them against eager mode."""
    torch._dynamo.reset()
    counters.clear()
    renderer = Renderer()
    renderer.compile()
    for size in (9, 12):
        table = rows(size, layers=layers)
        fast, slow = renderer(maker, table, 1.0, None, targets=True, scene=True), maker(table)
        assert torch.equal(fast.labels, slow.labels)
        for one, other in zip(pictures(fast)[:2], pictures(slow)[:2], strict=True):
            close = (one - other).abs().flatten(1).amax(dim=1) < 1 / 255
            assert close.float().mean() > 0.85
    assert counters["stats"]["unique_graphs"] == (1 if layers == 1 else 5)
    assert not counters["graph_break"]
