"""Schemes that a user could write: several branches, drawn positions and biases that depend on what is read."""

import math

import pytest
import torch
from reference import REFERENCES, Reference, attend, dot, mix
from test_attention import check_path
from test_positions import DECODER, ENCODER, ROUNDING, SCATTERED, check_against_reference, inputs
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from extrap.model.attention import attend_reference, prepare
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.local import Local
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope, rotary_angles, rotate_by


@pytest.fixture
def geometry(causal):
    return DECODER if causal else ENCODER


def train_step(encoder, tokens):
    """Loss before, and all parameters after one step."""
    encoder.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.01)
    loss = F.cross_entropy(encoder.logits(encoder(tokens)).flatten(0, 1), tokens.flatten())
    loss.backward()
    optimizer.step()
    return loss.item(), [parameter.detach().clone() for parameter in encoder.parameters()]


# ---- several branches


class ReRope(PositionScheme):
    """RoPE at the distance min(|i - j|, window), the sign kept (kexue.fm 9708)."""

    def __init__(self, geometry, window, base=10_000.0):
        super().__init__(geometry)
        self.window = window
        self.base = base

    def branches(self, pos):
        def distance(i, j):
            return pos[i] - pos[j]

        head_dim, w = self.geometry.head_dim, self.window
        full = rotate_by(rotary_angles(torch.full_like(pos, w), head_dim, self.base))
        near = Branch(
            rotate_by(rotary_angles(pos, head_dim, self.base)),
            mask_mod=lambda b, h, i, j: distance(i, j).abs() < w,
            window=w,
        )
        past = Branch(lambda q, k: (full(q, k)[0], k), mask_mod=lambda b, h, i, j: distance(i, j) >= w)
        future = Branch(lambda q, k: (q, full(q, k)[1]), mask_mod=lambda b, h, i, j: distance(i, j) <= -w)
        return (near, past) if self.geometry.causal else (near, past, future)


def rerope(geometry, window, base=10_000.0):
    inner = REFERENCES["rope"](geometry, base)
    return Reference(score=lambda q, k, i, j, h: inner.score(q, k, max(-window, min(i - j, window)), 0, h))


@pytest.mark.parametrize("window", [1, 5, 16])
def test_rerope_is_branches_under_one_softmax(window, geometry, small):
    scheme = ReRope(geometry, window)
    check_against_reference(scheme, rerope(geometry, window), range(45))
    check_against_reference(scheme, rerope(geometry, window), SCATTERED)
    for seq_len in (1, 9, 45):
        check_path(scheme, seq_len, training=True)
        check_path(scheme, seq_len, training=False)


def test_rerope_with_a_window_over_everything_is_rope(geometry):
    q, k, v = inputs(geometry, 45)
    wide, plain = (
        attend_reference(scheme.branches(torch.arange(45)), q, k, v, causal=geometry.causal)
        for scheme in (ReRope(geometry, 45), Rope(geometry))
    )
    assert torch.equal(wide, plain)
    narrow = attend_reference(ReRope(geometry, 5).branches(torch.arange(45)), q, k, v, causal=geometry.causal)
    assert (narrow - plain).abs().max() > 0.05


def test_a_window_around_several_branches(geometry, small):
    """Local narrows every branch: within it ReRoPE at its full distance, beyond it nothing."""
    scheme = Local(geometry, ReRope(geometry, window=3), window=9)
    check_against_reference(scheme, REFERENCES["local"](geometry, rerope(geometry, 3), 9), range(45))
    assert {branch.window for branch in scheme.branches(torch.arange(45))} == {3, 9}
    check_path(scheme, 45, training=False)


# ---- drawn positions


class Randomized(PositionScheme):
    """While training, sorted random positions below max_len (Ruoss et al. 2023); otherwise 0, 1, 2, ..."""

    def __init__(self, geometry, inner, max_len):
        super().__init__(geometry)
        self.inner = inner
        self.limit = max_len

    def positions(self, seq_len, device=None):
        if not self.training:
            return self.inner.positions(seq_len, device)
        return torch.randperm(self.limit, device=device)[:seq_len].sort().values

    def embed(self, x, pos):
        return self.inner.embed(x, pos)

    def branches(self, pos):
        return self.inner.branches(pos)


COMPOSED = [
    "alibi",
    "rope",
    "t5",
    "sinusoidal",
    "local position.window=12",
    "local position.window=12 position@position.inner=alibi",
]


@pytest.fixture(params=COMPOSED)
def inner(request):
    return request.param


def test_random_positions_are_drawn_while_training_only(geometry):
    scheme = Randomized(geometry, Rope(geometry), max_len=200).train()
    draws = [scheme.positions(16) for _ in range(50)]
    for pos in draws:
        assert pos.dtype == torch.int64
        assert (pos[1:] > pos[:-1]).all()
        assert 0 <= pos[0] <= pos[-1] < 200
    assert len({tuple(pos.tolist()) for pos in draws}) == 50
    assert max(int(pos[-1]) for pos in draws) > 190
    assert scheme.eval().positions(16).tolist() == list(range(16))
    wrapped = Local(geometry, scheme, window=9)
    assert wrapped.eval().positions(16).tolist() == list(range(16))
    assert wrapped.train().positions(16).tolist() != list(range(16))


def test_random_positions_compose_with_any_scheme(inner, causal, scheme_of, reference_of, small):
    """Positions mean what the inner scheme says, a window of positions included, on every path."""
    alone = scheme_of(inner, causal)
    scheme = Randomized(alone.geometry, alone, max_len=200).train()
    reference = reference_of(inner, alone)
    q, k, v = inputs(scheme.geometry, 20)
    pos = scheme.positions(20)
    output = attend_reference(scheme.branches(pos), q, k, v, causal=causal)
    expected = attend(reference, q.tolist(), k.tolist(), v.tolist(), pos.tolist(), causal)
    assert_close(output, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=ROUNDING)
    drawn = Fixed(alone, torch.cat([pos, pos[-1] + 3 + torch.arange(25)]))
    for seq_len in (9, 16, 20, 45):
        check_path(drawn, seq_len, training=True)
        check_path(drawn, seq_len, training=False)


class Fixed(Randomized):
    """Drawn positions, the same in every call: two paths can be compared."""

    def __init__(self, inner, pos):
        super().__init__(inner.geometry, inner, max_len=len(pos))
        self.pos = pos

    def positions(self, seq_len, device=None):
        return self.pos[:seq_len]


def test_random_positions_train_and_repeat(inner, causal, scheme_of, encoder_of):
    def trained(seed):
        torch.manual_seed(0)
        alone = scheme_of(inner, causal)
        encoder = encoder_of(Randomized(alone.geometry, alone, max_len=200))
        torch.manual_seed(seed)
        return train_step(encoder, torch.arange(16).view(1, 16) % 11)

    (loss, after), (same_loss, same), (other_loss, _) = trained(1), trained(1), trained(2)
    assert math.isfinite(loss)
    assert loss == same_loss
    assert all(torch.equal(a, b) for a, b in zip(after, same, strict=True))
    assert loss != other_loss


@torch.no_grad()
def test_random_positions_are_plain_ones_in_evaluation(inner, causal, scheme_of, encoder_of):
    alone = scheme_of(inner, causal)
    tokens = torch.randint(11, (2, 45))
    random, plain = (encoder_of(s).eval()(tokens) for s in (Randomized(alone.geometry, alone, max_len=200), alone))
    assert torch.equal(random, plain)


# ---- biases that depend on what is read


class Cope(PositionScheme):
    """Counts gates instead of tokens (Golovneva et al. 2024, equations 3 to 5), causal.

    p_ij = sum over t = j .. i of sigmoid(q_i . k_t), at most n_positions - 1, and
    score_ij = q_i . (k_j + e[p_ij]) / sqrt(K), where e between two whole positions is interpolated.
    """

    def __init__(self, geometry, n_positions=6):
        super().__init__(geometry)
        self.table = nn.Parameter(torch.randn(geometry.head_dim, n_positions))

    def gates(self, q, k):
        seq_len = q.shape[2]
        past = torch.ones(seq_len, seq_len, dtype=torch.bool, device=q.device).tril()
        return torch.where(past, torch.sigmoid(q @ k.mT), 0)

    def branches(self, pos):
        def content(q, k):
            counted = self.gates(q, k).flip(-1).cumsum(dim=-1).flip(-1)  # (B, H, T, T)
            counted = counted.clamp(max=self.table.shape[-1] - 1)
            below, above = counted.floor().long(), counted.ceil().long()
            at = q @ self.table.to(q.dtype) / math.sqrt(q.shape[-1])  # (B, H, T, positions)
            share = counted - below
            bias = at.gather(-1, below) * (1 - share) + at.gather(-1, above) * share
            return lambda score, b, h, i, j: score + bias[b, h, i, j]

        return (Branch(content=content),)


class Cable(PositionScheme):
    """b_i - b_j, b the cumulative sum of -softplus(w . k_t), one w per head (after Veisi et al. 2025, whose w reads x_t)."""

    def __init__(self, geometry, inner=None):
        super().__init__(geometry)
        self.inner = inner
        self.weight = nn.Parameter(torch.randn(geometry.n_heads, geometry.head_dim) / 4)

    def branches(self, pos):
        def content(q, k):
            b_of = -F.softplus((k * self.weight[:, None]).sum(dim=-1)).cumsum(dim=-1)  # (B, H, T)
            return lambda score, b, h, i, j: score + b_of[b, h, i] - b_of[b, h, j]

        (branch,) = self.inner.branches(pos) if self.inner else (Branch(),)
        return (branch._replace(content=content),)


def cope(scheme, queries, keys, values, h):
    """One head, position by position."""
    table = scheme.table.tolist()
    rows = []
    for i, query in enumerate(queries):
        seen = []
        for j in range(i + 1):
            counted = sum(1 / (1 + math.exp(-dot(query, keys[t]))) for t in range(j, i + 1))
            counted = min(counted, len(table[0]) - 1)
            below, above = math.floor(counted), math.ceil(counted)
            embedding = [row[below] + (counted - below) * (row[above] - row[below]) for row in table]
            key = [a + e for a, e in zip(keys[j], embedding, strict=True)]
            seen.append((dot(query, key) / math.sqrt(len(query)), values[j]))
        rows.append(mix(seen))
    return rows


def cable(scheme, queries, keys, values, h):
    """The sum of -softplus over the tokens after j up to i: what each of them costs."""
    weight = scheme.weight.tolist()[h]
    rows = []
    for i, query in enumerate(queries):
        seen = []
        for j in range(i + 1):
            cost = sum(math.log1p(math.exp(dot(weight, keys[t]))) for t in range(j + 1, i + 1))
            seen.append((dot(query, keys[j]) / math.sqrt(len(query)) - cost, values[j]))
        rows.append(mix(seen))
    return rows


def check_content(scheme, loops, seq_len=20):
    q, k, v = inputs(scheme.geometry, seq_len, n_batch=2)
    output = attend_reference(scheme.branches(scheme.positions(seq_len)), q, k, v, causal=True)
    for b in range(2):
        for h in range(scheme.geometry.n_heads):
            expected = loops(scheme, q[b, h].tolist(), k[b, h].tolist(), v[b, h].tolist(), h)
            assert_close(output[b, h], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("scheme", "loops"), [(Cope, cope), (Cable, cable)])
def test_a_bias_may_depend_on_queries_and_keys(scheme, loops, small):
    scheme = scheme(DECODER)
    check_content(scheme, loops)
    for seq_len in (1, 9, 16, 17, 45):
        check_path(scheme, seq_len, training=True)
        check_path(scheme, seq_len, training=False)


def test_positions_counted_from_content_are_not_rounded_by_bf16():
    """A sum of 100 gates has a step of 0.5 in bf16: the bias would be that of another position."""
    scheme = Cope(DECODER, n_positions=100)
    q, k, v = (x.to(torch.bfloat16).float() for x in inputs(DECODER, 128))
    branches = scheme.branches(scheme.positions(128))
    attend = prepare(branches, seq_len=128, n_heads=4, causal=True, training=True, device=q.device)
    exact = attend_reference(branches, q, k, v, causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attend(q, k, v)
    assert (rounded - exact).abs().max() < 0.03


def test_a_content_bias_joins_a_bias_and_a_rotation(small):
    for inner in (Alibi(DECODER), Rope(DECODER)):
        scheme = Cable(DECODER, inner)
        for training in (True, False):
            check_path(scheme, 45 if not training else 16, training)
        zero = Cable(DECODER, inner)
        nn.init.zeros_(zero.weight)  # -softplus(0) a token: ALiBi with the slope log 2
        q, k, v = inputs(DECODER, 20)
        pos = zero.positions(20)
        output = attend_reference(zero.branches(pos), q, k, v, causal=True)
        (branch,) = inner.branches(pos)
        slope = math.log(2)

        def both(score, b, h, i, j, known=branch.score_mod, slope=slope):
            score = known(score, b, h, i, j) if known else score
            return score - slope * (i - j)

        expected = attend_reference((branch._replace(score_mod=both),), q, k, v, causal=True)
        assert_close(output, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("seq_len", [16, 45])
@pytest.mark.parametrize("build", [lambda g: ReRope(g, 5), Cope, Cable, lambda g: Randomized(g, Cable(g, Rope(g)), 99)])
def test_a_whole_encoder_with_each(build, seq_len, encoder_of, small):
    scheme = build(DECODER)
    encoder = encoder_of(scheme)
    tokens = torch.randint(11, (2, seq_len))
    before = [parameter.detach().clone() for parameter in encoder.parameters()]
    with torch.no_grad():
        without = encoder_of(Nope(DECODER)).eval()
        assert (encoder.eval()(tokens) - without(tokens)).abs().max() > 0.05
    loss, after = train_step(encoder, tokens)
    assert math.isfinite(loss)
    for parameter, old, new in zip(encoder.parameters(), before, after, strict=True):
        if parameter is not encoder.embedding.weight:
            assert parameter.grad.abs().max() > 0
            assert not torch.equal(old, new)
    with torch.no_grad():
        hidden = encoder.eval()(tokens)
        changed = tokens.clone()
        changed[:, -1] = (tokens[:, -1] + 1) % 11
        assert_close(encoder(changed)[:, :-1], hidden[:, :-1], rtol=0, atol=1e-5)  # the future stays unseen
