import warnings

import pytest
import torch
from devicewait import RefuseWaiting, Waited, no_waiting


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: int(x.sum()),
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: x[x > 0],
        lambda x: x.__setitem__(x > 0, x[:1]),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        lambda x: x.unique(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: torch.repeat_interleave(x, x.long()),
    ],
)
def test_waiting_is_seen(wait):
    with RefuseWaiting():
        ready = torch.ones(3)[torch.tensor([0, 1, 2])].where(torch.ones(3) > 0, 0.0)
        ready = torch.repeat_interleave(ready, torch.ones(3).long(), output_size=3)
        with pytest.raises(Waited):
            wait(ready)


@pytest.mark.parametrize("error", [None, RuntimeError("called a synchronizing CUDA operation")])
def test_the_mode_of_before_comes_back(monkeypatch, error):
    modes = [1]

    def set_mode(mode):
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature and does not", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(UserWarning, match="another") if error is None else pytest.raises(RuntimeError), no_waiting():
        assert modes == [1, "error"]
        if error is not None:
            raise error
        warnings.warn("another", UserWarning, stacklevel=1)
    assert modes == [1, "error", 1]
