"""What the interface carries beside the schemes of conf/position: drawn positions, content, weights, layers, wrappers."""

import math
from functools import partial

import pytest
import torch
from checking import DECODER, ENCODER, ROUNDING, check_against_reference, check_path, inputs
from marks import slow
from references.alibi import alibi
from references.base import Reference, attend, dot, formula
from references.local import local
from references.rope import rope
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from extrap.extensions.far import ReRope
from extrap.model import encoder as encoders
from extrap.model.attention import prepare
from extrap.model.definition import attend_reference
from extrap.model.prefix import Prefix
from extrap.model.seed import seed_generators
from extrap.positions.absolute import Learned
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch
from extrap.positions.kerple import Kerple
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.pose import Pose
from extrap.positions.randomized import Randomized
from extrap.positions.rope import Rope
from extrap.positions.t5 import T5
from extrap.positions.wrappers import FACTS, Wrapper


@pytest.fixture
def geometry(causal):
    return DECODER if causal else ENCODER


def rerope(geometry):
    """Several passes."""
    return ReRope(window=3)(Rope(geometry), geometry.train_len + 1)


def train_step(encoder, tokens):
    """Loss before, and all parameters after one step."""
    encoder.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.01)
    loss = F.cross_entropy(encoder.logits(encoder(tokens)).flatten(0, 1), tokens.flatten())
    loss.backward()
    optimizer.step()
    return loss.item(), [parameter.detach().clone() for parameter in encoder.parameters()]


# ---- places


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("seq_len", [16, *slow(9, 45)])  # one dense bias, and beyond it
def test_a_few_places_have_the_states_and_the_gradients_of_all(
    kind, causal, training, seq_len, scheme_of, encoder_of, small
):
    encoder = encoder_of(scheme_of(kind, causal, train_len=64)).double().train(training)
    tokens, at = torch.randint(11, (2, seq_len)), torch.tensor([[0, 3, seq_len - 1], [2, 7, 1]])
    weight = torch.randn(2, 3, encoder.norm.weight.numel())
    in_the_end = []
    encoder.blocks[-1].down.register_forward_hook(lambda _, given, __: in_the_end.append(given[0].shape[1]))
    found = []
    for places in (None, at):
        seed_generators(1)  # for positions that are drawn
        states = encoder(tokens, places)
        states = states[torch.arange(2)[:, None], at] if places is None else states
        gradients = torch.autograd.grad((states * weight).sum(), [*encoder.parameters()], allow_unused=True)
        found.append([states, *(gradient for gradient in gradients if gradient is not None)])
    assert in_the_end == [seq_len, 3]
    assert_close(found[1], found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_own", [1, 13, *slow(44, 45)])
def test_behind_a_prefix_the_last_token_has_the_state_that_it_has_in_the_whole_text(
    kind, n_own, scheme_of, encoder_of, small
):
    encoder = encoder_of(scheme_of(kind, True, train_len=64)).double().eval()
    before, own = torch.randint(11, (2, 3, 45))
    whole = torch.cat([before[:, :-n_own], own[:, -n_own:]], dim=1)
    with torch.no_grad():
        assert_close(Prefix(encoder, before).last(own[:, -n_own:]), encoder(whole)[:, -1], rtol=0, atol=1e-6)


# ---- wrappers


def test_a_wrapper_changes_nothing_by_itself(kind, causal, scheme_of, encoder_of):
    scheme = scheme_of(kind, causal, train_len=64)
    wrapped = Wrapper(scheme)
    assert [getattr(wrapped, fact) for fact in FACTS] == [getattr(scheme, fact) for fact in FACTS]
    tokens = torch.randint(11, (2, 45))
    with torch.no_grad():
        assert torch.equal(encoder_of(wrapped).eval()(tokens), encoder_of(scheme).eval()(tokens))
    pos = torch.arange(9)
    if len(scheme.branches(pos)) == 1:
        for hook in ("rotation", "score_mod", "mask_mod"):
            assert bool(getattr(wrapped, hook)(pos)) == bool(getattr(scheme, hook)(pos))


def test_a_wrapper_answers_for_what_is_inside(geometry):
    q, k, _ = inputs(geometry, 9)
    pos = torch.arange(9)
    alone, around = Rope(geometry), Local(geometry, Rope(geometry), 5)
    for found, expected in zip(around.rotation(pos)(q, k), alone.rotation(pos)(q, k), strict=True):
        assert torch.equal(found, expected)
    assert Local(geometry, Nope(geometry), 5).rotation(pos) is None
    with pytest.raises(ValueError, match=r"FarApart attends in \d passes; ask for branches"):
        Local(geometry, rerope(geometry), 5).rotation(pos)


def test_a_window_around_several_branches(geometry, small):
    """Local narrows every branch: within it ReRoPE at its full distance, beyond it nothing."""
    held = rope(geometry, 10_000.0)
    held = held._replace(score=partial(lambda score, q, k, i, j, h: score(q, k, max(-3, min(i - j, 3)), 0, h), held.score))
    scheme = Local(geometry, rerope(geometry), window=9)
    check_against_reference(scheme, local(geometry, held, 9), range(45))
    assert {branch.window for branch in scheme.branches(torch.arange(45))} == {3, 9}
    check_path(scheme, 45, training=False)


# ---- layers


def test_layers_that_share_a_scheme_are_prepared_once(geometry, encoder_of, monkeypatch):
    calls = []
    monkeypatch.setattr(encoders, "prepare", lambda *given, **sizes: calls.append(given) or prepare(*given, **sizes))
    mixed = Mixed(geometry, Rope(geometry), Nope(geometry))
    for scheme, expected in ((Rope(geometry), 1), (mixed, 2), (Local(geometry, mixed, 5), 2)):
        encoder = encoder_of(scheme)
        encoder.blocks.extend(encoder_of(scheme).blocks)
        calls.clear()
        encoder.eval()(torch.randint(11, (1, 9)))
        assert len(encoder.blocks) == 4
        assert len(calls) == expected


def test_a_wrapper_wraps_every_layer(geometry):
    """The parameters of each layer are those of the scheme inside, and the wrapper's own are shared."""
    inner = Mixed(geometry, Rope(geometry), Kerple(geometry))
    scheme = Costs(Local(geometry, inner, window=3))
    first, second, third = scheme.layers(3)
    assert first is third
    assert [layer.inner.inner for layer in (first, second)] == [inner.near, inner.wide]
    assert all(layer.weight is scheme.weight for layer in (first, second))
    assert [layer.branches(torch.arange(9))[0].window for layer in (first, second)] == [3, 3]
    assert len(list(scheme.parameters())) == 3


@torch.no_grad()
@pytest.mark.parametrize("case", ["fox", "mixed position.near.window=5", "sinks position@position.inner=rope"])
def test_an_encoder_gives_every_layer_its_scheme_and_its_input(case, causal, scheme_of, reference_of, encoder_of, small):
    scheme = scheme_of(case, causal)
    encoder, formulas = encoder_of(scheme).double(), reference_of(case, scheme)
    for training, seq_len in ((True, 13), (False, 13), (False, 21)):  # all at once, and in chunks
        tokens = torch.randint(11, (2, seq_len))
        x = scheme.embed(encoder.embedding(tokens), scheme.positions(seq_len))
        for block, reference in zip(encoder.blocks, formulas, strict=True):

            def loops(q, k, v, x, reference=reference):
                rows = attend(reference, q.tolist(), k.tolist(), v.tolist(), range(q.shape[2]), causal, x.tolist())
                return torch.tensor(rows, dtype=torch.float64)

            x = block(x, loops)
        assert_close(encoder.train(training)(tokens), encoder.norm(x), rtol=0, atol=ROUNDING)


# ---- positions apart


def apart_by_loops(score):
    """Queries stand 0.5 further on than their place and 3 times as far, keys at half theirs."""
    return Reference(score=lambda q, k, i, j, h: score(q, k, 3 * i + 0.5, j / 2, h))


@pytest.mark.parametrize("scheme", [Rope, Alibi, Kerple, T5])
def test_queries_and_keys_can_stand_at_positions_of_their_own(scheme, geometry, small):
    class Apart(Wrapper):
        def branches(self, pos):
            return (self.inner.apart(3 * pos.double() + 0.5, pos.double() / 2),)

    inner = scheme(geometry)
    for parameter in inner.parameters():
        nn.init.uniform_(parameter)
    arguments = {"Rope": {"base": 10_000.0}, "T5": {"n_buckets": 32, "max_distance": 128}}.get(scheme.__name__, {})
    score = formula({"_target_": f"{scheme.__module__}.{scheme.__name__}", **arguments}, inner).score
    if scheme is T5:  # whose buckets are of whole distances
        whole = score
        score = lambda q, k, i, j, h: whole(q, k, int(i - j), 0, h)  # noqa: E731
    check_against_reference(Apart(inner), apart_by_loops(score), range(21))
    for training in (True, False):
        check_path(Apart(inner), 16 if training else 45, training)


# ---- drawn positions


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


def test_random_positions_are_drawn_anew_while_training_only(geometry):
    scheme = Randomized(geometry, Rope(geometry), max_len=200).train()
    draws = [scheme.positions(16) for _ in range(50)]
    for pos in draws:
        assert pos.dtype == torch.int64
        assert (pos[1:] > pos[:-1]).all()
        assert 0 <= pos[0] <= pos[-1] < 200
    assert len({tuple(pos.tolist()) for pos in draws}) == 50
    assert max(int(pos[-1]) for pos in draws) > 190
    read = scheme.eval().positions(16).tolist()
    wrapped = Local(geometry, scheme, window=9)
    assert wrapped.random_in_training
    assert not wrapped.training
    assert wrapped.eval().positions(16).tolist() == read
    assert wrapped.train().positions(16).tolist() != read


def test_random_positions_compose_with_any_scheme(inner, causal, scheme_of, reference_of, small):
    """Positions mean what the inner scheme says, a window of positions included, on every path."""
    alone = scheme_of(inner, causal)
    scheme = Randomized(alone.geometry, alone, max_len=200).train()
    reference = reference_of(inner, alone)
    q, k, v = inputs(scheme.geometry, 20)
    pos = scheme.positions(20)
    output = attend_reference(scheme, pos, q, k, v)
    expected = attend(reference, q.tolist(), k.tolist(), v.tolist(), pos.tolist(), causal)
    assert_close(output, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=ROUNDING)
    drawn = Fixed(alone, torch.cat([pos, pos[-1] + 3 + torch.arange(25)]))
    for seq_len in (9, 16, 20, 45):
        check_path(drawn, seq_len, training=True)
        check_path(drawn, seq_len, training=False)


class Fixed(Wrapper):
    """Drawn positions, the same in every call: two paths can be compared."""

    def __init__(self, inner, pos):
        super().__init__(inner)
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
def test_positions_of_two_chunks_are_plain_ones_in_evaluation(inner, causal, scheme_of, encoder_of):
    alone = scheme_of(inner, causal)
    tokens = torch.randint(11, (2, 45))
    drawn = Pose(alone.geometry, alone, max_len=200)
    random, plain = (encoder_of(s).eval()(tokens) for s in (drawn, alone))
    assert torch.equal(random, plain)


# ---- biases that depend on what is read


class Costs(Wrapper):
    """b_i - b_j added to any scheme, b the cumulative sum of -softplus(w . k_t), one w per head for all layers."""

    def __init__(self, inner):
        super().__init__(inner)
        self.weight = nn.Parameter(torch.randn(inner.geometry.n_heads, inner.geometry.head_dim) / 4)

    def change(self, branch, pos):
        return branch._replace(
            decay=lambda seen: -F.softplus((seen.k * self.weight[:, None]).sum(dim=-1)).double().cumsum(dim=-1)
        )


def costs(inner, weight):
    """The sum of -softplus over the tokens after j up to i: what each of them costs."""

    def content(queries, keys, inputs, m, n, h):
        return -sum(math.log1p(math.exp(dot(weight[h], keys[t]))) for t in range(n + 1, m + 1))

    return inner._replace(content=content)


@pytest.mark.parametrize("inner", [Nope, Rope, Alibi, lambda geometry: Local(geometry, Rope(geometry), 5)])
def test_a_decay_joins_a_bias_a_rotation_and_a_window(inner, small):
    scheme = Costs(inner(DECODER))
    known = {Nope: Reference(), Rope: rope(DECODER, 10_000.0), Alibi: alibi(DECODER)}
    reference = known.get(inner) or local(DECODER, known[Rope], 5)
    check_against_reference(scheme, costs(reference, scheme.weight.tolist()), range(20))
    for seq_len in (1, 9, 16, 17, 45, 300):
        check_path(scheme, seq_len, training=True)
        check_path(scheme, seq_len, training=False)


def test_facts_and_branches_say_what_reads_content():
    assert Branch(content=lambda seen: None).reads_content
    assert Branch(decay=lambda seen: None).reads_content
    assert not Branch().reads_content
    assert Learned(ENCODER).tabular
