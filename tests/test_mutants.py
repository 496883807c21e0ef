"""Bugs that were found in released code, written down on purpose: the check that a scheme passes rejects each of them."""

import math
from dataclasses import replace
from unittest import mock

import pytest
import torch
from checking import DECODER, ENCODER, FAR, SCATTERED, check_formula, check_path
from test_positions import check_rotates_every_pair, check_scores_shift, check_slopes, check_window
from torch import nn

from extrap.errors import UserError
from extrap.model import relative
from extrap.model.attention import prepare
from extrap.model.relative import reaches
from extrap.positions.absolute import Sinusoidal, sinusoids
from extrap.positions.alibi import Alibi, alibi_slopes
from extrap.positions.base import Geometry
from extrap.positions.local import Local
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope, rotate_by
from extrap.positions.t5 import T5, t5_bucket
from extrap.positions.wrappers import Wrapper
from extrap.testing.promises import check_scheme

# ---- checks of a class: each builds the scheme and asks


def formula(causal=False, n_heads=4, at=range(20), **arguments):
    geometry = Geometry(8 * n_heads, n_heads, train_len=16, causal=causal)
    return lambda cls: check_formula(cls, geometry, at, **arguments)


def rope_formula(base=10_000.0, **sizes):
    return formula(base=base, **sizes)


def every_base(cls):
    for base in (10_000.0, 500.0):
        rope_formula(base)(cls)


def t5_formula(causal, at=range(20)):
    return formula(causal, at=at, n_buckets=32, max_distance=128)


def rotates(cls):
    check_rotates_every_pair(cls(ENCODER))


def shifts(first):
    return lambda cls: check_scores_shift(cls(ENCODER), first)


def slopes(n_heads):
    return lambda cls: check_slopes(cls(Geometry(8 * n_heads, n_heads, 16, causal=False)).slopes, n_heads)


def window(causal, width=5):
    geometry = DECODER if causal else ENCODER
    return lambda cls: check_window(cls(geometry, Nope(geometry), width), width)


def promised(cls):
    check_scheme((lambda: cls(ENCODER, Rope(ENCODER), 5)) if issubclass(cls, Local) else lambda: cls(ENCODER), longest=64)


# ---- the bugs


class RopeUnrotated(Rope):
    """cramming: computes the tables and returns what it was given."""

    def rotation(self, pos):
        super().rotation(pos)
        return lambda q, k: (q, k)


class RopeOfAQuarter(Rope):
    """McGill: the config's rotary dimension overwritten by 25 %."""

    def angles(self, pos):
        angles = super().angles(pos)
        angles[:, angles.shape[1] // 4 :] = 0
        return angles


class RopeOfQueriesOnly(Rope):
    def rotation(self, pos):
        turn = super().rotation(pos)
        return lambda q, k: (turn(q, k)[0], k)


class RopeCachedWithoutBase(Rope):
    """equinox: the table that was made first serves every base."""

    tables = {}  # noqa: RUF012  the bug itself

    def rotation(self, pos):
        key = (len(pos), self.geometry.head_dim)
        return self.tables.setdefault(key, super().rotation(pos))


class RopeInFloat32(Rope):
    def rotation(self, pos):
        exponent = torch.arange(0, self.geometry.head_dim, 2, dtype=torch.float32) / self.geometry.head_dim
        return rotate_by(pos.float()[:, None] * self.base**-exponent)


class RopeInBfloat16(Rope):
    """gpt-neox, transformers: positions take the precision of the model."""

    def positions(self, seq_len, device=None):
        return super().positions(seq_len, device).to(torch.bfloat16)


class RopeOfHalves(Rope):
    """Pairs (x_k, x_{k + K/2}): as good for training, wrong for weights of neighbouring pairs."""

    def rotation(self, pos):
        turn = super().rotation(pos)
        k = self.geometry.head_dim
        order = torch.arange(k).view(2, -1).T.flatten()
        back = order.argsort()

        def rotate(q, k):
            return tuple(x[..., back] for x in turn(q[..., order], k[..., order]))

        return rotate


class SinusoidalInFloat32(Sinusoidal):
    def embed(self, x, pos):
        exponent = torch.arange(0, x.shape[-1], 2, dtype=torch.float32) / x.shape[-1]
        angle = pos.float()[:, None] * self.base**-exponent
        return x + torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class SinusoidalConcatenated(Sinusoidal):
    """fairseq: all sines, then all cosines."""

    def embed(self, x, pos):
        table = sinusoids(pos, x.shape[-1], self.base)
        return x + torch.cat([table[:, 0::2], table[:, 1::2]], dim=-1)


class AlibiWithoutAbs(Alibi):
    """attention-gym: in an encoder the far future gets the largest bonus."""

    def score_mod(self, pos):
        return lambda score, b, h, i, j: score - self.slopes[h] * (pos[i] - pos[j])


class AlibiByKey(Alibi):
    """The released code's m * j: equal to ALiBi up to a constant of the row, as long as j <= i."""

    def score_mod(self, pos):
        return lambda score, b, h, i, j: score + self.slopes[h] * pos[j]


class AlibiOverSqrt(Alibi):
    """The bias divided by sqrt(K) like q . k."""

    def score_mod(self, pos):
        scale = math.sqrt(self.geometry.head_dim)
        return lambda score, b, h, i, j: score - self.slopes[h] * (pos[i] - pos[j]).abs() / scale


class AlibiInBfloat16(Alibi):
    def score_mod(self, pos):
        low = pos.to(torch.bfloat16)
        return lambda score, b, h, i, j: score - self.slopes[h] * (low[i] - low[j]).abs()


class AlibiOneFormula(Alibi):
    """2^(-8h/H) for every H."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.slopes = 2.0 ** (-8 * torch.arange(1, geometry.n_heads + 1) / geometry.n_heads)


class AlibiFromTheSecond(Alibi):
    """Every other slope of twice the heads, starting with the second."""

    def __init__(self, geometry):
        super().__init__(geometry)
        power = 1 << (geometry.n_heads.bit_length() - 1)
        rest = alibi_slopes(2 * power)[1::2][: geometry.n_heads - power]
        self.slopes = torch.cat([alibi_slopes(power), rest]).float()


class AlibiThatScales(Alibi):
    """Not a bias: it also changes q . k."""

    def score_mod(self, pos):
        return lambda score, b, h, i, j: 2 * score - self.slopes[h] * (pos[i] - pos[j]).abs()


class LocalOneMore(Local):
    def near(self, pos):
        return lambda b, h, i, j: (pos[i] - pos[j]).abs() <= self.window


class LocalOneLess(Local):
    def near(self, pos):
        return lambda b, h, i, j: (pos[i] - pos[j]).abs() < self.window - 1


class LocalHalves(Local):
    """ModernBERT's convention: the window counts both sides."""

    def near(self, pos):
        return lambda b, h, i, j: (pos[i] - pos[j]).abs() <= self.window // 2


class LocalOneSided(Local):
    def near(self, pos):
        return lambda b, h, i, j: pos[i] - pos[j] < self.window


class LocalWithAWrongFact(Local):
    """Right in its mask, but attention is told to skip a key that the mask keeps."""

    def branches(self, pos):
        return tuple(branch._replace(window=branch.window - 1) for branch in super().branches(pos))


class T5OfTheOtherKind(T5):
    """The buckets of an encoder in a causal model and the other way round."""

    def score_mod(self, pos):
        other, scale = not self.geometry.causal, math.sqrt(self.geometry.head_dim)
        edges = T5(replace(self.geometry, causal=other)).edges
        return lambda score, b, h, i, j: score + scale * self.bias[h, t5_bucket(pos[j] - pos[i], other, edges)]


class T5Swapped(T5):
    """i - j where j - i is meant."""

    def score_mod(self, pos):
        causal, scale = self.geometry.causal, math.sqrt(self.geometry.head_dim)
        return lambda score, b, h, i, j: score + scale * self.bias[h, t5_bucket(pos[i] - pos[j], causal, self.edges)]


class T5OverSqrt(T5):
    """The bare table, without the factor sqrt(K)."""

    def score_mod(self, pos):
        inner = super().score_mod(pos)
        return lambda score, b, h, i, j: score + inner(0, b, h, i, j) / math.sqrt(self.geometry.head_dim)


REJECTED = [
    (Rope, RopeUnrotated, rotates),
    (Rope, RopeUnrotated, rope_formula()),
    (Rope, RopeOfAQuarter, rotates),
    (Rope, RopeOfAQuarter, rope_formula()),
    (Rope, RopeOfQueriesOnly, rotates),
    (Rope, RopeOfQueriesOnly, shifts(1)),
    (Rope, RopeCachedWithoutBase, every_base),
    (Rope, RopeInFloat32, rope_formula(at=SCATTERED)),
    (Rope, RopeInFloat32, shifts(FAR)),
    (Rope, RopeInBfloat16, promised),
    (Rope, RopeInBfloat16, rope_formula(at=range(300, 320))),
    (Rope, RopeOfHalves, rope_formula()),
    (Sinusoidal, SinusoidalInFloat32, formula(base=10_000.0, at=SCATTERED)),
    (Sinusoidal, SinusoidalConcatenated, formula(base=10_000.0)),
    (Alibi, AlibiWithoutAbs, formula()),
    (Alibi, AlibiByKey, formula()),
    (Alibi, AlibiByKey, promised),
    (Alibi, AlibiOverSqrt, formula()),
    (Alibi, AlibiOverSqrt, formula(causal=True)),
    (Alibi, AlibiInBfloat16, formula(at=range(300, 320))),
    (Alibi, AlibiOneFormula, slopes(6)),
    (Alibi, AlibiOneFormula, slopes(12)),
    (Alibi, AlibiOneFormula, formula(n_heads=6)),
    (Alibi, AlibiOneFormula, formula(n_heads=12)),
    (Alibi, AlibiFromTheSecond, slopes(6)),
    (Alibi, AlibiFromTheSecond, slopes(12)),
    (Alibi, AlibiThatScales, promised),
    *((Local, mutant, window(causal)) for mutant in (LocalOneMore, LocalOneLess, LocalHalves) for causal in (True, False)),
    (Local, LocalOneSided, window(causal=False)),
    (Local, LocalOneMore, promised),
    (Local, LocalWithAWrongFact, promised),
    (T5, T5OfTheOtherKind, t5_formula(causal=True)),
    (T5, T5OfTheOtherKind, t5_formula(causal=False)),
    (T5, T5Swapped, t5_formula(causal=True)),
    (T5, T5Swapped, t5_formula(causal=False)),
    (T5, T5OverSqrt, t5_formula(causal=True)),
]


@pytest.mark.parametrize(("real", "mutant", "check"), REJECTED, ids=[mutant.__name__ for _, mutant, _ in REJECTED])
def test_a_bug_is_rejected_by_a_check_that_the_scheme_passes(real, mutant, check):
    check(real)
    with pytest.raises((AssertionError, UserError)) as rejected:
        check(mutant)
    assert "fails" not in str(rejected.value)
    assert "attribute" not in str(rejected.value)  # for what it computes, not for the type of the result


UNSEEN = [  # why the checks ask for more than one direction, length, head count and position
    (RopeUnrotated, shifts(1)),
    (RopeInFloat32, rope_formula()),
    (RopeInBfloat16, rope_formula()),
    (SinusoidalInFloat32, formula(base=10_000.0, at=range(5))),
    (AlibiWithoutAbs, formula(causal=True)),
    (AlibiByKey, formula(causal=True)),
    (AlibiInBfloat16, formula()),
    (AlibiOneFormula, formula(n_heads=8)),
    (AlibiFromTheSecond, formula(n_heads=4)),
    (LocalOneSided, window(causal=True)),
    (LocalWithAWrongFact, window(causal=True)),
    (T5OfTheOtherKind, t5_formula(causal=True, at=range(8))),
]


@pytest.mark.parametrize(("mutant", "check"), UNSEEN, ids=[mutant.__name__ for mutant, _ in UNSEEN])
def test_the_same_bug_goes_unseen_where_it_does_no_harm(mutant, check):
    check(mutant)


# ---- bugs between a scheme and its scores: what goes around prepare


def rescaled_training(scheme, pos, *, training):
    """Cable: q . k is scaled in evaluation only."""
    attend = prepare(scheme, pos, training=training)
    return (lambda q, k, v, x: attend(q * math.sqrt(q.shape[-1]), k, v, x)) if training else attend


def changed(change):
    """Attention whose branches go through change(branch, training)."""

    def path(scheme, pos, *, training):
        class Changed(Wrapper):
            def change(self, branch, pos):
                return change(branch, training)

        return prepare(Changed(scheme), pos, training=training)

    return path


def changed_bias(change):
    def add_changed(branch, training):
        def add(score, b, h, i, j):
            return score + change(branch.score_mod(torch.zeros_like(score), b, h, i, j))

        return branch._replace(score_mod=add) if branch.score_mod else branch

    return changed(add_changed)


def rotation_while_training_only(branch, training):
    return branch if training else branch._replace(rotate=None)


def one_key_short(branch, training):
    """The chunk's keys end one too early: the mask is right, the range is not."""
    return branch._replace(window=branch.window - 1, relative=False)


def changed_reaches(change):
    def path(scheme, pos, *, training):
        attend = prepare(scheme, pos, training=training)

        def attend_changed(*tensors):
            with mock.patch.object(relative, "reaches", lambda *given: change(*reaches(*given))):
                return attend(*tensors)

        return attend_changed

    return path


def causal_chunks(scheme, pos, *, training):
    """Forgets in evaluation that an encoder looks ahead."""
    other = Wrapper(scheme)
    other.geometry = scheme.geometry if training else replace(scheme.geometry, causal=True)
    return prepare(other, pos, training=training)


def windowed(geometry):
    return Local(geometry, Rope(geometry), 5)


PATHS = {
    "q.k scaled differently in training": (Rope, rescaled_training),
    "bias over sqrt(K)": (Alibi, changed_bias(lambda bias: bias / math.sqrt(8))),
    "bias without a gradient": (T5, changed_bias(torch.detach)),
    "bias in bfloat16": (T5, changed_bias(lambda bias: bias.bfloat16())),
    "no rotation in evaluation": (Rope, changed(rotation_while_training_only)),
    "window one key short": (windowed, changed(one_key_short)),
    "band one key short in the past": (windowed, changed_reaches(lambda past, future: ([p - 1 for p in past], future))),
    "band one key short in the future": (windowed, changed_reaches(lambda past, future: (past, [f - 1 for f in future]))),
    "causal in evaluation": (Alibi, causal_chunks),
}


@pytest.mark.parametrize("bug", PATHS)
def test_a_path_that_computes_something_else_is_rejected(bug, small):
    build, path = PATHS[bug]
    scheme = build(ENCODER)
    for parameter in scheme.parameters():
        nn.init.normal_(parameter)

    def check(path):
        for seq_len, training in ((16, True), (16, False), (45, False)):
            check_path(scheme, seq_len, training, path)

    check(prepare)
    with pytest.raises(AssertionError):
        check(path)
