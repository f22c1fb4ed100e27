import math

import pytest
import torch
from test_randomness import keys_of

from kornia_cag.core import fields
from kornia_cag.core.fields import MEAN, UNIT, noise, noise_words, word_part


def test_noise() -> None:
    z = noise(keys_of(count=1 << 12), "field", (3, 5, 4)).double()
    assert z.shape == (1 << 12, 3, 5, 4)
    assert z.abs().max() < 3.5
    n = z.numel()
    assert abs(z.mean()) < 4.5 / math.sqrt(n)
    assert abs(z.var() - 1) < 4.5 * math.sqrt(1.7 / n)  # kurtosis of a sum of four: 2.7
    assert abs((z**4).mean() - 2.7) < 0.05
    flat = z.flatten(1)
    assert (torch.corrcoef(flat.T) - torch.eye(60)).abs().max() < 4.5 / math.sqrt(len(z))
    assert (torch.corrcoef(flat[:100]) - torch.eye(100)).abs().max() < 5 / math.sqrt(60)  # from sample to sample


def test_noise_is_a_function_of_key_slot_and_place() -> None:
    keys = keys_of(count=9)
    field = noise(keys, "s", (2, 3))
    assert torch.equal(noise(keys[4:], "s", (2, 3)), field[4:])
    assert torch.equal(noise(keys, "s", (6,)), field.flatten(1))
    assert not torch.equal(noise(keys, "t", (2, 3)), field)


@pytest.mark.parametrize("channels", [1, 3])
def test_stored_in_one_word_a_pixel_noise_is_the_same(channels: int) -> None:
    keys, shape = keys_of(count=300), (channels, 5, 7)
    words = noise_words(keys, "s", shape)
    parts = torch.stack([word_part(words, channel) for channel in range(channels)], dim=1)
    torch.testing.assert_close((parts - MEAN) * UNIT, noise(keys, "s", shape), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (3, 64, 64), (2, 3, 1)])
@pytest.mark.parametrize("threads", [1, 2])
def test_numpy_and_torch_make_the_same_bits(shape: tuple[int, ...], threads: int, monkeypatch) -> None:
    """The formula itself is what a compiler sees, so it also makes the fields of a GPU."""
    keys, before = keys_of(count=37), torch.get_num_threads()
    torch.set_num_threads(threads)
    quick = noise(keys, "camera.noise_field", shape)
    monkeypatch.setattr(fields, "_BLOCK", 20)  # blocks of a part of a row, or of several
    blocks = noise(keys, "camera.noise_field", shape)
    torch.set_num_threads(before)
    monkeypatch.setattr("kornia_cag.core.operations.fusing", lambda: True)
    assert torch.equal(noise(keys, "camera.noise_field", shape), quick)
    assert torch.equal(blocks, quick)


def test_no_keys_or_no_place() -> None:
    assert noise(keys_of(count=0), "s", (3, 2)).shape == (0, 3, 2)
    assert noise(keys_of(count=2), "s", (3, 0)).shape == (2, 3, 0)
