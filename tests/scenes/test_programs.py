import pytest
import torch
from composing import RANGES, make_composer, rows, same
from torch._dynamo.utils import counters

from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.programs import composed, outputs
from kornia_cag.scenes.strength import Ramp, given_strength

SIZE = (14, 18)


def test_strength_by_number_and_by_epoch():
    epoch = torch.tensor([0, 2, 3, 5, 6, 9])
    assert given_strength(Ramp(start=2, stop=6), epoch).tolist() == [0, 0, 0.25, 0.75, 1, 1]
    fixed = given_strength(0.3, epoch)
    assert fixed.dtype == torch.float32
    assert fixed.tolist() == pytest.approx([0.3] * 6)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_outputs_are_what_is_made_of_every_pixel(layers, targets, staged):
    composer, table = make_composer(RANGES["all"], SIZE), rows(4, layers=layers)
    found = outputs(composer, 4, layers=layers, targets=targets, staged=staged)
    made = composer(table, targets=targets)
    want = {"images": made.images}
    if targets:
        want["masks"] = made.targets.masks
        if layers > 1:
            want["full"] = made.targets.full
    if staged:
        want["canvas"] = made.images  # as large, in float32 whatever the images are
    assert found == {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in want.items()}


@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_large_is_written_where_it_should_be(layers):
    composer, table = make_composer(RANGES["all"], SIZE), rows(4, layers=layers)
    given = composer, 1.0, table.table, table.keys, composer.plan(layers), None
    shapes = outputs(composer, 4, layers=layers, targets=True, staged=False)
    into = {name: torch.full(shape, 7.0, dtype=dtype) for name, (shape, dtype) in shapes.items()}
    made = composed(*given, into, True, True)
    assert made.images is into["images"]
    assert made.targets.masks is into["masks"]
    assert made.targets.full is into.get("full", into["masks"])
    free = composed(*given, None, True, True)
    assert same(made, free)
    assert same(free, composer(table), layout=False)
    assert composed(*given, None, False, False).scene is None


@pytest.mark.compile
def test_any_number_of_objects_by_the_same_graphs():
    """Three graphs for two objects or more, and one that draws for each number; what eager mode makes."""
    torch._dynamo.reset()
    counters.clear()
    composer, renderer = make_composer(RANGES["pose"], SIZE), Renderer()
    renderer.compile()
    close, count, wrong = 0, 0, 0
    for layers, b in ((2, 6), (3, 5), (4, 7), (2, 3)):
        table = rows(b, layers=layers)
        images = torch.rand(b, 3, *SIZE, generator=torch.Generator().manual_seed(layers))
        behind = torch.where(torch.arange(b) % 2 == 0, 9, -1)[:, None].expand(-1, layers).contiguous()
        earlier = Earlier(images, behind)
        fast = renderer(composer, table, 0.8, earlier, targets=True, scene=True)
        slow = composer(table, torch.full((b,), 0.8), earlier)
        assert torch.equal(fast.chained, slow.chained)
        assert torch.equal(fast.labels, slow.labels)
        for name in ("angle", "scale", "x", "tilt_y"):
            for one, other in zip(fast.scene.layers, slow.scene.layers, strict=True):
                torch.testing.assert_close(getattr(one.pose, name), getattr(other.pose, name), rtol=1e-5, atol=1e-5)
        for one, other in ((fast.images, slow.images), (fast.targets.masks, slow.targets.masks),
                           (fast.targets.full, slow.targets.full)):  # fmt: skip
            assert one.stride() == other.stride()
            close += int(((one - other).abs().flatten(1).amax(dim=1) < 1 / 255).sum())
            count += b
        apart = (fast.targets.boxes.nan_to_num(-9) - slow.targets.boxes.nan_to_num(-9)).abs().amax(dim=-1)
        wrong += int((apart > 1).sum())
        assert (fast.targets.visible == slow.targets.visible).float().mean() > 0.9
    assert close >= 0.95 * count  # a tie of a level may fall to either side in one picture of many
    assert wrong <= 3
    assert counters["stats"]["unique_graphs"] == 3 + 3  # backdrop, layer, camera; draws for 2, 3 and 4 objects
    assert not counters["graph_break"]
