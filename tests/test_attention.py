"""The fast paths of attention against its definition: the same answers and the same gradients, whatever the sizes."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, FAR, FLOAT32, check_path, inputs, layers
from marks import slow
from torch import nn
from torch.testing import assert_close

from extrap.model import attention, relative
from extrap.model.attention import additive_bias, prepare
from extrap.model.seed import seed_generators
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.local import Local
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope, powers, rotate_by
from extrap.positions.t5 import T5
from extrap.testing.case import define


def run(path, scheme, q, k, v, training, x=None):
    """`path` has the signature of prepare."""
    seed_generators(1)  # for positions that are drawn
    return path(scheme, scheme.positions(q.shape[2], q.device), training=training)(q, k, v, x)


@pytest.mark.parametrize("seq_len", [45, *slow(16)])
def test_float64_stays_float64(kind, causal, seq_len, scheme_of, small):
    scheme = scheme_of(kind, causal, train_len=64)
    q, k, v = inputs(scheme.geometry, seq_len)
    x = torch.randn(1, seq_len, scheme.geometry.d_model)
    for layer in layers(scheme):
        for training in (True, False):
            found = run(prepare, layer, q, k, v, training, x)
            assert_close(found, run(define, layer, q, k, v, training, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seq_len", [16, 45])
def test_a_bias_that_is_the_same_at_every_distance(seq_len, small):
    class ByHead(PositionScheme):
        relative = True

        def score_mod(self, pos):
            return lambda score, b, h, i, j: score + 0.5 * h

    check_path(ByHead(ENCODER), seq_len, training=True)
    check_path(ByHead(ENCODER), seq_len, training=False)


class Everything(PositionScheme):
    """One branch with all that a branch can have, content different for every batch, head, query and key, own weights."""

    def branches(self, pos):
        def content(seen):
            def bias(i, j):
                read = seen.x[:, None, i, :1] + seen.q[:, :, i, :1] + seen.rotated_q[:, :, i, 1:2]
                return torch.sin(read + (2 * seen.k[:, :, j, 1] + seen.rotated_k[:, :, j, 0])[:, :, None])

            return bias

        def decay(seen):
            return seen.x[:, None, :, 1] * torch.arange(1, 5, device=pos.device)[:, None]

        def bias(score, b, h, i, j):
            return score + torch.cos(h + pos[i] - 2 * pos[j])

        angles = pos.double()[:, None] * powers(100.0, self.geometry.head_dim, pos.device)
        return (Branch(rotate_by(angles), bias, lambda b, h, i, j: (i - j).abs() < 11, content, decay, window=11),)

    def weights(self):
        return lambda scores: torch.sigmoid(scores - 1)


class Apart(PositionScheme):
    """Three branches, each of which states the keys that it sees; the first tokens are seen by one of their own."""

    def branches(self, pos):
        first = Branch(mask_mod=lambda b, h, i, j: (j < 3) & (i - j >= 4), keys=lambda start, stop: (0, 3))
        near = Branch(mask_mod=lambda b, h, i, j: (i - j).abs() < 4, window=4)
        future = Branch(
            rotate=lambda q, k: (q.flip(-1), k),
            score_mod=lambda score, b, h, i, j: score - (0.1 * h + 0.3) * (i - j).abs(),
            mask_mod=lambda b, h, i, j: j - i >= 4,
            keys=lambda start, stop: (start + 4, len(pos)),
        )
        return first, near, future


class Halves(PositionScheme):
    """Three branches, each with a bias or a rotation of its own, disjoint and together everything."""

    def branches(self, pos):
        near = Branch(mask_mod=lambda b, h, i, j: (i - j).abs() < 4, window=4)
        past = Branch(
            rotate=lambda q, k: (q.flip(-1), k),
            mask_mod=lambda b, h, i, j: i - j >= 4,
            content=lambda seen: lambda i, j: seen.rotated_q[:, :, i, :1] * seen.k[:, :, None, j, 2],
        )
        future = Branch(
            score_mod=lambda score, b, h, i, j: score - (0.1 * h + 0.3) * (i - j).abs(),
            mask_mod=lambda b, h, i, j: j - i >= 4,
        )
        return near, past, future


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("seq_len", [45, *slow(1, 7, 8, 9, 16, 17)])
def test_every_scheme_on_every_path(case, causal, training, seq_len, scheme_of, small):
    for layer in layers(scheme_of(case, causal, train_len=64)):
        check_path(layer, seq_len, training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("seq_len", [1, 9, 16, 45])
@pytest.mark.parametrize("scheme", [Everything, Halves, Apart])
def test_every_field_of_a_branch_on_every_path(scheme, causal, training, seq_len, small):
    check_path(scheme(DECODER if causal else ENCODER), seq_len, training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("seq_len", [257, 515])
def test_the_real_sizes_of_chunks(causal, training, seq_len, scheme_of):
    assert attention.CHUNK < 257 <= attention.DENSE_MAX < 515
    for case in ("nope", "local position.window=100 position@position.inner=t5"):
        check_path(scheme_of(case, causal, n_heads=2), seq_len, training)


@pytest.mark.parametrize("scheme", [Nope, Rope, Alibi])
def test_later_tokens_do_not_change_earlier_outputs_when_causal(scheme, small):
    q, k, v = inputs(DECODER, 45, dtype=torch.float32)
    for training in (True, False):
        whole = run(prepare, scheme(DECODER), q, k, v, training)
        for seq_len in (1, 8, 16, 17, 44):
            part = run(prepare, scheme(DECODER), *(x[:, :, :seq_len] for x in (q, k, v)), training)
            assert_close(part, whole[:, :, :seq_len], rtol=0, atol=1e-6)
    changed = run(prepare, scheme(ENCODER), q, k, v, training=False)
    assert (changed[:, :, :40] - whole[:, :, :40]).abs().max() > 0.1


def test_nothing_outside_the_window_is_looked_at(causal, small):
    """Keys that are not numbers spoil every chunk that reads them, masked or not."""
    scheme = Local(DECODER if causal else ENCODER, Rope(DECODER if causal else ENCODER), window=5)
    q, k, v = inputs(scheme.geometry, 45, dtype=torch.float32)
    clean = run(prepare, scheme, q, k, v, training=False)
    for chunk in range(0, 45, 8):
        seen = slice(max(0, chunk - 4), chunk + 8 if causal else chunk + 12)
        spoiled = [torch.full_like(x, math.nan) for x in (k, v)]
        for there, here in zip(spoiled, (k, v), strict=True):
            there[:, :, seen] = here[:, :, seen]
        rows = slice(chunk, chunk + 8)
        assert torch.equal(run(prepare, scheme, q, *spoiled, training=False)[:, :, rows], clean[:, :, rows])


def test_a_pass_looks_at_no_other_keys_than_it_states(causal, small):
    scheme = Apart(DECODER if causal else ENCODER)
    q, k, v = inputs(scheme.geometry, 45, dtype=torch.float32)
    clean = run(prepare, scheme, q, k, v, training=False)
    for x in (k, v):
        x[:, :, 3:37] = math.nan  # the last chunk sees the first three, and from 4 before its own on
    assert torch.equal(run(prepare, scheme, q, k, v, training=False)[:, :, 40:], clean[:, :, 40:])


def banded(scheme, q, k, v):
    """What evaluation gives, what the definition in float64 gives, and the width of every head's band."""
    pos = scheme.positions(q.shape[2])
    bias = attention.distance_bias(scheme.branches(pos)[0], scheme.geometry, pos)
    past, future = relative.reaches(bias.expand(4, -1), q, k)
    exact = run(define, scheme, *(x.double() for x in (q, k, v)), training=False)
    return run(prepare, scheme, q, k, v, training=False), exact, [1 + a + b for a, b in zip(past, future, strict=True)]


def test_what_a_slope_makes_negligible_is_not_read(small):
    q, k, v = inputs(ENCODER, 400, dtype=torch.float32)
    found, exact, widths = banded(Alibi(ENCODER), q, k, v)
    assert widths[0] < 399 < widths[3] == 799  # slopes 1/4 and 1/256
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)
    v[:, 0, 300:] = torch.nan  # spoils whatever reads it
    beyond = 300 - widths[0] // 2 - 8
    spoiled, _, _ = banded(Alibi(ENCODER), q, k, v)
    assert torch.equal(spoiled[:, 0, :beyond], found[:, 0, :beyond])


def test_numbers_that_are_not_numbers_leave_nothing_out(small):
    q, k, _ = inputs(ENCODER, 45, dtype=torch.float32)
    k[0, 0, 40] = torch.nan
    pos = torch.arange(45)
    bias = attention.distance_bias(Alibi(ENCODER).branches(pos)[0], ENCODER, pos)
    assert [side[0] for side in relative.reaches(bias, q, k)] == [44, 44]


def test_one_large_key_far_away_widens_the_band(small):
    """What counts is the largest score that any pair could have, not that of most."""
    q, k, v = inputs(ENCODER, 400, dtype=torch.float32)
    k[0, 0, 390] = 30 * q[0, 0, 3] / q[0, 0, 3].square().sum().sqrt()  # 30 |q| / sqrt(8) beats a distance of 387 / 4
    found, exact, widths = banded(Alibi(ENCODER), q, k, v)
    assert widths[0] > 387
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)


def test_bfloat16_leaves_biases_alone():
    with torch.autocast("cpu", torch.bfloat16):
        branch = Alibi(DECODER).branches(torch.arange(4001))[0]
        last = additive_bias(branch, DECODER, torch.tensor([[4000]]), torch.arange(4001))
        assert last.dtype == torch.float32
        for h, slope in enumerate([0.25, 0.0625, 0.015625, 0.00390625]):
            assert torch.equal(last[0, h, 0], -slope * torch.arange(4000, -1, -1))
        scheme = T5(ENCODER)
        nn.init.normal_(scheme.bias)
        pos = torch.arange(45)
        bias = additive_bias(scheme.branches(pos)[0], ENCODER, pos[:, None], pos)
        assert torch.equal(bias[0, :, 20, 20], math.sqrt(8) * scheme.bias[:, 0])


def test_bfloat16_leaves_the_softmax_alone():
    """Biases of about 60 that differ by less than the 0.25 between neighbours in bfloat16."""
    scheme = T5(ENCODER)
    nn.init.uniform_(scheme.bias, 60.0 / math.sqrt(8), 60.2 / math.sqrt(8))
    zero, v = torch.zeros(1, 4, 45, 8), torch.eye(45).expand(1, 4, -1, -1)
    exact = run(prepare, scheme, zero, zero, v, training=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(prepare, scheme, zero.bfloat16(), zero.bfloat16(), v.bfloat16(), training=True)
    assert_close(found.float(), exact, rtol=2**-8, atol=0)  # each weight is rounded once


def test_bfloat16_leaves_rotations_alone():
    ones = torch.ones(1, 4, 1, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        turned, _ = Rope(ENCODER).branches(torch.tensor([FAR + 1]))[0].rotate(ones, ones)
    assert turned.dtype == torch.float32
    for c in range(4):
        angle = (FAR + 1) * 10_000 ** (-2 * c / 8)
        assert math.isclose(turned[0, 0, 0, 2 * c], math.cos(angle) - math.sin(angle), abs_tol=1e-6)
        assert math.isclose(turned[0, 0, 0, 2 * c + 1], math.cos(angle) + math.sin(angle), abs_tol=1e-6)


def test_bfloat16_changes_training_a_little_and_evaluation_not_at_all(kind, causal, scheme_of, small):
    scheme = scheme_of(kind, causal, train_len=64)
    q, k, v = (x.bfloat16() for x in inputs(scheme.geometry, 16, dtype=torch.float32))
    plain = run(prepare, scheme, q.float(), k.float(), v.float(), training=False)
    with torch.autocast("cpu", torch.bfloat16):
        evaluated = run(prepare, scheme, q, k, v, training=False)
        trained = run(prepare, scheme, q, k, v, training=True)
    assert torch.equal(evaluated, plain)
    assert trained.dtype == torch.bfloat16
    assert_close(trained.float(), plain, rtol=0, atol=0.02)  # weights and values have 8 bits


def test_bfloat16_multiplies_in_long_training_where_a_device_has_units_for_it(kind, causal, scheme_of, small, monkeypatch):
    scheme = scheme_of(kind, causal, train_len=64)
    q, k, v = (x.bfloat16().requires_grad_() for x in inputs(scheme.geometry, 45, dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        exact, evaluated = (run(prepare, scheme, q, k, v, training) for training in (True, False))
        monkeypatch.setattr(attention, "HALVED", ("cpu",))
        rounded, again = (run(prepare, scheme, q, k, v, training) for training in (True, False))
    assert torch.equal(again, evaluated)
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    assert_close(rounded.float(), exact, rtol=0, atol=0.02)
    weight = torch.randn_like(exact)
    wanted, found = (torch.autograd.grad((out * weight).sum(), (q, k, v)) for out in (exact, rounded))
    for a, b in zip(found, wanted, strict=True):
        assert_close(a.float(), b.float(), rtol=0, atol=0.02 * b.abs().max().item())


def test_bfloat16_leaves_the_softmax_of_long_training_alone(small, monkeypatch):
    monkeypatch.setattr(attention, "DENSE_MAX", 0)
    monkeypatch.setattr(attention, "HALVED", ("cpu",))
    test_bfloat16_leaves_the_softmax_alone()
