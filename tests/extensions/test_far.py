"""Distances beyond a window: what each rule makes of them, what they come down to, and the bugs that are told of them."""

import math

import pytest
import torch
from extending import L, T, answers, check_layers, geometry_of, named
from references.alibi import alibi
from references.kerple import kerple
from references.rope import rope
from references.t5 import t5
from torch import nn
from torch.testing import assert_close

from extrap.extensions.far import FarApart, LeakyReRope, ReRope, SelfExtend, far_apart
from extrap.extensions.temperature import LogN
from extrap.positions.alibi import Alibi
from extrap.positions.fox import Fox
from extrap.positions.kerple import Kerple
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.t5 import T5

W = 4

# ---- the rules: two tokens at i and j, i the later one, count as so far apart


def rerope(i, j):
    return min(i - j, W)


def leaky(leak):
    return lambda i, j: i - j if i - j < W else W + (i - j - W) / leak


def grouped(group):
    def apart(i, j):
        return i - j if i - j < W else i // group + (W - W // group) - j // group

    return apart


RULES = {
    "rerope": rerope, "rerope(window=4)": rerope,
    "leakyrerope(leak=2)": leaky(2), "leakyrerope(leak=3.5)": leaky(3.5), "leakyrerope": leaky((T - 1 - W) / (L - 1 - W)),
    "selfextend(group=2)": grouped(2), "selfextend(group=4)": grouped(4), "selfextend(group=3)": grouped(3),
}  # fmt: skip


def held(reference, rule):
    """Both sides alike."""

    def score(q, k, i, j, h):
        return reference.score(q, k, rule(i, j), 0, h) if i >= j else reference.score(q, k, -rule(j, i), 0, h)

    return reference._replace(score=score)


def in_whole_numbers(reference):
    """T5, whose buckets are of whole distances."""
    return reference._replace(score=lambda q, k, i, j, h: reference.score(q, k, math.trunc(i), j, h))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_what_its_source_says(name, causal, small):
    geometry = geometry_of(causal)
    check_layers(named(name)(Rope(geometry), T), [held(rope(geometry, 10_000.0), RULES[name])] * 2)


@pytest.mark.parametrize("name", ["rerope", "leakyrerope(leak=2)", "selfextend(group=2)"])
def test_a_rule_is_for_every_bias_of_distance_too(name, causal, small):
    geometry = geometry_of(causal)
    learned = T5(geometry, n_buckets=8, max_distance=20), Kerple(geometry)
    nn.init.normal_(learned[0].bias)
    formulas = (
        (Alibi(geometry), alibi(geometry)),
        (learned[0], in_whole_numbers(t5(geometry, learned[0].bias.tolist(), 8, 20))),
        (learned[1], kerple(geometry, learned[1].r1.tolist(), learned[1].r2.tolist())),
    )
    for scheme, reference in formulas:
        check_layers(named(name)(scheme, T), [held(reference, RULES[name])] * 2)


def test_layers_with_a_window_stay(causal, small):
    geometry = geometry_of(causal)
    plain = rope(geometry, 10_000.0)
    scheme = Mixed(geometry, Local(geometry, Rope(geometry), 5), Rope(geometry))
    near = plain._replace(keep=lambda i, j: abs(i - j) < 5)
    check_layers(ReRope()(scheme, T), [near, held(plain, rerope)])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    "scheme", [Nope, Fox, lambda g: Local(g, Rope(g), 5), lambda g: Mixed(g, Local(g, Rope(g), 5), Nope(g))]
)
def test_what_a_rule_does_not_apply_to(name, scheme, causal):
    assert named(name)(scheme(geometry_of(causal)), T) is None


# ---- limits


@pytest.mark.parametrize(
    ("name", "other"),
    [(f"rerope(window={T})", "none"), ("leakyrerope(leak=1.000001)", "none"), (f"selfextend(window={T})", "none"),
     ("leakyrerope(leak=1e9)", "rerope"), ("selfextend(group=99)", "rerope")],
)  # fmt: skip
def test_limits(name, other, causal, small):
    scheme = Rope(geometry_of(causal))
    one, another = named(name)(scheme, T), scheme if other == "none" else named(other)(scheme, T)
    assert_close(answers(one, T), answers(another, T), rtol=0, atol=1e-5)


def test_whole_distances_stay_whole(causal):
    """T5 has a bucket edge at 64, half of L: a distance of 64 that rounding made less would be in the bucket before it."""
    geometry = geometry_of(causal, train_len=128)
    scheme = T5(geometry)
    nn.init.normal_(scheme.bias)
    i = torch.arange(64, 512)
    for n in (256, 320, 512):
        _, past, *_ = LeakyReRope()(scheme, n).branches(torch.arange(n))
        biases = past.score_mod(torch.zeros(n - 64), torch.tensor(0), torch.tensor(0), i[: n - 64], i[: n - 64] - 64)
        assert biases.unique().numel() == 1


def test_a_rule_that_changes_nothing_is_none(causal):
    for name in ("leakyrerope(leak=1)", "selfextend(group=1)"):
        assert named(name)(Rope(geometry_of(causal)), T) is None


@pytest.mark.parametrize("name", RULES)
def test_near_pairs_are_as_in_training_and_far_ones_no_further_apart(name, causal):
    extended = named(name)(Rope(geometry_of(causal)), T)
    late, early = extended.places(torch.arange(T))
    i, j = torch.arange(T)[:, None], torch.arange(T)
    near = extended.branches(torch.arange(T))[0]
    assert torch.equal(near.mask_mod(0, 0, i, j), (i - j).abs() < W)
    apart = (late[:, None] - early)[i - j >= W]
    assert apart.double().min() > W - 1e-9
    if "(" not in name:
        assert apart.max() < L
    assert (i - j)[i - j >= W].max() >= apart.max()


@pytest.mark.parametrize(("train_len", "n", "group"), [(128, 512, 8), (128, 4096, 64), (8, 9, 2), (2, 64, 64)])
def test_the_smallest_group_that_keeps_distances_below_the_training_length(train_len, n, group):
    def farthest(group):
        extended = SelfExtend(group=group)(Rope(geometry), n)
        late, early = extended.places(torch.arange(n))
        return int((late[-1] - early[0]).item())

    geometry = geometry_of(True, train_len=train_len)
    assert farthest(None) == farthest(group) < train_len
    assert group == 2 or farthest(group - 1) >= train_len


# ---- bugs


class RightSideOfThePast(FarApart):
    """Ahead as behind: queries at +w."""

    def branches(self, pos):
        near, past, future = super().branches(pos)
        return near, past, past._replace(mask_mod=future.mask_mod)


class BoundaryInside(FarApart):
    """abs(t) <= w near, where the rule is not yet the identity."""

    def branches(self, pos):
        near, past, *others = super().branches(pos)
        one_more = near._replace(mask_mod=lambda b, h, i, j: (pos[i] - pos[j]).abs() <= W, window=W + 1)
        return one_more, past._replace(mask_mod=lambda b, h, i, j: pos[i] - pos[j] > W), *others


class Overlapping(FarApart):
    """The far pass over near pairs, too."""

    def branches(self, pos):
        near, past, *others = super().branches(pos)
        return near, past._replace(mask_mod=lambda b, h, i, j: pos[i] - pos[j] >= 0), *others


def rounded(pos):
    return (pos / 3).round() + W - W // 3, (pos / 3).round()


def divided(pos):
    return pos // 3 + W - W / 3, pos // 3


def beyond(pos):
    """Leaky ReRoPE whose far queries stand w too far on."""
    return pos / 2 + W, pos / 2


@pytest.mark.parametrize(
    ("cls", "places", "rule"),
    [
        (RightSideOfThePast, None, rerope),
        (BoundaryInside, lambda pos: (pos // 3 + W - W // 3, pos // 3), grouped(3)),
        (Overlapping, None, rerope),
        (FarApart, rounded, grouped(3)),
        (FarApart, divided, grouped(3)),
        (FarApart, beyond, leaky(2)),
    ],
)
def test_a_bug_is_rejected(cls, places, rule, small):
    geometry = geometry_of(causal=cls is not RightSideOfThePast)
    scheme = cls(Rope(geometry), W, places or (lambda pos: (torch.full_like(pos, W), torch.zeros_like(pos))))
    with pytest.raises(AssertionError, match="not close"):
        check_layers(scheme, [held(rope(geometry, 10_000.0), rule)] * 2)


def test_a_logarithm_that_nobody_asked_for_is_rejected(small):
    """The released patches of ReRoPE and NTK multiply queries, too: here that has a name of its own."""
    geometry = geometry_of(True)
    reference = [held(rope(geometry, 10_000.0), rerope)] * 2
    check_layers(ReRope()(Rope(geometry), T), reference)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(LogN()(ReRope()(Rope(geometry), T), T), reference)


@pytest.mark.parametrize(
    ("extension", "told"),
    [(lambda: ReRope(0), "window >= 1, found 0"), (lambda: LeakyReRope(leak=0.5), "leak >= 1, found 0.5"),
     (lambda: SelfExtend(group=0), "group >= 1, found 0")],
)  # fmt: skip
def test_what_cannot_be_is_told(extension, told):
    with pytest.raises(ValueError, match=told):
        extension()


def test_several_passes_are_not_held_apart_again():
    assert far_apart(ReRope()(Rope(geometry_of(True)), T), W, lambda pos: (pos, pos)) is None
