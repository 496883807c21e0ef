"""Five schemes of the kinds that the interface has to carry, each one file, one spec and one formula."""

import importlib
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from marks import slow
from reference import REFERENCES, Reference, attend, tables
from test_attention import FLOAT32, check_path
from test_findings import assert_what_it_states, page
from test_positions import DECODER, ENCODER, ROUNDING, SCATTERED, check_against_reference, inputs, layers
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from trial_schemes import references
from trial_schemes.alternating import Alternating
from trial_schemes.cope import Cope
from trial_schemes.fox import Fox, Gates
from trial_schemes.rerope import ReRope
from trial_schemes.sinks import Sink, Sinks

from extrap.model import attention, decay
from extrap.model.decay import first_keys
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.testing.promises import check_scheme

SPECS = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((Path(__file__).parent / "trial_schemes").glob("*.yaml"))
}
OTHER = replace(ENCODER, d_model=18, n_heads=3, n_layers=3)  # sizes that are no powers of two
GEOMETRIES = {"causal": DECODER, "encoder": ENCODER, "other causal": replace(OTHER, causal=True), "other encoder": OTHER}


def build(spec, geometry, mutant=None):
    """The scheme of a spec, with tables that are not zero; `mutant` in the place of its class."""
    module, name = spec["_target_"].rsplit(".", 1)
    arguments = {key: build(value, geometry) if isinstance(value, dict) else value for key, value in spec.items()}
    del arguments["_target_"]
    scheme = (mutant or getattr(importlib.import_module(module), name))(geometry, **arguments)
    for parameter in scheme.parameters():
        nn.init.normal_(parameter, std=0.5)
    return scheme


def formula(spec, scheme):
    name = spec["_target_"].rsplit(".", 1)[1].lower()
    arguments = {
        key: formula(value, getattr(scheme, key)) if isinstance(value, dict) else value for key, value in spec.items()
    }
    del arguments["_target_"]
    return (getattr(references, name, None) or REFERENCES[name])(scheme.geometry, **arguments, **tables(scheme))


def every_layer(reference, scheme):
    return [reference] * scheme.geometry.n_layers if isinstance(reference, Reference) else reference


DEFINED = [(name, sizes) for name in SPECS for sizes in GEOMETRIES if name != "cope" or GEOMETRIES[sizes].causal]


@pytest.fixture(params=DEFINED, ids=lambda given: " ".join(given))
def trial(request):
    """A spec and its scheme."""
    name, sizes = request.param
    return SPECS[name], build(SPECS[name], GEOMETRIES[sizes])


def check_formula(spec, scheme, at=range(20)):
    check_against_reference(scheme, formula(spec, scheme), at)


def test_a_trial_scheme_computes_what_its_formula_says(trial):
    for at in ([0], range(7), range(20), SCATTERED):
        check_formula(*trial, at)


@pytest.mark.parametrize("seq_len", [17, *slow(1, 9, 16, 45)])
def test_on_every_path(trial, seq_len, small):
    _, scheme = trial
    for layer in layers(scheme):
        for training in (True, False):
            check_path(layer, seq_len, training)


@torch.no_grad()
def test_an_encoder_gives_every_layer_its_scheme_and_its_input(trial, encoder_of, small):
    spec, scheme = trial
    encoder, causal = encoder_of(scheme).double(), scheme.geometry.causal
    for training, seq_len in ((True, 13), (False, 13), (False, 21)):  # all at once, and in chunks
        tokens = torch.randint(11, (2, seq_len))
        x = scheme.embed(encoder.embedding(tokens), scheme.positions(seq_len))
        for block, reference in zip(encoder.blocks, every_layer(formula(spec, scheme), scheme), strict=True):

            def loops(q, k, v, x, reference=reference):
                rows = attend(reference, q.tolist(), k.tolist(), v.tolist(), range(q.shape[2]), causal, x.tolist())
                return torch.tensor(rows, dtype=torch.float64)

            x = block(x, loops)
        assert_close(encoder.train(training)(tokens), encoder.norm(x), rtol=0, atol=ROUNDING)


def test_its_parameters_are_trained_and_its_promises_kept(trial, encoder_of):
    spec, scheme = trial
    encoder = encoder_of(scheme).train()
    tokens = torch.randint(11, (2, 16))
    F.cross_entropy(encoder.logits(encoder(tokens)).flatten(0, 1), tokens.flatten()).backward()
    for name, parameter in scheme.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name
    check_scheme(partial(build, spec, scheme.geometry), longest=64)


@pytest.mark.parametrize("name", SPECS)
def test_a_trial_scheme_is_what_it_states(name):
    found = page(lambda geometry: build(SPECS[name], geometry))
    assert [finding for finding in found.values() if finding.verdict == "WRONG"] == []
    assert_what_it_states(found, build(SPECS[name], DECODER))


def test_cope_is_not_defined_for_an_encoder():
    with pytest.raises(ValueError, match="Cope is defined for causal models alone; expected objective=causal"):
        build(SPECS["cope"], ENCODER)


# ---- what each of them comes down to


def same(scheme, other, seq_len=45):
    q, k, v = inputs(scheme.geometry, seq_len, dtype=torch.float32)
    x = torch.randn(1, seq_len, scheme.geometry.d_model)
    for training in (True, False):
        outputs = []
        for one in (scheme, other):
            (layer, *_), pos = one.layers(2), torch.arange(seq_len)
            outputs.append(attention.prepare(layer, pos, training=training)(q, k, v, x))
        assert_close(*outputs, rtol=0, atol=FLOAT32)


def test_limits(causal):
    geometry = DECODER if causal else ENCODER
    same(ReRope(geometry, window=45), Rope(geometry))
    closed = Sinks(geometry, Rope(geometry))
    for sink in closed.sinks:
        nn.init.constant_(sink, -100.0)
    same(closed, Rope(geometry))
    same(Alternating(geometry, Rope(geometry), Rope(geometry)), Rope(geometry))
    fox, open_, alibi = Fox(geometry), Fox(geometry), Alibi(geometry)
    for gates in (*fox.gates, *open_.gates):
        nn.init.zeros_(gates.weight)
        nn.init.constant_(gates.bias, 100.0)
    same(open_, Nope(geometry))
    for gates in fox.gates:  # -log sigmoid(b) = m
        gates.bias.data[:] = -torch.log(torch.expm1(alibi.slopes))
    same(fox, alibi)


# ---- the fast path of a decay


def decayed(c, q, k, v):
    class Decayed(PositionScheme):
        def branches(self, pos):
            return (Branch(decay=lambda seen: c),)

    return attention.attend_reference(Decayed(DECODER), torch.arange(c.shape[-1]), q, k, v)


def fast_and_exact(c, q, k, v):
    exact = decayed(c, *(part.double() for part in (q, k, v)))
    return decay.attend_decay(c, q, k, v), exact


def test_what_has_decayed_is_not_read(small):
    q, k, v = inputs(DECODER, 400, dtype=torch.float32)
    c = -torch.tensor([1.0, 0.3, 0.01, 0.0])[:, None] * torch.arange(400, dtype=torch.float64).expand(1, 4, -1)
    firsts = first_keys(c, q, k)
    assert firsts[0] == sorted(firsts[0])
    assert 300 < firsts[0][-1] < 400 - 8
    assert 200 < firsts[1][-1] < firsts[0][-1]
    assert firsts[3] == [0] * 50
    found, exact = fast_and_exact(c, q, k, v)
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)
    v[:, 0, : firsts[0][-1]] = torch.nan  # spoils whatever reads it
    assert torch.equal(decay.attend_decay(c, q, k, v)[:, 0, -8:], found[:, 0, -8:])


def test_a_large_key_a_decay_that_stops_and_one_that_rises_leave_nothing_out(small):
    """What counts is the largest score that any pair could have, and the sum of the steps wherever they are."""
    q, k, v = inputs(DECODER, 400, dtype=torch.float32)
    k[0, 0, 3] = 30 * q[0, 0, 390] / q[0, 0, 390].square().sum().sqrt()
    steps = torch.rand(1, 4, 400, dtype=torch.float64)
    steps[:, 1, 100:] = 0
    steps[:, 2, 200:] *= -1
    found, exact = fast_and_exact(-steps.cumsum(dim=-1), q, k, v)
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("which", ["c", "q", "k"])
def test_numbers_that_are_no_numbers_leave_nothing_out(which, small):
    q, k, _ = inputs(DECODER, 45, dtype=torch.float32)
    tensors = {"c": -9.0 * torch.arange(45.0).expand(1, 4, -1).double(), "q": q, "k": k}
    before = first_keys(**tensors)
    assert all(first[-1] > 0 for first in before)
    tensors["c"] = tensors["c"].clone()  # or all heads would be one
    tensors[which][0, 0, 20] = torch.nan
    assert first_keys(**tensors) == [[0] * 6, *before[1:]]


def test_long_sums_lose_nothing_near_by():
    """100,000 tokens at 0.7 each: in float32 neighbours would differ by a multiple of 0.008."""
    q, k, v = (torch.randn(1, 1, 300, 8) for _ in range(3))
    c = -(100_000 + torch.arange(300, dtype=torch.float64)) * 0.7
    found, exact = fast_and_exact(c.expand(1, 1, -1), q, k, v)
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)
    assert_close(found, decay.attend_decay((c - c[0]).expand(1, 1, -1), q, k, v), rtol=0, atol=FLOAT32)


# ---- bugs, each of which the formula rejects


class FarFutureOnTheWrongSide(ReRope):
    """The far keys ahead rotated as if they were behind."""

    def branches(self, pos):
        near, past, *future = super().branches(pos)
        return (near, past, *(branch._replace(rotate=past.rotate) for branch in future))


class FoxOfOtherGates(Fox):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.gates = nn.ModuleList(self.Gates(geometry) for _ in range(geometry.n_layers))


class GateOfTheKey(FoxOfOtherGates):
    """Exclusive where it should be inclusive: the gates from the key on, without the query's own."""

    class Gates(Gates):
        def past(self, seen):
            gates = self.log_gates(seen, 0)
            return gates.cumsum(dim=-1) - gates


class GateOverSqrt(FoxOfOtherGates):
    """FLA's PaTH-FoX: the gate divided by sqrt(K) like q . k."""

    class Gates(Gates):
        def log_gates(self, seen, side):
            return super().log_gates(seen, side) / math.sqrt(self.geometry.head_dim)


class RightSideOfXTransformers(FoxOfOtherGates):
    """Ahead it counts the key's gate and not the query's: no mirror image of the left side."""

    class Gates(Gates):
        def future(self, seen):
            return -self.log_gates(seen, 1).cumsum(dim=-1)


class GatesOfOneLayer(Fox):
    """The first layer's gates in all of them."""

    def layers(self, n_layers):
        return [self.gates[0]] * n_layers


class CountsTheFuture(Cope):
    """Sigmoid of what the mask has set to 0."""

    def gates(self, q, k, i, j):
        return torch.sigmoid(torch.where(j <= i[:, None], q @ k.mT / math.sqrt(q.shape[-1]), 0))


class CountsFromTheLeft(Cope):
    def gates(self, q, k, i, j):
        return super().gates(q, k, i, j).flip(-1)


class OffByOne(Alternating):
    def layers(self, n_layers):
        return super().layers(n_layers + 1)[1:]


class PositionsEverywhere(Alternating):
    """RoPE left on in the global layers."""

    def layers(self, n_layers):
        return [self.near if layer is self.near else self.near.inner for layer in super().layers(n_layers)]


class DroppedBeforeTheSoftmax(Sinks):
    """The column of the sink is gone before it takes any weight."""

    def layers(self, n_layers):
        return self.inner.layers(n_layers)


class SinkWithAValue(Sinks):
    """Weight that no value takes is shared out again."""

    class Sink(Sink):
        def weights(self):
            weigh = super().weights()
            return lambda scores: F.normalize(weigh(scores), p=1, dim=-1)

    def layers(self, n_layers):
        return [self.Sink(layer.inner, layer.sink) for layer in super().layers(n_layers)]


REJECTED = [
    ("rerope", FarFutureOnTheWrongSide, ENCODER),
    *(("fox", mutant, sizes) for mutant in (GateOfTheKey, GateOverSqrt, GatesOfOneLayer) for sizes in (DECODER, ENCODER)),
    ("fox", RightSideOfXTransformers, ENCODER),
    ("cope", CountsTheFuture, DECODER),
    ("cope", CountsFromTheLeft, DECODER),
    *((name, mutant, sizes) for name, mutant in (("alternating", OffByOne), ("alternating", PositionsEverywhere),
      ("sinks", DroppedBeforeTheSoftmax), ("sinks", SinkWithAValue)) for sizes in (DECODER, ENCODER)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mutant", "geometry"), REJECTED, ids=[mutant.__name__ for _, mutant, _ in REJECTED])
def test_a_bug_is_rejected_by_the_formula(name, mutant, geometry):
    spec = SPECS[name]
    with pytest.raises(AssertionError, match="not close"):
        check_formula(spec, build(spec, geometry, mutant))


def test_the_same_bugs_go_unseen_where_they_do_no_harm():
    check_formula(SPECS["rerope"], build(SPECS["rerope"], DECODER, FarFutureOnTheWrongSide))
    check_formula(SPECS["fox"], build(SPECS["fox"], DECODER, RightSideOfXTransformers))
