"""Slower rotations: every rule pair by pair, numbers that are known of them, and the bugs that are told of them."""

import cmath
import math

import pytest
import torch
from extending import L, T, check_layers, geometry_of, named
from references.alibi import alibi
from references.base import Reference, scaled
from torch.testing import assert_close

from extrap.extensions.angles import Drop, Ntk, Parts, Pi, Yarn, _index_of
from extrap.model import attention
from extrap.positions.base import Geometry
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.rope import LearnedRope, PartialRope, PRope, Rope, rotate_by
from extrap.positions.sinks import Sinks
from extrap.positions.xpos import Xpos

BASE = 10_000.0


class OwnRotation(Rope):
    """By its frequencies alone."""

    def rotation(self, pos):
        return rotate_by(pos[:, None] * self.frequencies())


class Late(Rope):
    """Forms its angles when it is given queries."""

    def rotation(self, pos):
        return lambda q, k: rotate_by(self.angles(pos))(q, k)


def test_a_rotation_that_asks_for_no_factors_is_not_slowed(causal):
    geometry = geometry_of(causal)
    for extension in (Pi(), Ntk(), Yarn(), Drop()):
        assert extension(OwnRotation(geometry), T) is None
        assert extension(Xpos(geometry), T) is not None  # its own, and by angles
        assert extension(Late(geometry), T) is not None


# ---- the rules, as their sources print them: frequencies of the pairs m = 0 .. K/2 - 1


def raw(K, m):
    return BASE ** (-2 * m / K)


def pi(K, m, train_len, k):
    return raw(K, m) / k


def ntk(K, m, train_len, k):
    return (BASE * k ** (K / (K - 2))) ** (-2 * m / K)


def ntk_mixed(K, m, train_len, k, b=0.75):
    a = math.log(k) / (K / 2) ** b
    return raw(K, m) * math.exp(-a * (m + 1) ** b)


def ntk_fixed(K, m, train_len, k):
    return raw(K, m) / (k ** (2 / K)) ** (m + 1)


def parts_of_the_code(K, m, train_len, k):
    def index(turns):
        return K * math.log(train_len / (turns * 2 * math.pi)) / (2 * math.log(BASE))

    low, high = max(math.floor(index(32)), 0), min(math.ceil(index(1)), K - 1)
    ramp = min(max((m - low) / max(high - low, 0.001), 0), 1)
    return raw(K, m) / k * ramp + raw(K, m) * (1 - ramp)


def parts_of_the_paper(K, m, train_len, k):
    turns = train_len * raw(K, m) / (2 * math.pi)
    gamma = 0 if turns < 1 else 1 if turns > 32 else (turns - 1) / (32 - 1)
    return (1 - gamma) * raw(K, m) / k + gamma * raw(K, m)


def llama3(K, m, train_len, k):
    wave = 2 * math.pi / raw(K, m)
    if wave < train_len / 4:
        return raw(K, m)
    if wave > train_len:
        return raw(K, m) / k
    smooth = (train_len / wave - 1) / (4 - 1)
    return (1 - smooth) * raw(K, m) / k + smooth * raw(K, m)


def nothing(K, m, train_len, k):
    return 0.0


def unchanged(k):
    return 1.0


def yarn(k):
    """What queries and keys are multiplied with, each."""
    return 0.1 * math.log(k) + 1


RULES = {
    "pi": (pi, unchanged), "ntk": (ntk, unchanged), "ntkmixed": (ntk_mixed, unchanged), "ntkfixed": (ntk_fixed, unchanged),
    "parts": (parts_of_the_code, unchanged), "parts(paper=true)": (parts_of_the_paper, unchanged),
    "yarn": (parts_of_the_code, yarn), "yarn(paper=true)": (parts_of_the_paper, yarn), "llama3": (llama3, unchanged),
    "drop": (nothing, unchanged), "drop(c=0.5)": (nothing, lambda k: math.sqrt(1 + 0.5 * math.log(k))),
}  # fmt: skip


def turned(name, train_len=L, seq_len=T):
    """RoPE of these frequencies, in the relative form."""
    rule, each = RULES[name]
    k = seq_len / train_len

    def score(q, key, i, j, h):
        total = 0.0
        for m in range(len(q) // 2):
            turn = cmath.exp(1j * (i - j) * rule(len(q), m, train_len, k))
            total += (complex(*q[2 * m : 2 * m + 2]) * complex(*key[2 * m : 2 * m + 2]).conjugate() * turn).real
        return total * each(k) ** 2 / math.sqrt(len(q))

    return Reference(score=score)


UNTOUCHED = turned("pi", 1, 1)  # k = 1


# ---- every rule in every place


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_what_its_source_says(name, causal, small):
    geometry = geometry_of(causal)
    check_layers(named(name)(Rope(geometry), T), [turned(name)] * 2)


@pytest.mark.parametrize("train_len", [4, 40, 300])
@pytest.mark.parametrize("name", RULES)
def test_factors_at_other_lengths(name, train_len):
    """Where no pair turns within the training length, some do, all of a small head do."""
    rule, _ = RULES[name]
    for head_dim in (2, 4, 16):
        geometry = Geometry(head_dim, 1, train_len, causal=True)
        for k in (2, 3.3):
            (extended,) = [part for part in named(name)(Rope(geometry), k * train_len).modules() if isinstance(part, Rope)]
            found = extended.angles(torch.ones(1))[0]
            if head_dim == 2 and name == "ntk":  # whose exponent has no meaning there
                assert found == 1
                continue
            expected = [rule(head_dim, m, train_len, k) for m in range(head_dim // 2)]
            assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["ntk", "yarn"])
def test_layers_that_see_no_further_than_training_stay(name, causal, small):
    geometry = geometry_of(causal)
    rope, near = Rope(geometry), Local(geometry, Rope(geometry), L)
    (extended, plain), of = (named(name), UNTOUCHED), turned(name)
    local = plain._replace(keep=lambda i, j: abs(i - j) < L)
    check_layers(extended(Mixed(geometry, near, rope), T), [local, of])
    wide = of._replace(keep=lambda i, j: abs(i - j) < L + 1)
    check_layers(extended(Local(geometry, rope, L + 1), T), [wide] * 2)
    for scheme in (near, Sinks(geometry, near), Mixed(geometry, near, Nope(geometry)), Nope(geometry)):
        assert extended(scheme, T) is None


@pytest.mark.parametrize("name", RULES)
def test_other_spectra(name):
    """Partial RoPE is RoPE of fewer dimensions, p-RoPE and xPos are slowed as the whole; what does not turn never does."""
    rule, _ = RULES[name]
    geometry, one = Geometry(32, 1, 40, causal=True), torch.ones(1)

    def found(scheme):
        (part,) = [part for part in named(name)(scheme, 100).modules() if isinstance(part, Rope)]
        return part.angles(one)[0].tolist()

    partial, whole = ([rule(K, m, 40, 2.5) for m in range(K // 2)] for K in (16, 32))
    assert found(PartialRope(geometry, fraction=0.5)) == pytest.approx(partial + [0.0] * 8)
    assert found(PRope(geometry, fraction=0.5)) == pytest.approx(whole[:8] + [0.0] * 8)
    for scheme in (Xpos(geometry), LearnedRope(geometry)):
        assert found(scheme) == pytest.approx(whole)
    assert found(PartialRope(geometry, fraction=0.0)) == [0.0] * 16


@pytest.mark.parametrize("name", ["parts", "yarn"])
def test_parts_of_a_trained_spectrum_are_those_of_its_frequencies(name):
    """A slow pair that has learned to turn as fast as the second is slowed as the second is."""
    scheme = LearnedRope(Geometry(32, 1, 128, causal=True))
    fast = scheme.frequencies()[1]
    scheme.log_factors.data[9] = (fast / scheme.frequencies()[9]).log()
    (part,) = [part for part in named(name)(scheme, 512).modules() if isinstance(part, Rope)]
    second, trained = part.angles(torch.ones(1))[0][[1, 9]].tolist()
    assert trained == pytest.approx(second)


def test_what_is_extended_stays_as_it_was():
    geometry = geometry_of(True)
    rope = Rope(geometry)
    scheme = Sinks(geometry, Mixed(geometry, Local(geometry, Rope(geometry), 3), rope))
    extended = named("yarn")(scheme, T)
    assert rope.factors is None
    assert scheme.inner.wide is rope
    assert [a is b for a, b in zip(extended.parameters(), scheme.parameters(), strict=True)] == [True] * 2
    assert extended.inner.near is scheme.inner.near, "what does not change is shared"
    assert named("pi")(extended, T) is None, "slowed once"


@pytest.mark.parametrize("name", RULES)
def test_the_fast_path_is_kept(name, causal, monkeypatch):
    """Nothing but causality applies: PyTorch's kernel is asked."""
    extended, asked = named(name)(Rope(geometry_of(causal)), T), []
    kernel = attention.F.scaled_dot_product_attention
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda *a, **b: asked.append(1) or kernel(*a, **b))
    attention.prepare(extended, extended.positions(T), training=False)(*torch.randn(3, 1, 4, T, 8))
    assert asked == [1]


@pytest.mark.parametrize("name", sorted({*RULES} - {"drop", "drop(c=0.5)"}))
def test_slow_pairs_are_slowed_more(name):
    geometry = Geometry(128, 4, 128, causal=True)
    for k in (2, 32):
        factors = factors_of(named(name), geometry, k)
        assert (factors.diff() <= 0).all()
        assert factors[-1] == pytest.approx(1 / k)
        assert factors[0] <= 1


def test_dropped_an_encoder_does_not_know_the_order(small, encoder_of):
    encoder = encoder_of(named("drop")(Rope(geometry_of(False)), T)).eval()
    tokens, order = torch.randint(11, (2, T)), torch.randperm(T)
    with torch.no_grad():
        assert_close(encoder(tokens[:, order]), encoder(tokens)[:, order], rtol=0, atol=1e-5)


# ---- numbers: K = 32, L = 128


def factors_of(extension, geometry, k):
    scheme = extension(Rope(geometry), k * geometry.train_len)
    (rope,) = [part for part in scheme.modules() if isinstance(part, Rope)]
    return rope.angles(torch.ones(1))[0] / Rope(geometry).frequencies()


@pytest.mark.parametrize(
    ("name", "k", "known"),
    [
        ("parts(paper=true)", 4, [0.719, 0.503, 0.382, 0.313, 0.275, 0.254, 0.25, 0.25]),
        ("parts", 4, [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.25]),
        ("ntk", 4, [1, 0.912, 0.831, 0.758, 0.691]),
        ("ntkfixed", 4, [0.917, 0.841, 0.771]),
        ("ntkmixed", 4, [0.841, 0.747, 0.674]),
        ("parts(paper=true)", 32, [0.637, 0.358, 0.201]),
        ("parts", 32, [1, 0.839, 0.677]),
        ("ntk", 32, [1, 0.794, 0.630]),
        ("ntkfixed", 32, [0.805, 0.648]),
        ("ntkmixed", 32, [0.648, 0.483]),
    ],
)
def test_known_factors(name, k, known):
    found = factors_of(named(name), Geometry(128, 4, 128, causal=True), k)
    assert [round(factor, 3) for factor in found.tolist()[: len(known)]] == known
    if name.startswith("ntk"):
        assert found[-1] == pytest.approx(1 / k)


@pytest.mark.parametrize(("k", "known"), [(1, 1), (2, 1.1434), (4, 1.2965), (32, 1.8133)])
def test_known_temperatures_of_yarn(k, known):
    assert Yarn().temperature(k) == pytest.approx(known, abs=5e-5)


# ---- bugs


class OfTheLength(Pi):
    """k = n instead of n / L."""

    def factors(self, frequencies, k, rope):
        return super().factors(frequencies, k * L, rope)


class Twice(Pi):
    def factors(self, frequencies, k, rope):
        return super().factors(frequencies, k, rope) ** 2


class BaseTimesK(Ntk):
    """base * k instead of base * k^(K / (K - 2))."""

    def factors(self, frequencies, k, rope):
        return k ** -(torch.arange(len(frequencies)) / len(frequencies))


class QueriesAlone(Yarn):
    """The factor on queries and not on keys."""

    def temperature(self, k):
        return super().temperature(k) ** 0.5


class RampOfThePaper(Parts):
    def factors(self, frequencies, k, rope):
        return Parts(paper=True).factors(frequencies, k, rope)


class OnEveryLayer(Ntk):
    """Layers within a window, too."""

    def __call__(self, scheme, eval_len):
        return Mixed(scheme.geometry, *(super(OnEveryLayer, self).__call__(s, eval_len) for s in (scheme.wide, scheme.wide)))


class StillRotates(Drop):
    def factors(self, frequencies, k, rope):
        return torch.ones_like(frequencies)


@pytest.mark.parametrize(
    ("mutant", "name"),
    [(OfTheLength, "pi"), (Twice, "pi"), (BaseTimesK, "ntk"), (QueriesAlone, "yarn"), (RampOfThePaper, "parts"),
     (StillRotates, "drop")],
)  # fmt: skip
def test_a_bug_is_rejected(mutant, name, small):
    check_layers(mutant.__mro__[1]()(Rope(geometry_of(True)), T), [turned(name)] * 2)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(mutant()(Rope(geometry_of(True)), T), [turned(name)] * 2)


def test_a_bug_in_mixed_layers_is_rejected(small):
    geometry = geometry_of(True)
    scheme = Mixed(geometry, Local(geometry, Rope(geometry), L), Rope(geometry))
    near = UNTOUCHED._replace(keep=lambda i, j: abs(i - j) < L)
    check_layers(Ntk()(scheme, T), [near, turned("ntk")])
    with pytest.raises(AssertionError, match="not close"):
        check_layers(OnEveryLayer()(scheme, T), [near, turned("ntk")])


def test_biases_are_not_touched(small):
    """A rotation with a bias: the score grows, the bias does not."""

    class Both(Rope):
        def score_mod(self, pos):
            slopes = torch.tensor([0.25, 0.0625, 0.015625, 0.00390625])
            return lambda s, b, h, i, j: s - slopes[h] * (pos[i] - pos[j]).abs()

    geometry = geometry_of(True)
    rotated, biased = turned("yarn"), alibi(geometry)
    both = Reference(
        score=lambda q, k, i, j, h: rotated.score(q, k, i, j, h) + biased.score(q, k, i, j, h) - scaled(q, k, i, j, h)
    )
    check_layers(Yarn()(Both(geometry), T), [both] * 2)


def test_pairs_that_turn_alike_have_no_parts(causal):
    alike = Rope(geometry_of(causal), base=1.0)
    assert named("parts")(alike, T) is None
    assert named("yarn")(alike, T) is None
    assert named("parts(paper=true)")(alike, T) is not None


def test_the_ramp_of_the_code_at_128_tokens_begins_and_ends_beyond_the_pairs():
    """Its indices before they are rounded outwards."""
    rope = Rope(Geometry(32, 1, 128, causal=True))
    assert [_index_of(turns, rope) for turns in (32, 1)] == pytest.approx([-0.784, 5.236], abs=5e-4)
