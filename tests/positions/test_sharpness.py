"""Scores that grow with the number of keys: how many a query sees, where it is counted, and the bugs that are told of it."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER, check_against_reference, check_path, check_same, inputs
from references.alibi import alibi
from references.local import local
from references.rope import rope
from references.sharpness import logn, ssmax
from torch import nn
from torch.testing import assert_close

from extrap.extensions.controls import Lambda, Window
from extrap.extensions.far import ReRope
from extrap.extensions.temperature import Sharper
from extrap.model import keys
from extrap.model.definition import attend_reference
from extrap.model.keys import keys_seen
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch, Geometry, PositionScheme
from extrap.positions.fox import Fox
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.sharpness import LogN, Sharpened, SSMax, logs

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER])


# ---- how many keys


class ByHead(PositionScheme):
    """A mask that differs by head, and is not one of distances."""

    def mask_mod(self, pos):
        return lambda b, h, i, j: ((j + h) % 3 != 1) | (i == j)


class Skipping(PositionScheme):
    """A window of every second position."""

    def positions(self, seq_len, device=None):
        return 2 * torch.arange(seq_len, device=device)


def counted(scheme, seq_len):
    """Pair by pair."""
    branches = scheme.branches(scheme.positions(seq_len))
    seen = torch.zeros(scheme.geometry.n_heads, seq_len, dtype=torch.int64)
    for h, i, j in torch.cartesian_prod(*map(torch.arange, (len(seen), seq_len, seq_len))):
        if j <= i or not scheme.geometry.causal:
            seen[h, i] += any(not branch.mask_mod or branch.mask_mod(0 * h, h, i, j).item() for branch in branches)
    return seen


@pytest.mark.parametrize("geometry", [DECODER, ENCODER])
@pytest.mark.parametrize(
    "scheme",
    [Nope, ByHead, lambda g: Local(g, Rope(g), 5), lambda g: Local(g, Skipping(g), 5), lambda g: Local(g, ByHead(g), 5),
     lambda g: ReRope(window=3)(Rope(g), 17), lambda g: Lambda(n_first=2)(Rope(g), 17), lambda g: Fox(g).layers(2)[0]],
)  # fmt: skip
def test_every_key_is_counted_once(scheme, geometry, monkeypatch):
    monkeypatch.setattr(keys, "BLOCK", 8)
    scheme = scheme(geometry)
    found = keys_seen(scheme.branches(scheme.positions(20)), geometry, torch.arange(20))
    assert torch.equal(found.expand(4, -1), counted(scheme, 20))


def test_a_causal_query_sees_itself_and_all_before_and_in_an_encoder_all():
    def found(scheme):
        return keys_seen(scheme.branches(scheme.positions(9)), scheme.geometry, torch.arange(9))[0].tolist()

    assert found(Rope(DECODER)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert found(Rope(ENCODER)) == [9] * 9
    assert found(Local(DECODER, Rope(DECODER), 3)) == [1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert found(Local(ENCODER, Rope(ENCODER), 3)) == [3, 4, 5, 5, 5, 5, 5, 4, 3]


# ---- what is made of it


def attended(scheme, q, k, v):
    return attend_reference(scheme, scheme.positions(q.shape[2]), q, k, v)


def test_where_n_is_the_training_length_it_is_the_softmax():
    for cls in (LogN, lambda *given: SSMax(*given).layers(2)[0]):
        q, k, v = inputs(DECODER, 20)
        found, plain = (attended(scheme, q, k, v)[:, :, 15] for scheme in (cls(DECODER, Rope(DECODER)), Rope(DECODER)))
        assert_close(found, plain, rtol=0, atol=1e-6)
        q, k, v = inputs(ENCODER, 16)
        assert_close(attended(cls(ENCODER, Rope(ENCODER)), q, k, v), attended(Rope(ENCODER), q, k, v), rtol=0, atol=1e-6)


def test_one_key_has_all_the_weight_whatever_s():
    q, k, v = inputs(DECODER, 9)
    for s in (0.0, 1.0, 100.0):
        found = attended(Sharpened(Rope(DECODER), torch.full((4,), s)), q, k, v)
        assert_close(found[:, :, 0], v[:, :, 0], rtol=0, atol=0)


@pytest.mark.parametrize("geometry", [DECODER, ENCODER])
def test_a_window_at_test_leaves_scores_as_they_are_with_that_many_keys(geometry):
    """The control sees no more keys than in training, and no query is sharper than it was there."""
    q, k, v = inputs(geometry, 64)
    windowed = Window()(LogN(geometry, Rope(geometry)), 64)
    check_same(windowed, LogN(geometry, Local(geometry, Rope(geometry), windowed.window)), 64)
    width = 16 if geometry.causal else 15
    by = math.log(width) / math.log(16)
    plain = Local(geometry, Rope(geometry), windowed.window)
    middle = slice(16, 48)
    assert_close(attended(windowed, q, k, v)[:, :, middle], attended(plain, by * q, k, v)[:, :, middle], rtol=0, atol=1e-6)


@pytest.mark.parametrize("geometry", [DECODER, ENCODER])
@pytest.mark.parametrize("extension", [ReRope(window=3), Lambda(n_first=2), Window(7)])
def test_what_extensions_make_of_it_is_the_same_on_every_path(extension, geometry, small):
    for scheme in extension(SSMax(geometry, Rope(geometry)), 17).layers(2):
        for training in (True, False):
            check_path(scheme, 45, training)


@SIZES
def test_biases_are_not_multiplied(geometry):
    check_against_reference(LogN(geometry, Alibi(geometry)), logn(geometry, alibi(geometry)), range(20))


def test_layers_have_rates_of_their_own():
    geometry = Geometry(32, 4, 16, causal=True, n_layers=4)
    inner = Mixed(geometry, Local(geometry, Rope(geometry), 5), Nope(geometry))
    layers = SSMax(geometry, inner).layers(4)
    assert len({layer.s for layer in layers}) == 4
    assert all(layer.s.tolist() == pytest.approx([1 / math.log(16)] * 4) for layer in layers)
    assert [layer.branches(torch.arange(9))[0].window for layer in layers] == [5, None] * 2


def test_what_cannot_be_counted_from_is_told():
    single = Geometry(32, 4, 1, causal=True)
    for cls in (LogN, SSMax):
        with pytest.raises(ValueError, match="expected a training length >= 2, found 1"):
            cls(single, Nope(single))


def test_who_sees_no_key_is_not_multiplied_by_infinity():
    assert logs(torch.tensor([[0, 1, 16]])).tolist() == [[0, 0, pytest.approx(math.log(16))]]


# ---- bugs


class SubtractsFromEveryScore(LogN):
    """edifice's SSMax: a softmax knows no constants."""

    def sharpness(self):
        return None

    def branches(self, pos):
        (branch,) = self.inner.branches(pos)
        return (branch._replace(score_mod=lambda s, b, h, i, j: s - self.rate * math.log(len(pos))),)


class WholeInput(LogN):
    """One n for all rows."""

    def sharpness(self):
        return lambda n: self.rate * logs(torch.full_like(n, n.shape[-1]))


class BiasToo(LogN):
    def branches(self, pos):
        (branch,) = self.inner.branches(pos)
        by = self.rate * logs(1 + torch.arange(len(pos)) if self.geometry.causal else torch.full((len(pos),), len(pos)))
        add = branch.score_mod
        return (branch._replace(score_mod=lambda s, b, h, i, j: s + by[i] * add(0 * s, b, h, i, j)),)


class BlindToTheWindow(LogN):
    def branches(self, pos):
        (branch,) = self.inner.branches(pos)
        return (Branch(self.rotated(branch, len(pos)), branch.score_mod, branch.mask_mod),)

    def rotated(self, branch, n):
        i = torch.arange(n)
        by = (self.rate * logs(i + 1 if self.geometry.causal else torch.full_like(i, n)))[:, None]
        return lambda q, k: (by * branch.rotate(q, k)[0], branch.rotate(q, k)[1])

    def sharpness(self):
        return None


@pytest.mark.parametrize("geometry", [DECODER, ENCODER])
@pytest.mark.parametrize("mutant", [SubtractsFromEveryScore, WholeInput, BiasToo, BlindToTheWindow])
def test_a_bug_of_log_n_is_rejected(mutant, geometry):
    inner, expected = Rope(geometry, 100.0), rope(geometry, 100.0)
    if mutant is BiasToo:
        inner, expected = Alibi(geometry), alibi(geometry)
    if mutant is BlindToTheWindow:
        inner, expected = Local(geometry, inner, 5), local(geometry, expected, 5)
    expected = logn(geometry, expected)
    check_against_reference(LogN(geometry, inner), expected, range(20))
    if mutant is WholeInput and not geometry.causal:
        check_against_reference(mutant(geometry, inner), expected, range(20))  # which is what an encoder sees
    else:
        with pytest.raises(AssertionError, match="not close"):
            check_against_reference(mutant(geometry, inner), expected, range(20))


class OneRateForAllHeads(SSMax):
    def layers(self, n_layers):
        return [Sharpened(layer.inner, layer.s.mean().expand(len(layer.s))) for layer in super().layers(n_layers)]


class OneRateForAllLayers(SSMax):
    def layers(self, n_layers):
        return [super().layers(n_layers)[0]] * n_layers


def check(cls, geometry):
    scheme = cls(geometry, Rope(geometry, 100.0))
    for rates in scheme.rates:
        nn.init.normal_(rates)
    rates = [one.tolist() for one in scheme.rates]
    check_against_reference(scheme, ssmax(geometry, rope(geometry, 100.0), rates), range(20))


@SIZES
@pytest.mark.parametrize("mutant", [OneRateForAllHeads, OneRateForAllLayers])
def test_a_bug_of_ssmax_is_rejected(mutant, geometry):
    check(SSMax, geometry)
    with pytest.raises(AssertionError, match="not close"):
        check(mutant, geometry)


def test_keys_are_counted_once_and_sharpness_within_is_kept():
    geometry = DECODER
    for outer, inner in ((LogN, SSMax), (SSMax, LogN), (LogN, LogN)):
        with pytest.raises(ValueError, match=f"keys are counted once: .* found {inner.__name__}"):
            outer(geometry, inner(geometry, Rope(geometry)))
    twice = Sharper(Rope(geometry), lambda n: torch.full_like(n, 2.0, dtype=torch.float64))
    n = torch.arange(1, 20)
    for counting in (LogN, SSMax):
        plain, sharp = (counting(geometry, Rope(geometry)).layers(2)[0], counting(geometry, Rope(geometry)).layers(2)[0])
        sharp.inner = twice
        assert torch.equal(sharp.sharpness()(n), 2 * plain.sharpness()(n))
