"""Positions drawn at test time: below max_len where training drew them, real ones below L elsewhere."""

import pytest
import torch
from extending import L, T, answers, check_layers, geometry_of, named
from references.alibi import alibi
from references.rope import rope

from extrap.extensions.draws import Randomized
from extrap.positions.absolute import Learned, Sinusoidal
from extrap.positions.alibi import Alibi
from extrap.positions.fox import Fox
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.randomized import Randomized as RandomizedScheme
from extrap.positions.rope import Rope


@pytest.mark.parametrize(("inner", "draw"), [(Rope, "positions"), (Alibi, "distances")])
def test_a_model_of_randomized_positions_is_read_at_another_draw(causal, inner, draw):
    geometry = geometry_of(causal)
    scheme = RandomizedScheme(geometry, inner(geometry), max_len=64, draw=draw).eval()
    own, one, other = (
        of.positions(T).tolist()
        for of in (scheme, *(named(text)(scheme, T) for text in ("randomized", "randomized(seed=1)")))
    )
    for place in (own, one, other):
        assert sorted({*place}) == place
        assert 0 <= place[0] <= place[-1] < 64
    assert len({tuple(of) for of in (own, one, other)}) == 3
    assert named("randomized")(scheme, T).positions(T).tolist() == one, "whenever it is asked"
    assert scheme.positions(T).tolist() == own, "the scheme itself stays as it is"
    assert Randomized()(scheme, 64).positions(64).tolist() == list(range(64)), "all of them"
    assert Randomized()(scheme, 65) is None
    assert Randomized()(Local(geometry, scheme, 5), T).positions(T).tolist() == one


def placed(reference, places):
    return reference._replace(score=lambda q, k, i, j, h: reference.score(q, k, places[i], places[j], h))


def test_another_stands_at_real_positions_below_the_training_length(causal, small):
    geometry = geometry_of(causal)
    for scheme, reference in ((Rope(geometry), rope(geometry, 10_000.0)), (Alibi(geometry), alibi(geometry))):
        extended = Randomized()(scheme, T)
        places = extended.places.tolist()
        assert sorted(places) == places
        assert places[0] >= 0
        assert places[-1] < L
        check_layers(extended, [placed(reference, places)] * 2)
        local = reference._replace(keep=lambda i, j: abs(i - j) < 3)
        near = Local(geometry, scheme, 3)
        check_layers(Randomized()(Mixed(geometry, near, scheme), T), [local, placed(reference, places)])
    fixed = Randomized()(Sinusoidal(geometry), T)
    x = torch.zeros(1, T, 32)
    assert torch.equal(fixed.embed(x, fixed.positions(T)), Sinusoidal(geometry).embed(x, fixed.places))


def test_the_same_draw_whenever_asked():
    scheme = Rope(geometry_of(True))
    one, again, other = (answers(Randomized(seed)(scheme, T), T) for seed in (0, 0, 1))
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[1], other[1])
    before = torch.get_rng_state()
    Randomized()(scheme, T)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("scheme", [Nope, Learned, Fox, lambda g: Local(g, Rope(g), 3), lambda g: Local(g, Rope(g), 5)])
def test_what_it_does_not_apply_to(scheme, causal):
    assert Randomized()(scheme(geometry_of(causal)), T) is None
