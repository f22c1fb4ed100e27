"""The pictures of a sample's stages are those that make the sample."""

from dataclasses import replace

import pytest
import torch
from conftest import make_contexts, make_objects

from kornia_cag import (
    CAGCollate,
    CameraRange,
    ColorRange,
    ContextChain,
    InputError,
    ObjectBank,
    Recapture,
    Rows,
    SceneRange,
)
from kornia_cag.command.stages import stages
from kornia_cag.core.records import mapped

RANGES = SceneRange(
    color=ColorRange(exposure=(-2.0, -1.0), invert=1.0),
    object_color=ColorRange(saturation=(0.0, 0.0)),
    camera=CameraRange(blur=1.0, noise=(0.1, 0.1)),
)


def made(ranges=RANGES, **options):
    index = torch.arange(6)
    collate = CAGCollate(make_objects(), make_contexts(), 24, ranges=ranges, returns="batch", **options)
    rows = [Rows.of((index + turn) % 5, index % 7, index + 6 * turn, seed=3) for turn in range(2)]
    return collate, [collate(some) for some in rows][-1]


def apart(collate, batch, place):
    one = mapped(lambda tensor: tensor[place : place + 1], batch)
    return stages(collate.composer, one.rows, one.scene, one.earlier)


def test_the_last_stage_is_the_sample():
    collate, batch = made(chain=ContextChain(reset=0.5))
    names = ("cut-out", "context", "warped", "pasted", "lit", "photographed")
    assert {True, False} == set(batch.chained.tolist())
    for place in range(6):
        found = apart(collate, batch, place)
        behind = "earlier composite" if batch.chained[place] else "context"
        assert tuple(found) == (names[0], behind, *names[2:])
        assert torch.equal(found["photographed"], batch.clean[place])
        if batch.chained[place]:
            assert torch.equal(found[behind], batch.earlier.images[place])


def test_stages_after_the_camera_come_last():
    collate, batch = made(replace(RANGES, finish=(Recapture(),)))
    found = apart(collate, batch, 1)
    assert list(found)[-2:] == ["photographed", "finished"]
    assert torch.equal(found["finished"], batch.clean[1])
    assert not torch.equal(found["photographed"], batch.clean[1])


def test_light_comes_after_pasting_and_the_camera_after_light():
    collate, batch = made()
    dark, plain = apart(collate, batch, 2), made(SceneRange(pose=RANGES.pose, color=ColorRange(exposure=(0, 0))))
    assert dark["lit"].mean() < 0.7 * dark["pasted"].mean()
    colourful = (dark["pasted"].amax(dim=0) - dark["pasted"].amin(dim=0)).max()
    assert colourful > 0.3  # neither inverted nor without colour, as its light would have it
    assert torch.equal(apart(*plain, 2)["cut-out"], dark["cut-out"])  # whatever is drawn
    assert (dark["photographed"] - dark["lit"]).abs().mean() > 0.02  # noise


def test_a_contexts_own_colours_come_with_the_light():
    grey = made(SceneRange(pose=RANGES.pose, context_color=ColorRange(saturation=(0.0, 0.0))))
    painted, plain = apart(*grey, 2), apart(*made(SceneRange(pose=RANGES.pose)), 2)
    assert torch.equal(painted["pasted"], plain["pasted"])
    assert not torch.equal(painted["lit"], plain["lit"])


@pytest.mark.parametrize(("ink", "background"), [(0, 0.93), (1, 0.47)])
def test_black_and_white_ink_are_seen(ink, background):
    pictures = torch.stack([torch.full((4, 8, 8), float(colour)) for colour in (0, 1)])
    pictures[:, 3] = 0
    pictures[:, 3, 2:6, 2:6] = 1
    objects = ObjectBank.from_tensors(pictures, size=32).with_thickness([-1])
    collate = CAGCollate(objects, make_contexts(), 32, returns="batch")
    one = collate(Rows.of(torch.tensor([ink]), torch.tensor([1]), torch.tensor([2])))
    shown = stages(collate.composer, one.rows, one.scene)["cut-out"]
    assert shown[:, 16, 16].mean() == pytest.approx(ink, abs=0.01)
    assert shown[:, :2, :].mean() == pytest.approx(background, abs=0.01)


def test_one_sample_at_a_time():
    collate, batch = made()
    with pytest.raises(InputError, match="number of rows: expected an integer of at least 1 and at most 1, got 6"):
        stages(collate.composer, batch.rows, batch.scene)
