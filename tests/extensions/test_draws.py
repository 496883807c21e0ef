"""Positions drawn at test time: below max_len where training drew them, real ones below L elsewhere."""

import pytest
import torch
from extending import L, T, answers, check_layers, geometry_of, named
from references.alibi import alibi
from references.rope import rope
from torch.testing import assert_close

from extrap.extensions.draws import AtDistances, Randomized
from extrap.positions.absolute import Learned, Sinusoidal
from extrap.positions.alibi import Alibi
from extrap.positions.fox import Fox
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.randomized import Randomized as RandomizedScheme
from extrap.positions.rope import Rope


def test_a_model_of_randomized_positions_is_read_as_it_was_trained(causal):
    geometry = geometry_of(causal)
    scheme = RandomizedScheme(geometry, Rope(geometry), max_len=64).eval()
    places = [named(text)(scheme, T).positions(T) for text in ("randomized", "randomized(seed=1)")]
    for place in places:
        assert place.dtype == torch.int64
        assert 0 <= place[0] <= place[-1] < 64
        assert (place.diff() > 0).all()
    assert not torch.equal(*places)
    assert torch.equal(Randomized()(scheme, 64).positions(64), torch.arange(64)), "all of them"
    assert Randomized()(scheme, 65) is None
    wrapped = Randomized()(Local(geometry, scheme, 5), T)
    assert torch.equal(wrapped.positions(T), places[0])


@pytest.mark.parametrize("window", [64, 5])
def test_a_model_of_randomized_distances_is_read_at_drawn_ones(causal, window, small):
    """Tokens t apart count as those t-th apart of the draw; of all of them, as they are."""
    geometry = geometry_of(causal)
    scheme = Local(geometry, RandomizedScheme(geometry, Alibi(geometry), max_len=64, draw="distances"), window).eval()
    drawn, other = (Randomized(seed)(scheme, T) for seed in (0, 1))
    (distances,) = (part.distances.tolist() for part in drawn.modules() if isinstance(part, AtDistances))
    assert distances[0] == 0
    assert sorted({*distances}) == distances
    assert distances[-1] < 64
    plain = alibi(geometry)
    at_drawn = plain._replace(
        score=lambda q, k, i, j, h: plain.score(q, k, distances[abs(i - j)], 0, h), keep=lambda i, j: abs(i - j) < window
    )
    check_layers(drawn, [at_drawn] * 2)
    assert not torch.equal(answers(drawn, T)[1], answers(other, T)[1])
    every = answers(Randomized()(scheme, 64), 64)[1]
    assert_close(every, answers(Local(geometry, Alibi(geometry), window), 64)[1])
    assert Randomized()(scheme, 65) is None


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
