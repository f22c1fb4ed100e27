import math

import pytest
import torch
from test_randomness import joint, keys_of

from kornia_cag.core.draws import Choice, Draws, Normals, Number, Numbers, drawn, plan
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
    assert torch.equal(draws.layer(2).layer(1).keys, draws.layer(1).keys)  # there is one layer of each number
    assert draws.layer(2).group("g").layer(0).keys is keys


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


ASKED = {
    (0, "a"): (Number("x", (2.0, 5.0)), Choice("yes", 0.3), Number("size", (0.5, 4.0), rest=1.0, log=True)),
    (0, "b"): (Numbers("many", 4), Number("x", (-1.0, 1.0), rest=0.0), Normals("bell", 3), Choice("later")),
    (1, "a"): (Number("x"), Normals("bell", 2), Numbers("many", 3), Numbers("more", 2)),
}
PLAN = plan(tuple(ASKED.items()), torch.device("cpu"))


def test_all_draws_as_one_matrix_are_each_alone():
    """To the bit: what each slot draws does not depend on what is drawn with it."""
    keys = keys_of(count=37)
    strength = torch.linspace(0, 1, 37)
    found = Draws(keys).values(PLAN, strength)
    alone = Draws(keys)
    one, other, above = alone.group("a"), alone.group("b"), alone.layer(1).group("a")
    logs = one.uniform("size", math.log(0.5), math.log(4.0))
    expected = {
        (0, "a"): {"x": one.uniform("x", 2.0, 5.0), "yes": one.chance("yes", 0.3), "size": (strength * logs).exp()},
        (0, "b"): {"many": other.uniforms("many", 4), "x": strength * other.uniform("x", -1.0, 1.0),
                   "bell": other.normals("bell", 3), "later": uniform(keys, "later")},
        (1, "a"): {"x": above.uniform("x"), "bell": above.normals("bell", 2), "many": above.uniforms("many", 3),
                   "more": above.uniforms("more", 2)},
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for place, values in expected.items():
        assert found[place].keys() == values.keys()
        for slot, value in values.items():
            assert torch.equal(found[place][slot], value), (place, slot)
            assert found[place][slot].dtype == value.dtype


def test_values_use_known_numbers_and_keep_new_ones():
    keys = keys_of(count=5)
    known = {(0, "a", "x"): torch.full((5,), 0.5), (1, "a", "many"): torch.zeros(5, 3)}
    draws = Draws(keys, known)
    found = draws.values(PLAN, full_strength(keys))
    assert found[0, "a"]["x"].tolist() == [3.5] * 5
    assert torch.equal(found[1, "a"]["many"], torch.zeros(5, 3))
    assert torch.equal(found[0, "b"]["x"], Draws(keys).group("b").uniform("x", -1.0, 1.0))
    numbers = {(0, "a", "x"), (0, "a", "size"), (0, "b", "many"), (0, "b", "x"), (1, "a", "x"), (1, "a", "many"),
               (1, "a", "more")}  # fmt: skip
    assert set(draws.numbers) == numbers
    again = Draws(keys, draws.numbers).values(PLAN, full_strength(keys))
    for place, values in found.items():
        assert all(torch.equal(again[place][slot], value) for slot, value in values.items())


def test_a_part_draws_what_it_draws_in_a_scene():
    """A layer drawn alone has the values, and keeps the numbers, that it has among all."""
    draws, strength = Draws(keys_of(count=6)), full_strength(keys_of(count=6))
    whole = draws.values(PLAN, strength)
    alone = Draws(keys_of(count=6))
    part = alone.layer(1).group("a").of(ASKED[1, "a"], strength)
    assert all(torch.equal(part[slot], value) for slot, value in whole[1, "a"].items())
    assert alone.numbers.keys() == {place for place in draws.numbers if place[0] == 1}


def test_layers_of_a_plan_are_counted_from_the_one_that_draws():
    keys = keys_of(count=6)
    draws, above = Draws(keys), Draws(keys)
    found = draws.layer(1).values(PLAN, full_strength(keys))
    assert torch.equal(found[1, "a"]["x"], above.layer(2).group("a").uniform("x"))
    assert torch.equal(found[0, "b"]["many"], above.layer(1).group("b").uniforms("many", 4))
    assert {place[0] for place in draws.numbers} == {1, 2}
    assert all(torch.equal(draws.numbers[place], number) for place, number in above.numbers.items())


def test_a_layer_may_draw_several_numbers_only_and_a_layer_none():
    keys = keys_of(count=6)
    asked = ((0, "a"), (Number("x"),)), ((2, "a"), (Numbers("many", 3),))
    found = Draws(keys).values(plan(asked, keys.device), full_strength(keys))
    assert torch.equal(found[2, "a"]["many"], Draws(keys).layer(2).uniforms("many", 3))


def test_a_plan_is_made_once():
    """Its constants are copied to a device once, not for every batch."""
    asked = tuple(ASKED.items())
    assert plan(asked, torch.device("cpu")) is PLAN
    assert plan(asked, torch.device("meta")) is not PLAN


def test_a_plan_made_in_inference_mode_serves_gradients():
    keys = keys_of(count=4)
    with torch.inference_mode():
        made = plan((((0, "a"), (Number("only here", (2.0, 5.0)),)),), keys.device)
    number = torch.full((4,), 0.25, requires_grad=True)
    Draws(keys, {(0, "a", "only here"): number}).values(made, full_strength(keys))[0, "a"]["only here"].sum().backward()
    assert number.grad.tolist() == [3.0] * 4


def test_gradients_reach_numbers_through_the_matrix():
    keys = keys_of(count=4)
    number = torch.full((4,), 0.25, requires_grad=True)
    draws = Draws(keys, {(0, "a", "x"): number})
    draws.values(PLAN, full_strength(keys))[0, "a"]["x"].sum().backward()
    assert number.grad.tolist() == [3.0] * 4


def test_values_are_contiguous():
    """Elsewhere torch may take another loop, which rounds otherwise, and a sample would depend on its batch."""
    found = Draws(keys_of(count=9)).values(PLAN, full_strength(keys_of(count=9)))
    assert all(value.is_contiguous() for values in found.values() for value in values.values() if value.ndim == 1)
