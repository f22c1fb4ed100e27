import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from models import EPS, Net, Restless, make_batch, make_mixed, state
from torch import Tensor, nn

from kornia_cag.adversary.frozen import frozen, unwrap
from kornia_cag.adversary.pixels import PGD


@pytest.mark.parametrize("raise_at", [1, 2])
def test_the_model_is_left_as_it_was_when_it_raises(raise_at):
    model, batch = make_mixed(Restless), make_batch()
    model.raise_at = raise_at
    before = state(model)
    with pytest.raises(RuntimeError, match="out of paper"):
        PGD(eps=EPS, steps=3, autocast=torch.bfloat16)(model, **batch)
    assert state(model) == before
    assert model.calls == raise_at


def test_frozen_lends_the_model_in_eval_mode_without_gradients():
    model = make_mixed()
    model.train = model.eval = None  # models override these: they are not called
    with frozen(model) as net:
        assert net is model
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
    assert model.training
    assert not model.norm.training


def test_training_goes_on_as_if_nothing_had_happened():
    batch, losses = make_batch(), []
    for attack in (None, PGD(eps=EPS, steps=2)):
        model = make_mixed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        pending = F.cross_entropy(model(batch["images"].clone()), batch["labels"])  # its graph outlives the attack
        if attack is not None:
            attack(model, **batch)
        (pending + F.cross_entropy(model(batch["images"].clone()), batch["labels"])).backward()
        optimizer.step()
        losses.append([p.tolist() for p in model.parameters()])
    assert losses[0] == losses[1]


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own look
def test_a_compiled_model_gives_the_same_and_is_left_as_it_was():
    for cls in (Net, Restless):
        model = make_mixed(cls)
        compiled = torch.compile(model, backend="aot_eager")
        batch = make_batch()
        before = state(compiled)
        out = PGD(eps=EPS, steps=2)(compiled, **batch)
        assert state(compiled) == before
        if cls is Net:
            assert unwrap(compiled) is compiled
            assert torch.allclose(out, PGD(eps=EPS, steps=2)(model, **batch), atol=1e-6)
    torch.compiler.reset()


@pytest.fixture
def gloo(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_a_ddp_model_gives_the_same_and_no_collective_runs(gloo):
    model, batch, reduced = make_mixed(), make_batch(), []

    def count(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        reduced.append(1)
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped.register_comm_hook(None, count)
    wrapped.register_forward_pre_hook(lambda *_: reduced.append("forward"))
    before = state(wrapped)
    out = PGD(eps=EPS, steps=2)(wrapped, **batch)
    assert state(wrapped) == before
    assert reduced == []
    assert unwrap(wrapped) is model
    assert torch.equal(out, PGD(eps=EPS, steps=2)(copy.deepcopy(model), **batch))
    F.cross_entropy(wrapped(out), batch["labels"]).backward()
    assert reduced[0] == "forward"
    assert 1 in reduced
