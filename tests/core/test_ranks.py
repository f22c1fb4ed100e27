import pytest
import torch
from ranked import on_ranks

from kornia_cag import InputError, Rows
from kornia_cag.core import ranks
from kornia_cag.core.ranks import Share


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("total", "views"), [(8, 1), (6, 1), (2, 1), (5, 3)])
def test_shares_of_a_batch_are_disjoint_even_and_complete(count, total, views):
    batch = torch.arange(total * views)
    parts = [Share(rank, count, total, views).own(batch) for rank in range(count)]
    assert sorted(torch.cat(parts).tolist()) == batch.tolist()
    assert [len(part) for part in parts] == [Share(rank, count, total, views).mine for rank in range(count)]
    assert max(map(len, parts)) - min(map(len, parts)) <= views
    assert {Share(rank, count, total, views).pictures for rank in range(count)} == {total * views}


def test_a_slot_is_the_same_rank_s_in_every_batch():
    large, small = (Share(1, 3, total).own(torch.arange(total)) for total in (12, 7))
    assert torch.equal(large[: len(small)], small)


@pytest.mark.parametrize(("slots", "wanted"), [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2)])
def test_how_many_of_the_first_slots_are_a_rank_s(slots, wanted):
    assert Share(1, 3, 9).first(slots) == wanted


def test_one_process_asks_nobody():
    tensor = torch.arange(3)
    assert ranks.here() == (0, 1)
    assert ranks.agreed(3, True) == (3, True)
    assert ranks.summed(tensor) is tensor
    assert ranks.whole((tensor, None), Share(total=3))[0] is tensor
    assert torch.equal(ranks.stacked(tensor), tensor[None])
    assert not ranks.broken(RuntimeError("gloo: Connection closed by peer"))


def test_rows_of_other_ranks_need_torch_distributed():
    with pytest.raises(InputError, match=r"^rank: expected rank 1 of 2 in torch.distributed, .* got 0 of 1\. Call"):
        ranks.whole(torch.arange(2), Share(1, 2, 4))


def test_rows_carry_their_share_on_their_way_but_not_into_their_parts():
    rows = Rows.of(*torch.arange(9).view(3, 3)).with_share(Share(1, 2, 6))
    copy = Rows.__new__(Rows)
    copy.__dict__.update(rows.__getstate__())
    assert rows.to("cpu").share == copy.share == Share(1, 2, 6)
    assert rows[:2].share == Share(total=2)


def told(dtypes):
    """What a rank of three, with a share of five rows, hears."""
    share = Share(ranks.here()[0], 3, 5)
    every = [torch.arange(10).view(5, 2).to(dtype) for dtype in dtypes]
    found = ranks.whole(tuple(share.own(tensor) for tensor in every), share)
    none = ranks.whole(torch.zeros(share.mine, 0), share)
    alike = all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(every, found, strict=True))
    return {"alike": alike, "none": none.shape, "agreed": ranks.agreed(share.rank, -share.rank, share.rank == 1),
            "summed": ranks.summed(torch.tensor([1.0, share.rank])).tolist(), "heard": ranks.heard()}  # fmt: skip


def test_ranks_tell_each_other_rows_numbers_and_who_speaks():
    found = on_ranks(3, "core.test_ranks:told", [torch.float32, torch.bool, torch.bfloat16, torch.int64])
    for one in found:
        assert one["alike"]
        assert one["none"] == (5, 0)
        assert one["agreed"] == (2, 0, 1)
        assert one["summed"] == [3.0, 3.0]
    assert sum(one["heard"] for one in found) == 1
