"""Schemes against their papers' formulas, and the properties that make each of them what it is."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, FAR, ROUNDING, SCATTERED, check_against_reference, inputs, layers
from marks import slow
from references.base import formula
from torch import nn
from torch.testing import assert_close

from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.model.attention import additive_bias
from extrap.model.definition import attend_reference
from extrap.positions.absolute import Learned, Sinusoidal, sinusoids
from extrap.positions.alibi import Alibi, alibi_slopes
from extrap.positions.base import Geometry
from extrap.positions.kerple import Kerple
from extrap.positions.local import Local
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.t5 import T5, t5_bucket
from extrap.testing import promises


def attention_weights(scheme, seq_len):
    """(H, T, T) of queries that are all zero: only the scheme speaks."""
    zero = torch.zeros(1, scheme.geometry.n_heads, seq_len, scheme.geometry.head_dim)
    return attend_reference(scheme, scheme.positions(seq_len), zero, zero, torch.eye(seq_len).expand(1, 1, -1, -1))[0]


# ---- every scheme


@pytest.mark.parametrize(("n_heads", "seq_len"), [(6, 17), *slow((6, 7), (4, 1), (4, 45), (12, 20), (1, 135))])
def test_a_scheme_computes_what_its_paper_says(case, causal, n_heads, seq_len, scheme_of, reference_of):
    scheme = scheme_of(case, causal, n_heads, head_dim=4)
    if scheme.max_len is not None and scheme.max_len < seq_len:
        scheme = scheme_of(case, causal, n_heads, head_dim=4, train_len=seq_len)
    check_against_reference(scheme, reference_of(case, scheme), range(seq_len))


def test_a_scheme_is_exact_at_far_positions(kind, causal, scheme_of, reference_of):
    scheme = scheme_of(kind, causal)
    if not scheme.tabular:
        at = [place for place in SCATTERED if scheme.max_len is None or place < scheme.max_len]
        check_against_reference(scheme, reference_of(kind, scheme), at)
    else:
        with pytest.raises(ValueError, match=f"end at {scheme.max_len}"):
            check_against_reference(scheme, reference_of(kind, scheme), SCATTERED)


def test_facts_about_a_scheme_hold(kind, causal, scheme_of, monkeypatch):
    monkeypatch.setattr(promises, "ROUNDED", 1e-8)
    promises.check_scheme(lambda: scheme_of(kind, causal), longest=64)


def depends_on_distance_alone(branch, scheme):
    idx = torch.arange(16)
    bias = additive_bias(branch, scheme.geometry, idx[:, None], idx)
    return bias is None or torch.equal(bias[..., 1:, 1:], bias[..., :-1, :-1])


def test_no_scheme_of_ours_hides_that_it_is_relative(kind, causal, scheme_of):
    for layer in layers(scheme_of(kind, causal).eval()):
        branch, *others = layer.branches(layer.positions(16))
        if not others and not branch.reads_content:  # or a fast path for distances would not take it
            assert branch.relative or not depends_on_distance_alone(branch, layer)
            assert not any(branch.relative for branch in layer.branches(2 * layer.positions(8)))


def test_a_call_leaves_nothing_behind(kind, causal, scheme_of):
    scheme, other = (scheme_of(kind, causal, n_heads=n, train_len=64).eval() for n in (4, 6))
    q, k, v = inputs(scheme.geometry, 7)
    x = torch.randn(1, 7, scheme.geometry.d_model)

    def outputs():
        pos = scheme.positions(7)
        return attend_reference(scheme, pos, q, k, v), scheme.embed(x, pos)

    before = outputs()
    for used in (scheme, other):
        pos = used.positions(45)
        attend_reference(used, pos, *inputs(used.geometry, 45))
        used.embed(torch.randn(1, 45, used.geometry.d_model), pos)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(), strict=True))


@torch.no_grad()
def test_only_without_positions_does_the_order_of_the_input_not_matter(kind, scheme_of, encoder_of):
    encoder = encoder_of(scheme_of(kind, causal=False, train_len=21)).eval()
    tokens, order = torch.randint(11, (2, 21)), torch.randperm(21)
    difference = (encoder(tokens[:, order]) - encoder(tokens)[:, order]).abs().max()
    if kind == "nope":
        assert difference < 1e-5
    else:
        assert difference > 0.05


def test_trained_tables_receive_a_gradient(kind, causal, scheme_of, encoder_of):
    encoder = encoder_of(scheme_of(kind, causal)).train()
    hidden = encoder(torch.randint(11, (2, 16)))
    (hidden * torch.randn_like(hidden)).sum().backward()
    for name, parameter in encoder.scheme.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-4, name


def test_a_scheme_without_a_reference_is_named():
    told = r"Mine has no reference: write mine\(geometry, ...\) in tests/references/{}.py"
    for module in ("alibi", "missing"):
        with pytest.raises(LookupError, match=told.format(module)):
            formula({"_target_": f"extrap.positions.{module}.Mine"}, Alibi(DECODER))


# ---- sinusoidal and learned


def test_sinusoids_are_interleaved_and_start_with_sine():
    table = sinusoids(torch.arange(3), 6, 10_000.0)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    slow, slowest = 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)
    row = [math.sin(2), math.cos(2), math.sin(2 * slow), math.cos(2 * slow), math.sin(2 * slowest), math.cos(2 * slowest)]
    assert_close(table[2], torch.tensor(row, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("shift", [1, 64, FAR])
def test_a_sinusoid_further_on_is_a_fixed_rotation_of_this_one(shift):
    here, there = (sinusoids(torch.arange(9) + first, 8, 10_000.0).view(9, 4, 2) for first in (0, shift))
    for k in range(4):
        angle = shift * 10_000 ** (-2 * k / 8)
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
        assert_close(there[:, k], here[:, k] @ turn, rtol=0, atol=1e-10)


def test_a_learned_table_ends_where_training_did():
    scheme = Learned(ENCODER)
    assert scheme.max_len == len(scheme.table) == 16
    scheme.embed(torch.zeros(1, 16, 32), scheme.positions(16))
    with pytest.raises(ValueError, match="learned positions end at 16, the input reaches 17"):
        scheme.embed(torch.zeros(1, 17, 32), scheme.positions(17))
    assert Local(ENCODER, scheme, window=4).max_len == 16
    assert Local(ENCODER, Rope(ENCODER), window=4).max_len is None


# ---- RoPE


def rotated(scheme, q, k, pos):
    (branch,) = scheme.branches(pos)
    return branch.rotate(q, k)


def check_rotates_every_pair(scheme):
    """One step turns pair c by base^(-2c/K): a unit vector of that pair moves by 2 sin(angle / 2)."""
    head_dim = scheme.geometry.head_dim
    ones = torch.ones(1, 1, 1, head_dim, dtype=torch.float64)
    for turned in rotated(scheme, ones, ones, scheme.positions(2)[1:]):
        for c in range(head_dim // 2):
            pair = [2 * c, 2 * c + 1]
            moved = (turned - ones)[0, 0, 0, pair].norm() / math.sqrt(2)
            assert moved > 0
            assert_close(moved.item(), 2 * math.sin(scheme.base ** (-2 * c / head_dim) / 2), rtol=0, atol=1e-7)


def check_scores_shift(scheme, first):
    """The same text further on has the same scores."""
    q, k = (torch.nn.functional.normalize(x, dim=-1) for x in inputs(scheme.geometry, 9)[:2])
    here, there = (rotated(scheme, q, k, scheme.positions(start + 9)[start:]) for start in (0, first))
    assert_close(there[0] @ there[1].mT, here[0] @ here[1].mT, rtol=0, atol=5e-7)


@pytest.mark.parametrize("base", [10_000.0, 500_000.0, 2.0])
@pytest.mark.parametrize("head_dim", [2, 6, 16])
def test_rope_rotates(base, head_dim):
    scheme = Rope(Geometry(d_model=4 * head_dim, n_heads=4, train_len=16, causal=False), base)
    check_rotates_every_pair(scheme)
    for first in (1, 999, FAR):
        check_scores_shift(scheme, first)
    q, k, _ = inputs(scheme.geometry, 9)
    for before, after in zip((q, k), rotated(scheme, q, k, FAR + torch.arange(9)), strict=True):
        assert_close(after.norm(dim=-1), before.norm(dim=-1), rtol=1e-6, atol=0)
        assert not torch.equal(after, before)
    for before, after in zip((q, k), rotated(scheme, q, k, torch.zeros(9, dtype=torch.int64)), strict=True):
        assert torch.equal(after, before)


def test_a_larger_base_turns_all_but_the_first_pair_slower():
    q, k, _ = inputs(ENCODER, 45)
    slow, _ = rotated(Rope(ENCODER, base=1e30), q, k, torch.arange(45))
    assert_close(slow[..., 2:], q[..., 2:], rtol=0, atol=1e-5)
    assert (slow[..., :2] - q[..., :2]).abs().max() > 1
    even, _ = rotated(Rope(ENCODER, base=1.0), q, k, torch.arange(45))
    turn = torch.polar(torch.ones(45, dtype=torch.float64), torch.arange(45.0, dtype=torch.float64))[:, None]
    expected = torch.complex(q[..., 0::2], q[..., 1::2]) * turn
    assert_close(even, torch.stack([expected.real, expected.imag], dim=-1).flatten(-2), rtol=0, atol=ROUNDING)


# ---- ALiBi

SLOPES = {  # exponents of 1/2: the powers of two from section 3, the others from the released code
    1: [8],
    2: [4, 8],
    4: [2, 4, 6, 8],
    8: [1, 2, 3, 4, 5, 6, 7, 8],
    6: [2, 4, 6, 8, 1, 3],
    12: [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5],
}


def check_slopes(slopes, n_heads):
    assert_close(torch.as_tensor(slopes).double(), 0.5 ** torch.tensor(SLOPES[n_heads]).double(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("n_heads", SLOPES)
def test_alibi_slopes(n_heads):
    check_slopes(alibi_slopes(n_heads), n_heads)
    check_slopes(Alibi(Geometry(12 * n_heads, n_heads, 16, causal=False)).slopes, n_heads)


def check_mirror(scheme):
    """A symmetric bias cannot tell a text from its mirror image: f(reverse x) = reverse f(x)."""
    q, k, v = inputs(scheme.geometry, 45)
    pos = scheme.positions(45)
    forward = attend_reference(scheme, pos, q, k, v)
    backward = attend_reference(scheme, pos, q.flip(2), k.flip(2), v.flip(2))
    assert_close(backward.flip(2), forward, rtol=0, atol=1e-12)


def test_alibi_is_symmetric_in_an_encoder_and_rope_is_not():
    check_mirror(Alibi(ENCODER))
    check_mirror(Local(ENCODER, Alibi(ENCODER), window=5))
    with pytest.raises(AssertionError):
        check_mirror(Rope(ENCODER))


def test_alibi_decays_with_distance_to_both_sides():
    weights = attention_weights(Alibi(ENCODER), 45)
    for h, exponent in enumerate(SLOPES[4]):
        ratio = math.exp(-(0.5**exponent))
        assert_close(weights[h, 20, 20:23] / weights[h, 20, 20], torch.tensor([1, ratio, ratio**2]))
        assert_close(weights[h, 20, 18:21] / weights[h, 20, 20], torch.tensor([ratio**2, ratio, 1]))


# ---- local attention


def check_window(scheme, window, seq_len=45):
    """A query attends to exactly the keys with |i - j| < window."""
    seen = attention_weights(scheme, seq_len)[0] > 0
    counts = seen.sum(dim=-1)
    middle = slice(window, seq_len - window)
    assert (counts[middle] == (window if scheme.geometry.causal else 2 * window - 1)).all()
    for i in range(seq_len):
        last = i if scheme.geometry.causal else min(i + window - 1, seq_len - 1)
        assert seen[i].nonzero().flatten().tolist() == list(range(max(0, i - window + 1), last + 1))


@pytest.mark.parametrize("window", [1, 2, 5, 20])
@pytest.mark.parametrize("inner", [Nope, Rope, Alibi, T5])
def test_a_window_of_w_holds_w_keys_or_to_both_sides_two_w_minus_one(inner, window, causal):
    geometry = DECODER if causal else ENCODER
    check_window(Local(geometry, inner(geometry), window), window)


def test_a_window_of_one_attends_to_itself(causal):
    geometry = DECODER if causal else ENCODER
    scheme = Local(geometry, Rope(geometry), window=1)
    q, k, v = inputs(geometry, 45)
    assert torch.equal(attend_reference(scheme, scheme.positions(45), q, k, v), v)


@pytest.mark.slow
def test_a_window_over_everything_is_the_inner_scheme(causal, scheme_of):
    for inner in ("nope", "rope", "alibi", "t5"):
        scheme = scheme_of(f"local position.window=45 position@position.inner={inner}", causal)
        q, k, v = inputs(scheme.geometry, 45)
        wide, alone = (attend_reference(s, s.positions(45), q, k, v) for s in (scheme, scheme.inner))
        assert torch.equal(wide, alone)


def test_the_narrower_of_two_windows_holds(causal):
    geometry = DECODER if causal else ENCODER
    for outer, inner in ((3, 9), (9, 3)):
        scheme = Local(geometry, Local(geometry, Nope(geometry), inner), outer)
        assert [branch.window for branch in scheme.branches(scheme.positions(45))] == [3]
        check_window(scheme, 3)


# ---- T5


def buckets(offsets, causal, **sizes):
    scheme = T5(DECODER if causal else ENCODER, **sizes)
    return t5_bucket(torch.tensor(offsets), causal, scheme.edges).tolist()


def test_t5_buckets_of_an_encoder():
    """16 a side: 0 .. 7 exact, then 8 * 2^(c/2) is the first distance of bucket 8 + c."""
    first = [8, 12, 16, 23, 32, 46, 64, 91]
    for side, sign in ((0, -1), (16, 1)):
        assert buckets([sign * d for d in range(1, 8)], causal=False) == [side + d for d in range(1, 8)]
        assert buckets([sign * d for d in first], causal=False) == [side + 8 + c for c in range(8)]
        assert buckets([sign * (d - 1) for d in first[1:]], causal=False) == [side + 8 + c for c in range(7)]
        assert buckets([sign * d for d in (127, 128, 129, 5000)], causal=False) == [side + 15] * 4
    assert buckets([0], causal=False) == [0]


def test_t5_buckets_of_a_causal_model():
    """All 32 for the past: 0 .. 15 exact, then 16 * 2^(3c/16) is the first distance of bucket 16 + c."""
    first = [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
    assert buckets([-d for d in range(16)], causal=True) == list(range(16))
    assert buckets([-d for d in first], causal=True) == [16 + c for c in range(16)]
    assert buckets([1 - d for d in first], causal=True) == [15 + c for c in range(16)]
    assert buckets([-127, -128, -129, -5000], causal=True) == [31] * 4
    assert buckets([1, 7, 200], causal=True) == [0] * 3


@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (8, 20), (4, 3), (64, 4096)])
def test_t5_buckets_grow_with_distance_and_none_is_left_out(n_buckets, max_distance, causal):
    past = buckets([-d for d in range(2 * max_distance)], causal, n_buckets=n_buckets, max_distance=max_distance)
    last = n_buckets - 1 if causal else n_buckets // 2 - 1
    assert past == sorted(past)
    assert past[0] == 0
    assert past[max_distance] == last
    if not causal:
        future = buckets(list(range(1, 2 * max_distance)), causal, n_buckets=n_buckets, max_distance=max_distance)
        assert future == [n_buckets // 2 + bucket for bucket in past[1:]]


@pytest.mark.parametrize(
    ("n_buckets", "max_distance", "distance", "bucket"),
    [
        *[(16, 1461, 762, 14), (24, 889, 621, 22), (32, 939, 728, 30), (32, 128, 113, 31), (32, 128, 112, 30)],
        *[(20, 320, 20, 12), (20, 320, 40, 14), (20, 320, 160, 18)],
    ],
)
def test_t5_buckets_next_to_an_edge(n_buckets, max_distance, distance, bucket):
    """Some of these are on the wrong side when the logarithm is taken in float32, the last ones in float64 too."""
    assert buckets([-distance], causal=True, n_buckets=n_buckets, max_distance=max_distance) == [bucket]


def test_t5_starts_as_nope_and_its_bias_is_trained(causal):
    geometry = DECODER if causal else ENCODER
    scheme = T5(geometry)
    assert torch.equal(attention_weights(scheme, 9), attention_weights(Nope(geometry), 9))
    assert scheme.bias.requires_grad


# ---- refusals and labels


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rope(Geometry(20, 4, 16, causal=False)), "even head_dim, found 5"),
        (lambda: Sinusoidal(Geometry(15, 3, 16, causal=False)), "even d_model, found 15"),
        (lambda: Rope(ENCODER, base=0.0), "positive base, found 0.0"),
        (lambda: Rope(ENCODER, base=float("nan")), "positive base, found nan"),
        (lambda: Sinusoidal(ENCODER, base=-2.0), "positive base, found -2.0"),
        (lambda: Local(ENCODER, Nope(ENCODER), window=0), "window >= 1, found 0"),
        (lambda: T5(ENCODER, n_buckets=30), "multiple of 4, found 30"),
        (lambda: T5(ENCODER, n_buckets=0), "multiple of 4, found 0"),
        (lambda: T5(ENCODER, n_buckets=32, max_distance=16), "above n_buckets / 2 = 16, found 16"),
    ],
)
def test_sizes_that_a_scheme_cannot_serve_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("case", "sizes", "message"),
    [
        ("rope", {"head_dim": 5}, "^position: RoPE rotates pairs and needs an even head_dim, found 5$"),
        ("local position.window=0", {}, "^position: .*expected window >= 1, found 0$"),
        ("t5 position.n_buckets=6", {}, "^position: .*expected n_buckets to be a multiple of 4, found 6$"),
        ("local position@position.inner=t5 position.inner.n_buckets=6", {}, "^position.inner: .*multiple of 4, found 6$"),
        ("rope position.base=two", {}, "^position.base: expected float, found 'two'$"),
    ],
)
def test_a_config_that_a_scheme_cannot_serve_is_refused_in_one_line(case, sizes, message, scheme_of):
    with pytest.raises(UserError, match=message):
        scheme_of(case, causal=False, **sizes)


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ("position=nope", "nope"),
        ("position=rope", "rope"),
        ("position=rope position.base=500000.0", "rope(base=500000.0)"),
        ("position=rope position.base=500000", "rope(base=500000.0)"),
        ("position=rope position.base=10000", "rope"),
        ("position=local", "local(rope)"),
        ("position=local position@position.inner=alibi position.window=32", "local(alibi, window=32)"),
        ("position=local position.inner.base=500000.0", "local(rope(base=500000.0))"),
        ("position=t5 position.n_buckets=8", "t5(n_buckets=8)"),
    ],
)
def test_a_label_names_all_that_is_not_the_default(overrides, label):
    assert compose_grid(["experiment=smoke", "seed=0", *overrides.split()])[0].scheme == label


# ---- KERPLE


def test_a_parameter_of_kerple_can_leave_its_floor():
    scheme = Kerple(ENCODER)
    nn.init.constant_(scheme.r1, -1.0)
    attention_weights(scheme, 7)[..., 0].sum().backward()
    assert (scheme.r1 == -1).all(), "an evaluation changes no parameter"
    assert scheme.r1.grad.abs().min() > 0
    at_floor = Kerple(ENCODER)
    at_floor.load_state_dict(scheme.state_dict() | {"r1": torch.full_like(scheme.r1, 0.01)})
    assert_close(attention_weights(scheme, 7), attention_weights(at_floor, 7), rtol=0, atol=1e-6)
    attention_weights(at_floor, 7)[..., 0].sum().backward()
    assert_close(scheme.r1.grad, at_floor.r1.grad, rtol=1e-4, atol=0)
