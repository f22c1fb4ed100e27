import torch

from kornia_cag.core.plain import differences, plain
from kornia_cag.training.schedule import schedule


def test_plain_values_and_their_differences():
    assert plain({1: (torch.bfloat16, schedule, None)}) == {
        "1": ["bfloat16", "kornia_cag.training.schedule:schedule", None]
    }
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}, "d": 3}) == ["a.b 1 (saved: 2)", "d nothing (saved: 3)"]
    assert len(differences({"a": "x" * 500}, {"a": "y" * 500})[0]) < 100
