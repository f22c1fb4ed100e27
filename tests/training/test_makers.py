import pytest
import torch
from torch import nn

from kornia_cag import InputError
from kornia_cag.evaluation.accuracy import evaluate
from kornia_cag.evaluation.real import RealSet
from kornia_cag.training.makers import blamed, build_network
from kornia_cag.training.recipes import DIGITS


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere:net", "^function: expected a function that can be imported, got 'nowhere:net'"),
        ("nowhere", "^function: expected module:function"),
        (lambda classes, size: None, "^function: expected a function that returns a torch.nn.Module"),
        (lambda classes, size: nn.Flatten(), "^function: expected a network with parameters to train"),
    ],
)
def test_what_makes_no_network_is_named_as_the_argument(function, message):
    with pytest.raises(InputError, match=message) as caught:
        build_network(DIGITS, 3, function)
    assert caught.value.argument == "function"


def test_a_network_that_fails_inside_the_package_is_placed_outside_of_it(untyped):
    class Two(nn.Module):
        def forward(self, images):
            return images, images

    real = RealSet(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), "two")
    message = r"own:net', which raised AttributeError: .* \((?!accuracy)\w+\.py:\d+\) when tried"
    with pytest.raises(InputError, match=message), blamed("own:net", lambda: "when tried"):
        evaluate(Two(), real, ("a", "b"), torch.device("cpu"))
