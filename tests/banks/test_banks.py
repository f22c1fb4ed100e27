import gc
import math
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import ContextBank, InputError, ObjectBank
from kornia_cag.banks import folders, tiles
from kornia_cag.banks.texels import EXTENT


def rgba(height=20, width=20, color=(255, 0, 0), hole=4):
    """A straight RGBA picture: one colour inside, another colour hidden where nothing is to be seen."""
    picture = np.zeros((height, width, 4), np.uint8)
    picture[..., :3] = (0, 255, 255)
    picture[hole:-hole, hole:-hole] = (*color, 255)
    return picture


def tensor(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


# --- objects


def test_a_file_per_class_gives_sorted_class_names(tmp_path, device):
    for name, color in (("b", (0, 0, 255)), ("a", (255, 0, 0)), ("c", (0, 255, 0))):
        save(tmp_path / f"{name}.png", rgba(color=color))
    bank = ObjectBank.from_folder(tmp_path, size=16, device=device)
    assert bank.classes == ("a", "b", "c")
    assert bank.labels.tolist() == [0, 1, 2]
    assert (len(bank), bank.size, bank.variants, bank.device.type) == (3, 16, 1, device.type)
    middle = bank.pyramid.level(0)[:, :, 8, 8].cpu()
    assert middle.tolist() == [[255, 0, 0, 255], [0, 0, 255, 255], [0, 255, 0, 255]]


def test_a_folder_per_class(tmp_path):
    for name in ("two/x.png", "two/y.png", "one/z.png"):
        save(tmp_path / name, rgba())
    bank = ObjectBank.from_folder(tmp_path, size=16)
    assert bank.classes == ("one", "two")
    assert bank.labels.tolist() == [0, 1, 1]


def test_objects_are_premultiplied_and_hidden_colour_never_bleeds(tmp_path):
    """Red on a transparent cyan: whatever the level, nothing but red is seen, and never more than the alpha."""
    save(tmp_path / "red.png", rgba(64, 64, hole=8))
    bank = ObjectBank.from_folder(tmp_path, size=32)
    for level in range(bank.pyramid.levels):
        r, g, b, alpha = bank.pyramid.level(level)[0].int().unbind(0)
        assert (g == 0).all()
        assert (b == 0).all()
        assert (r <= alpha).all()
    soft = torch.full((4, 8, 8), 128, dtype=torch.uint8)
    picture = ObjectBank.from_tensors([soft], size=16).pyramid.level(0)[0, :, 8, 8]
    assert picture.tolist() == [64, 64, 64, 128]


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40), (33, 33), (3, 90)])
def test_the_visible_part_fills_the_extent_in_its_own_aspect_ratio(height, width):
    picture = np.zeros((120, 140, 4), np.uint8)
    picture[10 : 10 + height, 30 : 30 + width] = 255
    bank = ObjectBank.from_tensors([tensor(picture)], size=32)
    seen = bank.pyramid.level(0)[0, 3] > 127
    rows, columns = seen.any(dim=1).nonzero()[:, 0], seen.any(dim=0).nonzero()[:, 0]
    inner = round(32 * EXTENT)
    assert max(len(rows), len(columns)) == inner
    assert min(len(rows), len(columns)) == max(1, round(inner * min(height, width) / max(height, width)))
    for places in (rows, columns):  # in the middle, up to half a texel
        assert abs(places[0] - (31 - places[-1])) <= 1


def test_float_and_uint8_tensors_of_equal_and_different_sizes_agree():
    pictures = [tensor(rgba(20, 20)), tensor(rgba(30, 24, (9, 99, 199)))]
    as_bytes = ObjectBank.from_tensors(pictures, size=16)
    as_floats = ObjectBank.from_tensors([p.float() / 255 for p in pictures], size=16)
    assert torch.equal(as_bytes.pyramid.atlas, as_floats.pyramid.atlas)
    batch = torch.stack([pictures[0]] * 3)
    bank = ObjectBank.from_tensors(batch, [0, 1, 0], classes=["x", "y"], size=16)
    assert bank.labels.tolist() == [0, 1, 0]
    assert bank.classes == ("x", "y")
    assert torch.equal(bank.pyramid.atlas[0], as_bytes.pyramid.atlas[0])


def test_glyphs_are_black_and_all_different():
    bank = ObjectBank.from_glyphs("01b", size=32)
    assert bank.classes == ("0", "1", "b")
    assert bank.labels.tolist() == [0, 1, 2]
    level = bank.pyramid.level(0).int()
    assert (level[:, :3] == 0).all()
    assert (level[:, 3].flatten(1).amax(dim=1) == 255).all()
    assert (level[0] != level[1]).any()


def test_ink_paints_the_same_shape():
    bank = ObjectBank.from_glyphs("25", size=32)
    painted = bank.with_ink((255, 102, 0))
    before, after = bank.pyramid.level(0).float(), painted.pyramid.level(0).float()
    assert torch.equal(before[:, 3], after[:, 3])
    assert (after[:, 0] - after[:, 3]).abs().max() <= 1
    assert (after[:, 1] - 0.4 * after[:, 3]).abs().max() <= 1
    assert after[:, 2].max() == 0
    assert painted.classes == bank.classes


def test_thickness_orders_variants_and_grows_the_stroke(device):
    bank = ObjectBank.from_glyphs("0123456789", size=64, device=device).with_ink((255, 255, 255))
    thick = bank.with_thickness([3, -1, 1])
    assert thick.variants == 4
    assert len(thick) == len(bank) == 10
    pictures = thick.pyramid.level(0).unflatten(0, (10, 4))
    assert torch.equal(pictures[:, 0], bank.pyramid.level(0))  # as drawn comes first
    ink = pictures[:, :, 3].float().sum(dim=(2, 3))
    drawn, thinner, thicker, thickest = ink.unbind(1)
    assert (thinner < drawn).all()
    assert (drawn < thicker).all()
    assert (thicker < thickest).all()
    assert (pictures[:, :, :3] <= pictures[:, :, 3:]).all()


def test_dilation_by_a_disc_of_known_radius():
    picture = torch.zeros(4, 56, 56, dtype=torch.uint8)
    picture[:, :, 26:30] = 255  # a stroke of 4 texels in a bank of 64
    bank = ObjectBank.from_tensors([picture], size=64).with_thickness([2])
    widths = (bank.pyramid.level(0)[:, 3, 32] > 127).sum(dim=1)
    assert widths.tolist() == [4, 8]


def test_objects_move(device):
    bank = ObjectBank.from_glyphs("ab", size=16, device="cpu").with_thickness([1])
    moved = bank.to(device)
    assert moved.device.type == moved.labels.device.type == device.type
    assert torch.equal(moved.pyramid.atlas.cpu(), bank.pyramid.atlas)
    assert (moved.classes, moved.variants, moved.size) == (bank.classes, bank.variants, bank.size)


def test_banks_serve_as_keys_and_compare_by_identity():
    objects, contexts = ObjectBank.from_glyphs("ab", size=16), ContextBank.procedural(count=2, size=16)
    for bank in (objects, contexts, contexts.pyramid):
        assert {bank: 1}[bank] == 1
        assert bank == bank
        assert bank != bank.to("cpu")


def test_contexts_of_one_size_are_put_together(tmp_path):
    save(tmp_path / "a.png", rgba()[..., :3])
    banks = (
        ContextBank.from_folder(tmp_path),
        ContextBank.from_tensors([GOOD[0][:3]]),
        ContextBank.procedural(count=1, size=64),
    )
    assert len(banks[0] + banks[1] + banks[2]) == 3
    assert banks[0].size == 64
    with pytest.raises(InputError, match=r"^contexts: .*size 64 on cpu, got size 128 on cpu\..* such as size=128"):
        banks[0] + ContextBank.procedural(count=1)


def test_repr_tells_counts_size_device_and_bytes():
    bank = ObjectBank.from_tensors([tensor(rgba())] * 3, [0, 1, 1], size=16)
    size = bank.pyramid.atlas.nbytes
    assert repr(bank) == f"ObjectBank(objects=3, classes=2, size=16, device='cpu', bytes={size:_})"
    assert "variants=2" in repr(bank.with_thickness([1]))
    contexts = ContextBank.procedural(count=4, size=16)
    want = f"ContextBank(contexts=4, size=16, device='cpu', bytes={contexts.pyramid.atlas.nbytes:_})"
    assert repr(contexts) == want


GOOD = [tensor(rgba())] * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObjectBank.from_tensors(GOOD, size=20), "size: expected a power of two"),
        (lambda: ObjectBank.from_tensors([]), "images: expected at least one RGBA image, got none"),
        (lambda: ObjectBank.from_tensors([GOOD[0][:3]]), r"images\[0\]: .*\(4, h, w\), got uint8 \(3, 20, 20\)"),
        (lambda: ObjectBank.from_tensors([GOOD[0], GOOD[0].double()]), r"images\[1\]: .* got float64"),
        (lambda: ObjectBank.from_tensors([0 * GOOD[0]]), r"images\[0\]: expected an object that can .* at most 0 of"),
        (lambda: ObjectBank.from_tensors([GOOD[0], GOOD[0] // 51]), r"images\[1\]: .*at least 6 of 255.*at most 5"),
        (lambda: ObjectBank.from_tensors([GOOD[0], 0 * GOOD[0] + 255]), r"images\[1\]: .*transparency.*key=\"white\""),
        (lambda: ObjectBank.from_tensors([torch.ones(4, 9, 9)]), r"images\[0\]: .*transparency, got none\. Add an"),
        (lambda: ObjectBank.from_tensors([torch.ones(4, 0, 9)]), r"images\[0\]: expected at least one pixel"),
        (lambda: ObjectBank.from_tensors(GOOD, [0]), r"labels: expected .*\(2\)"),
        (lambda: ObjectBank.from_tensors(GOOD, ["a", "b"]), r"labels: expected class ids .*Pass names as classes"),
        (lambda: ObjectBank.from_tensors(GOOD, [[0], [1, 2]]), r"labels: expected class ids 0 to C - 1, one per image"),
        (lambda: ObjectBank.from_tensors(GOOD, [0.0, 1.0]), "labels: expected int64 or int32"),
        (lambda: ObjectBank.from_tensors(GOOD, [0, 2]), r"labels: expected class ids 0 to C - 1.*\[0, 2\]"),
        (lambda: ObjectBank.from_tensors(GOOD, [-1, 0]), "labels: expected class ids 0 to C - 1"),
        (lambda: ObjectBank.from_tensors(GOOD, classes=["a"]), "classes: expected 2 names, got 1"),
        (lambda: ObjectBank.from_glyphs(""), "characters: expected at least one character"),
        (lambda: ObjectBank.from_glyphs("a\U0010ffff"), "characters: expected one that the font can draw"),
        (lambda: ObjectBank.from_glyphs("aba"), "characters: .*none twice, got 'aba'"),
        (lambda: ObjectBank.from_glyphs("ab", size=0), "size: expected a power of two"),
        (lambda: ObjectBank.from_tensors(GOOD, size=16).with_ink((1, 2)), "rgb: expected three integers"),
        (lambda: ObjectBank.from_tensors(GOOD, size=16).with_ink((1, 2, 256)), "rgb: .*at most 255, got 256"),
        (lambda: ObjectBank.from_tensors(GOOD, size=16).with_thickness([2]), "radii: .*at most 1, got 2"),
        (lambda: ObjectBank.from_glyphs("a").with_thickness([1]).with_thickness([1]), "thickness: .*2 variants"),
        (lambda: ObjectBank.from_glyphs("l.", size=64).with_thickness([-4]), r"radii: .*\[-4\]. Class 'l' vanishes"),
        (lambda: ContextBank.from_tensors([]), "images: expected at least one RGB image"),
        (lambda: ContextBank.from_tensors(GOOD), r"images\[0\]: expected .*\(3, h, w\)"),
        (lambda: ContextBank.from_tensors([GOOD[0][:3]], size=3), "size: expected a power of two"),
        (lambda: ContextBank.procedural("stars"), "kind: expected one of .*'stars'"),
        (lambda: ContextBank.procedural(count=0), "count: expected an integer of at least 1, got 0"),
        (lambda: ContextBank.procedural(size=24), "size: expected a power of two"),
    ],
)  # fmt: skip
def test_misuse_is_named(make, message, untyped):
    with pytest.raises(InputError, match=message):
        make()


def test_a_file_without_alpha_names_both_ways_out(tmp_path):
    picture = np.full((20, 20, 3), 255, np.uint8)
    picture[5:15, 5:15] = (255, 0, 0)
    picture[8:12, 8:12] = 255  # white inside stays
    save(tmp_path / "sign.png", picture)
    with pytest.raises(InputError, match=r"sign\.png: .*alpha channel.*key=\"white\""):
        ObjectBank.from_folder(tmp_path, size=16)
    level = ObjectBank.from_folder(tmp_path, size=16, key="white").pyramid.level(0)[0]
    assert level[:, 0, 0].tolist() == [0, 0, 0, 0]
    assert level[:, 8, 8].tolist() == [255, 255, 255, 255]


def test_an_object_too_faint_to_see_is_refused_by_name_or_skipped(tmp_path):
    faint = rgba()
    faint[..., 3] = faint[..., 3].clip(max=3)
    save(tmp_path / "a" / "good.png", rgba())
    save(tmp_path / "a" / "faint.png", faint)
    with pytest.raises(InputError, match=r"faint\.png: .*alpha"):
        ObjectBank.from_folder(tmp_path, size=16)
    with pytest.warns(UserWarning, match=r"skipped 1 bad file\(s\): .*faint\.png"):
        bank = ObjectBank.from_folder(tmp_path, size=16, on_error="skip")
    assert len(bank) == 1


@pytest.mark.parametrize("bank", [ObjectBank, ContextBank])
def test_folders_that_do_not_serve(tmp_path, bank):
    with pytest.raises(InputError, match="missing"):
        bank.from_folder(tmp_path / "missing")
    with pytest.raises(InputError, match="pictures"):
        bank.from_folder(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"broken\.png"):
        bank.from_folder(tmp_path)
    with pytest.raises(InputError, match="broken"):
        bank.from_folder(tmp_path, on_error="skip")  # would leave nothing
    with pytest.raises(InputError, match="on_error: expected one of 'raise', 'skip', got 'ignore'"):
        bank.from_folder(tmp_path, on_error="ignore")
    with pytest.raises(InputError, match="size: expected a power of two"):
        bank.from_folder(tmp_path, size=100)


def test_a_huge_picture_is_reduced_with_hardly_a_trace(tmp_path, monkeypatch):
    """What is reduced first equals what is not by about a level; a JPEG by a few more."""
    y, x = np.mgrid[:300, :400]
    soft = np.stack([127 + 120 * np.sin(x / 30), 127 + 120 * np.cos(y / 40), (x + y) / 3, 255 * (x > 100)], axis=-1)
    save(tmp_path / "objects" / "a.png", soft.astype(np.uint8))
    for suffix in ("png", "jpg"):
        save(tmp_path / suffix / f"a.{suffix}", soft[..., :3].astype(np.uint8))

    def banks():
        yield ObjectBank.from_folder(tmp_path / "objects", size=32).pyramid.level(0).int()
        yield ContextBank.from_folder(tmp_path / "png", size=32).pyramid.level(0).int()
        yield ContextBank.from_folder(tmp_path / "jpg", size=32).pyramid.level(0).int()

    plain = list(banks())
    monkeypatch.setattr(tiles, "HUGE", 20_000)
    for before, after, bound in zip(plain, banks(), (6, 3, 6), strict=True):
        assert not torch.equal(before, after)
        assert (before - after).abs().max() <= bound
        assert (before - after).abs().float().mean() < 1


@pytest.mark.parametrize(("bank", "reader"), [(ObjectBank, "read_rgba"), (ContextBank, "read_rgb")])
def test_full_size_pictures_are_not_all_held_at_once(tmp_path, monkeypatch, bank, reader):
    """Each picture is let go before the next but one is read."""
    for i in range(5):
        save(tmp_path / f"{i}.png", rgba(64, 64)[..., : 4 if bank is ObjectBank else 3])
    held, most, read = [], 0, getattr(folders, reader)

    def spy(*args, **options):
        nonlocal most
        gc.collect()
        most = max(most, sum(ref() is not None for ref in held))
        picture = read(*args, **options)
        held.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(folders, reader, spy)
    bank.from_folder(tmp_path, size=16)
    assert len(held) == 5
    assert most <= 1


# --- contexts


def test_contexts_keep_the_central_square(tmp_path, device):
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 12:28] = (10, 20, 30)
    save(tmp_path / "deep" / "wide.png", wide)
    save(tmp_path / "tall.png", wide.transpose(1, 0, 2))
    bank = ContextBank.from_folder(tmp_path, size=16, device=device)
    assert (len(bank), bank.size, bank.device.type) == (2, 16, device.type)
    assert (bank.pyramid.level(0).permute(0, 2, 3, 1).cpu() == torch.tensor([10, 20, 30])).all()
    same = ContextBank.from_tensors([torch.from_numpy(wide).permute(2, 0, 1)], size=16, device=device)
    assert torch.equal(same.pyramid.atlas[0], bank.pyramid.atlas[0])


def test_float_contexts_are_rounded_to_bytes():
    ramp = torch.linspace(0, 1, 16 * 16).reshape(1, 16, 16).repeat(3, 1, 1)
    bank = ContextBank.from_tensors(ramp[None], size=16)
    assert torch.equal(bank.pyramid.level(0)[0], (ramp * 255).round().byte())


def test_procedural_contexts_repeat_with_their_seed(device):
    one, same, other = (ContextBank.procedural(count=10, size=32, seed=s, device=device) for s in (1, 1, 2))
    assert one.device.type == device.type
    assert torch.equal(one.pyramid.atlas, same.pyramid.atlas)
    assert not torch.equal(one.pyramid.atlas, other.pyramid.atlas)
    solid = ContextBank.procedural("solid", count=3, size=8).pyramid.level(0)
    assert torch.equal(solid, solid[:, :, :1, :1].expand_as(solid))


def test_sums_of_contexts():
    one, two = ContextBank.procedural("solid", count=2, size=16), ContextBank.procedural("pixel", count=3, size=16)
    both = one + two
    assert len(both) == 5
    assert torch.equal(both.pyramid.atlas[:2], one.pyramid.atlas)
    assert torch.equal(both.pyramid.atlas[2:], two.pyramid.atlas)
    with pytest.raises(InputError, match="contexts: expected a bank of size 16 on cpu, got size 32 on cpu"):
        one + ContextBank.procedural(count=1, size=32)
    with pytest.raises(TypeError):
        one + 1


def test_contexts_move(device):
    bank = ContextBank.procedural(count=3, size=16, device="cpu")
    moved = bank.to(device)
    assert moved.device.type == device.type
    assert torch.equal(moved.pyramid.atlas.cpu(), bank.pyramid.atlas)


# --- real data


def test_real_signs_and_digits(data):
    signs = ObjectBank.from_folder(data / "objects" / "signs", size=32)
    assert len(signs) == len(signs.classes) == 43
    assert signs.classes[14] == "00014"
    digits = ObjectBank.from_folder(data / "objects" / "digits", size=32)
    assert digits.classes == tuple("0123456789")
    for bank in (signs, digits):
        alpha = bank.pyramid.level(0)[:, 3].float() / 255
        assert (alpha[:, 0].amax(), alpha[:, -1].amax()) == (0, 0)
        assert (alpha.flatten(1).mean(dim=1) > 0.02).all()


def test_real_photographs(data, tmp_path):
    for path in sorted((data / "contexts").iterdir())[:6]:
        (tmp_path / path.name).symlink_to(path)
    bank = ContextBank.from_folder(tmp_path, size=64)
    assert len(bank) == 6
    assert math.prod(bank.pyramid.level(0).shape) == 6 * 3 * 64 * 64
    assert (bank.pyramid.level(0).float().flatten(1).std(dim=1) > 5).all()  # no picture came out flat


@pytest.mark.parametrize(("count", "share", "held"), [(10, 0.2, 2), (7, 0.5, 4), (188, 0.2, 38), (3, 0.7, 2)])
def test_a_share_of_contexts_is_held_out_evenly(count, share, held):
    levels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    kept, back = ContextBank.from_tensors(levels, size=8).split(share)
    first = [bank.pyramid.atlas[:, 1, 1, 0].tolist() for bank in (kept, back)]
    assert sorted(first[0] + first[1]) == list(range(count))
    assert len(back) in (held, held - 1, held + 1)
    gaps = torch.tensor([-1, *first[1], count]).diff()
    assert gaps.max() <= 2 / share + 1


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(InputError, match="share held out: expected one that leaves some of 5 contexts on both sides"):
        ContextBank.from_tensors(torch.zeros(5, 3, 8, 8), size=8).split(share)


def test_an_object_that_could_never_be_seen_is_refused_truly(tmp_path, untyped):
    faint = GOOD[0].clone()
    faint[3] = faint[3].clamp(max=5)
    with pytest.raises(InputError, match=r"^images\[1\]: .* alpha of at least 6 of 255 .*got alpha of at most 5 of"):
        ObjectBank.from_tensors([GOOD[0], faint], size=16)
    Image.fromarray(faint.permute(1, 2, 0).numpy()).save(tmp_path / "ghost.png")
    with pytest.raises(InputError, match=r"ghost\.png: .*alpha of at least 6 of 255 somewhere, got at most 5 of 255"):
        ObjectBank.from_folder(tmp_path, size=16)
    dots = torch.zeros(4, 2000, 2000, dtype=torch.uint8)
    dots[3, [0, 1999], [0, 1999]] = 200
    with pytest.raises(InputError, match=r"fades away when it is fitted into 14 texels\. Make it .* or larger"):
        ObjectBank.from_tensors([dots], size=16)
    faint[3] *= 3  # seen, if hardly
    assert 0 < ObjectBank.from_tensors([faint], size=16).opacity.item() < 0.1


WRONG_IMAGES = {
    "a number": 5,
    "a name": "cat.png",
    "an iterator": iter([GOOD[0]]),
    "an array": GOOD[0].numpy(),
    "no dimension": torch.tensor(1.0),
    "sparse": GOOD[0][None].to_sparse(),
    "sparse in a list": [GOOD[0].to_sparse()],
    "without values": [GOOD[0].to("meta")],
}


@pytest.mark.parametrize("bank", [ObjectBank, ContextBank])
@pytest.mark.parametrize("images", WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_what_is_no_batch_of_images_is_refused(bank, images, untyped):
    if isinstance(images, list) and bank is ContextBank:
        images = [torch.index_select(image, 0, torch.arange(3, device=image.device)) for image in images]
    with pytest.raises(InputError, match=r"^images"):
        bank.from_tensors(images, size=8)


@pytest.mark.parametrize(
    "labels",
    [["a", "b"], "ab", [None, 0], [0, 2**70], {0, 1}, np.array(["a", "b"]), torch.zeros(2, device="meta").long()],
    ids=lambda labels: f"{type(labels).__name__} {len(labels)}",
)  # fmt: skip
def test_labels_that_are_no_integers_are_refused(labels, untyped):
    with pytest.raises(InputError, match=r"^labels: expected class ids 0 to C - 1, one per image, got .* as classes"):
        ObjectBank.from_tensors([GOOD[0], GOOD[0]], labels, size=8)


@pytest.mark.parametrize("classes", ["ab", 5, {"a", "b"}])
def test_class_names_are_a_list(classes, untyped):
    with pytest.raises(InputError, match=r"^classes: expected a list of 2 names"):
        ObjectBank.from_tensors([GOOD[0], GOOD[0]], classes=classes, size=8)
