"""What is found is paired with what is there: once each, the surest first."""

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from kornia_cag.evaluation.boxes import Boxed
from kornia_cag.evaluation.detection import Found
from kornia_cag.evaluation.misses import iou, matched


def found(*rows: tuple[float, float, float, float, int, float]) -> Found:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return Found(table[:, :4], table[:, 4].long(), table[:, 5])


def there(*rows: tuple[float, float, float, float, int], crowd: tuple[int, ...] = ()) -> Boxed:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Boxed(Path("a.png"), (100, 100), table[:, :4], table[:, 4].long(),
                 torch.tensor([place in crowd for place in range(len(rows))], dtype=torch.bool))  # fmt: skip


def test_the_surest_takes_a_box_and_the_next_is_a_false_alarm() -> None:
    match = matched(found((0, 0, 10, 10, 0, 0.5), (0, 0, 10, 11, 0, 0.9)), there((0, 0, 10, 10, 0)), threshold=0.3)
    assert match.found.scores.tolist() == [torch.tensor(0.9).item(), 0.5]
    assert match.owner.tolist() == [0, -1]
    assert match.hit.tolist() == [True]


def test_who_is_not_sure_enough_finds_nothing() -> None:
    match = matched(found((0, 0, 10, 10, 0, 0.29)), there((0, 0, 10, 10, 0)), threshold=0.3)
    assert (len(match.owner), match.hit.tolist(), match.misnamed.tolist()) == (0, [False], [False])


def test_another_name_is_no_find_and_said_to_be_one() -> None:
    match = matched(found((0, 0, 10, 10, 1, 0.9)), there((0, 0, 10, 10, 0), (50, 50, 60, 60, 1)), threshold=0.3)
    assert match.owner.tolist() == [-1]
    assert match.hit.tolist() == [False, False]
    assert match.misnamed.tolist() == [True, False]


def test_a_crowd_need_not_be_found_and_excuses_what_is_found_in_it() -> None:
    match = matched(found((0, 0, 10, 10, 0, 0.9), (1, 0, 10, 10, 0, 0.8)), there((0, 0, 10, 10, 0), crowd=(0,)),
                    threshold=0.3)  # fmt: skip
    assert match.owner.tolist() == [-1, -1]
    assert match.excused.tolist() == [True, True]
    assert match.hit.tolist() == [False]


def test_what_lies_within_a_crowd_is_excused_however_small_it_is() -> None:
    """COCO holds the intersection against the area of what was found, not against the union."""
    crowd = there((0, 0, 60, 60, 0), crowd=(0,))
    match = matched(found((10, 10, 30, 30, 0, 0.9), (50, 50, 80, 80, 0, 0.8)), crowd, threshold=0.3)
    assert match.excused.tolist() == [True, False]


def test_nothing_on_either_side() -> None:
    assert matched(found(), there((0, 0, 9, 9, 0)), threshold=0.3).hit.tolist() == [False]
    assert matched(found((0, 0, 9, 9, 0, 0.9)), there(), threshold=0.3).owner.tolist() == [-1]


def test_overlap_of_boxes() -> None:
    a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    torch.testing.assert_close(iou(a, b), torch.tensor([[1 / 3, 1.0, 0.0]]))


sides = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2)


@given(st.lists(sides, max_size=6), st.lists(sides, max_size=6))
def test_every_true_box_is_taken_at_most_once_and_by_one_that_overlaps_it(
    one: list[tuple[int, ...]], other: list[tuple[int, ...]]
) -> None:
    def corners(box: tuple[int, ...]) -> tuple[float, ...]:
        return (box[0], box[1], box[0] + box[2], box[1] + box[3])

    seen = found(*((*corners(box), 0, 0.9 - 0.1 * place) for place, box in enumerate(one)))  # type: ignore[arg-type]
    true = there(*((*corners(box), 0) for box in other))  # type: ignore[arg-type]
    match = matched(seen, true, threshold=0.1)
    taken = [owner for owner in match.owner.tolist() if owner >= 0]
    assert len(set(taken)) == len(taken)
    assert set(taken) == {place for place, hit in enumerate(match.hit.tolist()) if hit}
    shares = iou(match.found.boxes, true.boxes)
    assert all(shares[place, owner] >= 0.5 for place, owner in enumerate(match.owner.tolist()) if owner >= 0)
