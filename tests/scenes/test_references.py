import pickle

import pytest
import torch
from conftest import make_contexts
from PIL import Image

from kornia_cag import ContextBank, InputError, References
from kornia_cag.scenes import references
from kornia_cag.scenes.lab import moments, rgb_to_lab
from kornia_cag.scenes.matching import shares_below


def test_photos_from_a_folder_a_bank_and_tensors(tmp_path, device):
    photo = torch.randint(0, 256, (40, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for i in range(3):
        Image.fromarray((photo // (i + 1)).numpy()).save(tmp_path / f"{i}.png")
    bank = ContextBank.from_folder(tmp_path, device=device)
    tensors = [(photo // (i + 1)).permute(2, 0, 1) for i in range(3)]
    found = [References(source, device=device) for source in (str(tmp_path), tmp_path, tensors)] + [References(bank)]
    for one in found:
        assert (len(one), one.device, one.photos.size) == (3, bank.device, 64)
        assert one.photos.pyramid.checksum() == bank.pyramid.checksum()
    assert References(tmp_path, size=16).photos.size == 16
    assert repr(References(tmp_path, size=16)) == "References(photos=3, size=16, device='cpu')"


def test_what_is_known_of_photos(monkeypatch):
    photos = References(make_contexts(count=7))
    images = photos.photos.pyramid.level(0).contiguous().float() / 255
    monkeypatch.setattr(references, "_PIXELS", 2 * 32 * 32)  # photos are looked at two by two
    known, want = photos.moments, moments(rgb_to_lab(images))
    for name in ("mean", "light", "color"):
        torch.testing.assert_close(getattr(known, name), getattr(want, name), atol=1e-3, rtol=1e-4)
    assert torch.equal(photos.shares, shares_below(images))
    spectrum = torch.fft.fft2(images, norm="forward").abs()
    want = spectrum[:, :, [0, 1, 2, -2, -1], :3]
    torch.testing.assert_close(photos.amplitudes(2), want, atol=1e-6, rtol=0)
    assert photos.amplitudes(2) is photos.amplitudes(2)
    assert photos.amplitudes(0).shape == (7, 3, 1, 1)


def test_they_are_computed_once_even_in_inference_mode():
    photos = References(make_contexts())
    with torch.inference_mode():
        known = photos.moments.mean, photos.shares, photos.amplitudes(1)
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in known)
    assert photos.moments.mean is known[0]
    copy = pickle.loads(pickle.dumps(photos))  # for the workers of a loader
    assert torch.equal(copy.shares, known[1])
    assert torch.equal(photos.to("cpu").shares, known[1])


@pytest.mark.usefixtures("untyped")
def test_bad_photos(tmp_path):
    with pytest.raises(InputError) as error:
        References(make_contexts(), size=16)
    assert str(error.value) == (
        "photos: expected a folder or tensors with size=... or device=..., got a bank, which has its own. "
        "Load the bank with them."
    )
    with pytest.raises(InputError) as error:
        References(make_contexts()).amplitudes(16)
    assert str(error.value) == (
        "references: expected photos of more than 32 texels per side for these images and this beta, got 32. "
        "Load them larger, or lower beta."
    )
    with pytest.raises(InputError, match=r"^images: expected a batch of RGB images, or a list of them, got 3"):
        References(3)
    with pytest.raises(InputError, match=r"^images\[0\]: expected values in \[0, 1\], got 0 to 255"):
        References(torch.linspace(0, 255, 3 * 64).view(1, 3, 8, 8))
    with pytest.raises(InputError, match="picture"):
        References(tmp_path)
