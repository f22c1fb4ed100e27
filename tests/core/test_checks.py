"""Pictures with values that are none, at every entrance."""

import math
import pickle

import pytest
import torch

from kornia_cag import CAGCollate, ContextBank, InputError, ObjectBank
from kornia_cag.banks.pyramid import build_pyramid
from kornia_cag.command.sheets import save_rows, save_sheet, sheet
from kornia_cag.core.checks import check_number, check_range, fail, first_few
from kornia_cag.evaluation.real import RealSet


def picture(values, channels=3):
    rgb = torch.as_tensor(values, dtype=torch.float32).expand(channels, 16, 16).clone()
    rgb[-1, :4] = 0 if channels == 4 else rgb[-1, :4]
    return rgb


def collate():
    return CAGCollate(ObjectBank.from_glyphs("ab", size=16), None, size=16)


ENTRANCES = {
    "objects": lambda values, tmp: ObjectBank.from_tensors([picture(values, 4)], size=16),
    "contexts": lambda values, tmp: ContextBank.from_tensors([picture(values)], size=16),
    "pyramid": lambda values, tmp: build_pyramid(picture(values)[None], replicate=True),
    "items": lambda values, tmp: collate()([picture(values)]),
    "real set": lambda values, tmp: RealSet(picture(values)[None], torch.zeros(1, dtype=torch.int64), "one"),
    "sheet": lambda values, tmp: sheet(picture(values)[None]),
    "sheet file": lambda values, tmp: save_sheet(tmp / "a.png", picture(0.5)[None], below=[picture(values)[None, :1]]),
    "rows": lambda values, tmp: save_rows(tmp / "a.png", [("a", picture(values)[None])]),
}
RAMP = torch.linspace(0, 1, 16)


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (255 * RAMP, r"expected values in \[0, 1\], got 0 to 255\. Divide by 255, or pass uint8"),
        (RAMP + 0.5, r"got 0(\.5)? to 1\.5\. Divide by 255 if .* clamp"),
        (4 * RAMP - 2, r"got -2 to 2\. Undo the normalisation"),
        (65535 * RAMP, r"got 0 to 6\.55e\+04\. Divide by the highest possible value"),
        (RAMP / 0, "got NaN.*division by zero"),
        (torch.where(RAMP > 0.5, math.inf, RAMP), "got 0 to inf.*division by zero"),
        (-1 / RAMP, "got -inf to"),
    ],
)
def test_floats_beyond_0_to_1_are_refused_with_the_way_out(tmp_path, entrance, values, message):
    with pytest.raises(InputError, match=message) as caught:
        ENTRANCES[entrance](values, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_what_resizing_overshoots_is_clamped(tmp_path, entrance):
    ENTRANCES[entrance](1.018 * RAMP - 0.009, tmp_path)
    over = ContextBank.from_tensors([picture(1.018 * RAMP - 0.009)], size=16).pyramid
    assert torch.equal(
        over.atlas, ContextBank.from_tensors([picture((1.018 * RAMP - 0.009).clamp(0, 1))], size=16).pyramid.atlas
    )


@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_pixel_is_no_picture(shape, dtype):
    for make in (
        lambda: ObjectBank.from_tensors([torch.zeros(4, *shape, dtype=dtype)]),
        lambda: ContextBank.from_tensors([torch.zeros(3, *shape, dtype=dtype)]),
        lambda: collate()([torch.zeros(3, *shape, dtype=dtype)]),
    ):
        with pytest.raises(InputError, match=r"s\[0\]: expected at least one pixel, got \w+ \([34], [08], [08]\)"):
            make()


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, -math.inf, math.nan])
def test_numbers_that_no_float_holds_are_refused(value):
    with pytest.raises(InputError, match=r"^x: expected a number in \[-inf, inf\], got "):
        check_number("x", value)
    for pair in ((0, value), (value, 0)):
        with pytest.raises(InputError, match=r"^x: expected a pair \(low, high\)"):
            check_range("x", pair)


def test_an_error_keeps_its_argument_on_its_way_from_a_worker():
    with pytest.raises(InputError) as caught:
        fail("size", "a number", "none", "Take one.")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.argument) == ("size: expected a number, got none. Take one.", "size")
    assert InputError("only a message").argument == ""  # as torch's loader raises it again


def test_the_first_few_of_many():
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert first_few(["a", "b"], ";", most=1) == "a; and 1 more"
    assert first_few([]) == ""
