import pytest
import torch
from test_randomness import joint, keys_of

from kornia_cag.core.draws import Draws, drawn
from kornia_cag.core.randomness import chance, normals, uniform, uniforms
from kornia_cag.scenes.strength import full_strength


def test_numbers_are_those_of_the_keys(device):
    keys = keys_of(count=99, device=device)
    draws = Draws(keys)
    assert torch.equal(draws.uniform("s"), uniform(keys, "s"))
    torch.testing.assert_close(draws.uniform("s", -3.0, 5.0), uniform(keys, "s", -3.0, 5.0), rtol=0, atol=1e-6)
    assert torch.equal(draws.uniforms("many", 4), uniforms(keys, "many", 4))
    assert torch.equal(draws.chance("c", 0.3), chance(keys, "c", 0.3))
    assert torch.equal(draws.normals("n", 3), normals(keys, "n", 3))


def test_numbers_are_kept_by_layer_group_and_slot():
    """Whatever has a range; choices and normal numbers have none, so nobody may move them."""
    draws = Draws(keys_of(count=5))
    draws.group("pose").uniform("pose.x", -1, 1)
    draws.layer(2).group("color").uniforms("color.z", 3)
    draws.chance("c", 0.5)
    draws.normals("n", 2)
    shapes = {slot: tuple(value.shape) for slot, value in draws.numbers.items()}
    assert shapes == {(0, "pose", "pose.x"): (5,), (2, "color", "color.z"): (5, 3)}
    assert all(((value >= 0) & (value < 1)).all() for value in draws.numbers.values())


def test_a_number_is_drawn_once():
    draws = Draws(keys_of(count=5))
    one = draws.uniforms("many", 3)
    assert draws.group("").uniforms("many", 3) is one
    kept = draws.numbers
    draws.uniform("s"), draws.uniform("s", 2, 3), draws.layer(0).uniform("s")
    assert draws.numbers is kept
    assert list(kept) == [(0, "", "many"), (0, "", "s")]


def test_numbers_that_are_given_take_the_place_of_those_drawn():
    keys = keys_of(count=4)
    given = {
        (0, "pose", "x"): torch.tensor([0.0, 0.25, 0.5, 1 - 2**-24]),
        (1, "pose", "w"): torch.rand(4, 2),
    }
    draws = Draws(keys, given)
    assert draws.group("pose").uniform("x", 10.0, 20.0).tolist() == pytest.approx([10, 12.5, 15, 20])
    assert draws.layer(1).group("pose").uniforms("w", 2) is given[1, "pose", "w"]
    assert torch.equal(draws.uniform("x"), uniform(keys, "x"))  # another group
    assert torch.equal(draws.group("pose").uniform("y"), uniform(keys, "y"))
    assert torch.equal(draws.group("pose").uniforms("w", 2), uniforms(keys, "w", 2))  # another layer
    assert len(given) == 2  # what is drawn besides does not get there


def test_gradients_reach_the_numbers():
    number = torch.rand(4, requires_grad=True)
    Draws(keys_of(count=4), {(0, "g", "x"): number}).group("g").uniform("x", -2.0, 3.0).sum().backward()
    assert number.grad.tolist() == [5.0] * 4


def test_groups_share_keys_and_not_numbers():
    draws = Draws(keys_of(count=9))
    one, other = draws.group("one"), draws.group("other")
    assert torch.equal(one.uniform("x"), other.uniform("x"))
    draws.numbers[0, "one", "x"] = torch.zeros(9)
    assert (one.uniform("x") == 0).all()
    assert (other.uniform("x") > 0).all()
    assert torch.equal(one.keys, draws.keys)


def test_layers_draw_apart():
    keys = keys_of()
    draws = Draws(keys)
    drawn = [draws.layer(number).uniform("pose.angle") for number in range(3)]
    assert torch.equal(drawn[0], uniform(keys, "pose.angle"))  # the lowest draws as if it were alone
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(joint(drawn[one], drawn[other])) < 4.5
    choices = [draws.layer(number).chance("mirror", 0.5) for number in range(2)]
    assert abs((choices[0] == choices[1]).double().mean() - 0.5) < 0.01
    assert len(torch.cat([draws.layer(number).keys for number in range(3)]).unique()) == 3 * len(keys)


def test_layer_and_group_in_any_order():
    keys = keys_of(count=9)
    one, other = Draws(keys), Draws(keys)
    assert torch.equal(one.layer(2).group("g").uniform("x"), other.group("g").layer(2).uniform("x"))
    assert one.numbers.keys() == other.numbers.keys() == {(2, "g", "x")}


def test_keys_and_draws_may_be_given():
    keys = keys_of(count=3)
    draws = Draws(keys)
    assert drawn(draws) is draws
    assert torch.equal(drawn(keys).uniform("x"), draws.uniform("x"))
    assert full_strength(keys).tolist() == [1.0, 1.0, 1.0]
