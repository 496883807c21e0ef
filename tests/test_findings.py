"""The page of make check-scheme: what is right passes, and each kind of wrong is told for what it is."""

import math
import re
import sys
from functools import partial

import pytest
import torch
from marks import slow
from references.base import Reference
from test_scheme_checks import BROKEN, IntegerMask, Leak, Moving, Neighbour, NoNumber, Table, Unrelative
from torch import nn

from extrap.config.outside import function
from extrap.errors import UserError
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch, Geometry, PositionScheme
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.t5 import T5
from extrap.sweep import check
from extrap.testing import cost
from extrap.testing.cost import costs
from extrap.testing.findings import SIZES, Finding, findings

SMALL = ((16, 8, 2),)


def page(build, reference=None, sizes=SMALL):
    """Findings by what they are about."""
    return {finding.about: finding for finding in findings(build, reference, sizes)}


def wrong(build, **options):
    return {about for about, finding in page(build, **options).items() if finding.verdict == "WRONG"}


class Misspelt(PositionScheme):
    def scores_mod(self, pos):
        return lambda score, b, h, i, j: score - (pos[i] - pos[j]).abs()


class Idle(Alibi):
    """Trains a number that nothing reads."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.unread = nn.Parameter(torch.ones(3))


class Still(Rope):
    """Rotates, and nothing learns from it."""

    def rotation(self, pos):
        return torch.no_grad()(super().rotation(pos))


class OfLength(PositionScheme):
    """Scales keys with the length of the input."""

    def rotation(self, pos):
        return lambda q, k: (q, k * len(pos) ** 0.5)


class SingleOnly(Alibi):
    """Computes in float32 what it is asked in float64."""

    def rotation(self, pos):
        return lambda q, k: (q @ torch.eye(q.shape[-1]), k)


class Turned(Rope):
    """Says that it cannot tell a text from its mirror image."""

    direction_aware = False


class Counted(PositionScheme):
    """Says that only differences of positions enter, and adds the position."""

    relative = True

    def embed(self, x, pos):
        return x + torch.sin(pos.to(x.dtype))[:, None] * torch.arange(x.shape[-1])


class Sine(PositionScheme):
    """By its own count where `given` is False, else at the positions that it is given, in training and evaluation."""

    relative, given, modes = True, False, (True, False)

    def embed(self, x, pos):
        pos = pos if self.given else torch.arange(x.shape[1])
        return x + torch.sin(0.3 * pos[:, None] + torch.arange(x.shape[-1])) * (self.training in self.modes)


class Cached(Sine):
    """Keeps a table for each length."""

    given = True

    def embed(self, x, pos):
        self.kept = {len(pos): pos, **getattr(self, "kept", {})}
        return super().embed(x, self.kept[len(pos)])


class OnlyTraining(Sine):
    relative, given, modes = False, True, (True,)


class OnlyEvaluation(Sine):
    relative, given, modes = False, True, (False,)


class WithinBlocks(PositionScheme):
    """A mask of places that says which keys it leaves."""

    def branches(self, pos):
        near = lambda b, h, i, j: (i // 3 - j // 3).abs() < 2  # noqa: E731
        return (Branch(mask_mod=near, keys=lambda start, stop: (start // 3 * 3 - 3, (stop - 1) // 3 * 3 + 6)),)


class Steeper(PositionScheme):
    """In training."""

    relative = True

    def score_mod(self, pos):
        slope = 0.5 if self.training else 0.05
        return lambda score, b, h, i, j: score - slope * (pos[i] - pos[j]).abs()


class SingleAngles(PositionScheme):
    """RoPE whose angles are formed in float32 of rates that are not trained; `turn`: of queries far off."""

    relative, turn = True, 0.0

    def __init__(self, geometry):
        super().__init__(geometry)
        self.rates = nn.Parameter(2.0 ** -torch.linspace(0, 1, geometry.head_dim // 2), requires_grad=False)

    def rotation(self, pos):
        angles = pos[:, None].float() * self.rates.float()

        def turned(x, angles):
            (a, b), cos, sin = x.chunk(2, dim=-1), angles.cos().to(x.dtype), angles.sin().to(x.dtype)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

        return lambda q, k: (turned(q, angles + self.turn * (pos[:, None] > 200)), turned(k, angles))


class NearlyRelative(SingleAngles):
    turn = 1e-2


class Within(PositionScheme):
    """A mask written in places."""

    relative = True

    def mask_mod(self, pos):
        return lambda b, h, i, j: (i - j).abs() < 3


class ToADecoderOnly(Alibi):
    def __init__(self, geometry):
        if not geometry.causal:
            raise ValueError("for causal models alone")
        super().__init__(geometry)


class ToAnEncoderOnly(Alibi):
    def __init__(self, geometry):
        if geometry.causal:
            raise ValueError("for encoders alone")
        super().__init__(geometry)


def assert_what_it_states(found, scheme):
    """No more and no less."""
    assert ("shift-invariant" in found) == (scheme.relative or scheme.of_length)
    assert ("differs by length" in found) == scheme.of_length
    assert ("draws in training" in found) == scheme.random_in_training
    assert not any("; )" in finding.told for finding in found.values())
    if "direction-aware" in found or "not asked" not in found["symmetric"].told:
        assert ("direction-aware" in found) == scheme.direction_aware


def assert_right(case, sizes, scheme_of, reference_of):
    def build(geometry):
        try:
            return scheme_of(case, geometry.causal, geometry.n_heads, geometry.head_dim, geometry.train_len)
        except pytest.skip.Exception as skipped:  # as a sweep is told that it is not defined for such a model
            raise UserError(str(skipped)) from None

    try:
        one = build(Geometry(16, 2, 16, True, 2))
    except UserError:
        one = build(Geometry(16, 2, 16, False, 2))
    formula = reference_of(case, one)
    plain = isinstance(formula, Reference) and not (
        formula.content or formula.sharpness or formula.across or one.of_length or formula.weigh([0.0], 0) == [0.0]
    )  # others are held to theirs in test_positions

    def scores(scheme, q, k, causal):
        """The pairs of tests/references, one after the other."""
        formula, (heads, keys) = reference_of(case, scheme), (q.tolist(), k.tolist())
        return [
            [
                [
                    formula.score(a, b, i, j, h) if formula.keep(i, j) and not (causal and j > i) else -math.inf
                    for j, b in enumerate(keys[h])
                ]
                for i, a in enumerate(heads[h])
            ]
            for h in range(len(heads))
        ]

    found = page(build, scores if plain else None, sizes)
    assert [finding for finding in found.values() if finding.verdict == "WRONG"] == []
    assert not plain or found["agrees with REFERENCE"].verdict == "PASS"
    assert_what_it_states(found, one)


@pytest.mark.parametrize("case", ["rope", "local position.window=3 position@position.inner=alibi"])
def test_nothing_is_wrong_with_these_schemes(case, scheme_of, reference_of):
    assert_right(case, SMALL, scheme_of, reference_of)


@pytest.mark.slow
def test_nothing_is_wrong_with_a_scheme_of_ours_at_any_size(case, scheme_of, reference_of):
    assert_right(case, SIZES, scheme_of, reference_of)


@pytest.mark.parametrize(
    ("scheme", "told"),
    [
        (Leak, {"sees no future", "same at any length", "would be refused"}),
        (NoNumber, {"is finite", "would be refused"}),
        (Misspelt, {"has no effect"}),
        (Neighbour, {"same in any batch", "would be refused"}),
        (Idle, {"trains its parameters"}),
        (Still, {"trains its parameters"}),
        (OfLength, {"same at any length"}),
        (SingleOnly, {"same on any path"}),
        (Turned, {"direction-aware"}),
        (Counted, {"not shift-invariant"}),
        *slow(
            (Unrelative, {"same on any path", "would be refused"}),
            (Sine, {"ignores positions", "not shift-invariant"}),
            (Cached, {"ignores positions", "not shift-invariant"}),
            (OnlyTraining, {"has no effect"}),
            (OnlyEvaluation, {"has no effect"}),
            (NearlyRelative, {"not shift-invariant"}),
        ),
    ],
)
def test_each_kind_of_wrong_is_told_for_what_it_is(scheme, told):
    found = wrong(scheme)
    assert told <= found
    assert not found & {"sees no future", "is finite", "has no effect", "same in any batch", "trains its parameters"} - told


@pytest.mark.parametrize(
    "scheme", [Moving, IntegerMask, Table, *(pytest.param(one, marks=pytest.mark.slow) for one in BROKEN)]
)
def test_what_a_run_would_refuse_is_wrong(scheme):
    assert "would be refused" in wrong(scheme)


@pytest.mark.parametrize("scheme", [SingleAngles, Within, WithinBlocks, Steeper])
def test_what_is_right_is_not_called_wrong(scheme, small):
    found = page(scheme)
    assert [finding for finding in found.values() if finding.verdict == "WRONG"] == []
    assert ("shift-invariant" in found) == scheme.relative
    assert ("differs in training" in found) == (scheme is Steeper)


@pytest.mark.slow
def test_without_effect_in_one_mode_is_told():
    for scheme, mode in ((OnlyTraining, "in evaluation"), (OnlyEvaluation, "in training")):
        told = page(scheme)["has no effect"].told
        assert told.startswith(f"{mode}: hidden states")
        assert told.endswith("look for what asks self.training")


@pytest.mark.slow
def test_what_a_scheme_is(scheme_of):
    assert {"shift-invariant", "symmetric", "has no end"} <= page(Alibi).keys()
    assert {"shift-invariant", "direction-aware"} <= page(Rope).keys()
    learned = page(lambda g: scheme_of("learned", g.causal, g.n_heads, g.head_dim, g.train_len))
    assert {"not shift-invariant", "direction-aware", "trains its parameters"} <= learned.keys()
    assert learned["has an end"].told == "max_len: 16 at L=16"
    assert page(Nope)["no positions"].verdict == "IS"
    assert page(ToADecoderOnly)["refuses some sizes"].told == "L=16, K=8, bidirectional: for causal models alone"


class Ambiguous(PositionScheme):
    def score_mod(self, pos):
        return lambda score, b, h, i, j: score if pos[i] > pos[j] else score - 1


def test_what_fails_is_told_once_with_its_line():
    failures = [finding.told for finding in findings(Ambiguous, sizes=SMALL) if "ambiguous" in finding.told]
    line = Ambiguous.score_mod.__code__.co_firstlineno + 1
    [told] = failures  # by a sweep, and by whatever else asks
    assert told.endswith(f"ambiguous (test_findings.py, line {line})")


class Plain(Alibi):
    """A tensor that was meant to be trained."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.steepness = torch.rand(geometry.n_heads)

    def score_mod(self, pos):
        return lambda score, b, h, i, j: score - self.steepness[h] * (pos[i] - pos[j]).abs()


class Asking(PositionScheme):
    def score_mod(self, pos):
        scale = 1 / (1 + pos[-1].item())
        return lambda score, b, h, i, j: score - scale * (pos[i] - pos[j]).abs()


class OwnCount(PositionScheme):
    """Distances of places, whatever positions it is given."""

    relative = True

    def score_mod(self, pos):
        return lambda score, b, h, i, j: score - 0.1 * (i - j).abs()


class Clock(PositionScheme):
    """Counts content: how much of it stood before."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.rate = nn.Parameter(torch.randn(geometry.d_model))

    def embed(self, x, pos):
        return x + torch.sin((x @ self.rate).sigmoid().cumsum(dim=1)[..., None] + torch.arange(x.shape[-1], device=x.device))


@pytest.mark.parametrize("scheme", [Plain, Asking])
def test_what_fails_on_another_device_is_told(scheme):
    found = page(scheme)["runs on any device"]
    assert found.verdict == "WRONG"
    assert found.told.endswith("make them on pos.device, and ask none for its value")
    assert page(Alibi)["runs on any device"].verdict == "PASS"


def test_who_reads_no_positions_is_told_what_that_does():
    assert page(Alibi)["reads positions"].verdict == "IS"
    for scheme in (OwnCount, Within):
        assert "extensions, randomized, pose" in page(scheme)["reads no positions"].told


def test_a_clock_that_content_drives_is_no_count_of_places():
    found = page(Clock)
    assert not {about for about, finding in found.items() if finding.verdict == "WRONG"}
    assert found["differs by place"].verdict == "IS"


def test_what_fails_in_one_mode_is_not_said_to_have_no_effect():
    class Fails(Alibi):
        def score_mod(self, pos):
            if self.training:
                raise RuntimeError("not in training")
            return super().score_mod(pos)

    assert "has no effect" not in page(Fails)


@pytest.mark.slow
def test_a_wrong_threshold_shows_at_another_size():
    """At a training length of 16 it is right."""

    def build(geometry):
        return Leak(geometry) if geometry.train_len > 100 else Alibi(geometry)

    assert not wrong(build)
    assert "sees no future" in wrong(build, sizes=((16, 8, 2), (128, 8, 1)))


def test_a_scheme_that_cannot_be_built_at_all_is_told():
    with pytest.raises(UserError, match="L=16, K=8, causal: no, never"):
        page(partial(_refuse, "no, never"))


def test_a_hook_that_exits_before_anything_is_read_is_told():
    class Exits(Nope):
        def layers(self, n_layers):
            raise SystemExit(0)

    with pytest.raises(UserError, match="fails at L=16, K=8, causal: SystemExit: 0"):
        page(Exits)


def _refuse(message, geometry):
    raise ValueError(message)


def alibi_scores(scheme, q, k, causal):
    scores = []
    for h in range(len(q)):
        slope = 2.0 ** (-8 * (h + 1) / len(q))
        rows = [[float(a @ b) / len(a) ** 0.5 - slope * abs(i - j) for j, b in enumerate(k[h])] for i, a in enumerate(q[h])]
        scores.append(rows)
    return scores


@pytest.mark.parametrize(
    ("reference", "verdict", "told"),
    [
        (alibi_scores, "PASS", "differ by up to"),
        (lambda q, k: q @ k.mT / 8**0.5, "WRONG", "differ by up to 0."),
        (lambda q, k: q @ k.mT[:, :, :1], "WRONG", "expected scores (H, n, n) = (2, 7, 7), found (2, 7, 1)"),
        (lambda q, weight: q, "WRONG", "KeyError: 'weight'"),
    ],
)
def test_a_reference_is_agreed_with_or_not(reference, verdict, told):
    finding = page(Alibi, reference)["agrees with REFERENCE"]
    assert finding.verdict == verdict
    assert told in finding.told


@pytest.mark.slow
def test_what_a_reference_says_nothing_about_is_told(scheme_of):
    of_table = page(lambda g: scheme_of("sinusoidal", g.causal, g.n_heads, g.head_dim, g.train_len), alibi_scores)
    assert "embed" in of_table["embeds"].told
    assert "embeds" not in page(Alibi, alibi_scores)


class Unstated(Alibi):
    """Of distances, which it does not state, with weights of its own."""

    relative = False

    def weights(self):
        return partial(torch.softmax, dim=-1)


def test_what_a_scheme_does_not_state_and_what_is_not_compared_is_told():
    found = page(Unstated, alibi_scores)
    assert "relative = True may be stated" in found["shift-invariant"].told
    assert "weights" in found["weighs"].told
    stated = page(Alibi, alibi_scores)
    assert "may be stated" not in stated["shift-invariant"].told
    assert "weighs" not in stated


def test_draws_outside_stay_what_they_are():
    before = torch.get_rng_state()
    page(T5)
    assert torch.equal(before, torch.get_rng_state())


def test_what_it_costs_is_told_beside_nope_and_rope(monkeypatch, scheme_of):
    monkeypatch.setattr(cost, "ROUNDS", 1)
    monkeypatch.setattr(cost, "TOKENS", 256)
    monkeypatch.setattr(cost, "LONGER", 2)
    found = [*costs(Nope)]
    assert [finding.about for finding in found] == ["cost at 128 tokens", "cost at 256 tokens"]
    number = r"[\d.]+"
    for what in ("training", "scoring", "memory of a training step"):
        assert re.search(rf"{what} {number} (ms|MiB), {number} of nope, {number} of rope", found[0].told)
    assert "MiB, 1.00 of nope" in found[0].told
    of_table = [*costs(lambda g: scheme_of("learned", g.causal, g.n_heads, g.head_dim, g.train_len))]
    assert [finding.about for finding in of_table] == ["cost at 128 tokens"]


def test_what_an_encoder_alone_costs_is_told_and_what_those_sizes_refuse_is_not_asked(monkeypatch):
    monkeypatch.setattr(cost, "ROUNDS", 1)
    monkeypatch.setattr(cost, "TOKENS", 256)
    monkeypatch.setattr(cost, "LONGER", 2)
    assert [finding.about for finding in costs(ToAnEncoderOnly)] == ["cost at 128 tokens", "cost at 256 tokens"]
    assert [*costs(partial(_refuse, "of 7 heads alone"))] == [Finding("IS", "cost", "not asked: of 7 heads alone")]


HEAD = "import torch\nfrom extrap.positions.base import PositionScheme\n\n\nclass {}(PositionScheme):\n    {}\n"
FILES = {
    "Leak": "def embed(self, x, pos):\n        return x + 0.01 * x.roll(-1, dims=1)",
    "NoNumber": "def embed(self, x, pos):\n        return x / (pos[:, None] != 3)",
    "NoOp": "def positional_bias(self, pos):\n        return -pos",
    "Mine": "def score_mod(self, pos):\n        return lambda s, b, h, i, j: s - 0.1 * (pos[i] - pos[j]).abs().sqrt()",
}


@pytest.mark.slow
def test_the_command_says_which_is_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "SIZES", SMALL)
    monkeypatch.setattr(check, "findings", lambda build, reference: findings(build, reference, SMALL))
    monkeypatch.setattr(check, "costs", lambda build: [Finding("IS", "cost at 128 tokens", "little")])
    for name, body in FILES.items():
        (tmp_path / f"{name}.py").write_text(HEAD.format(name, body))
    told = {"Leak": "sees no future", "NoNumber": "is finite", "NoOp": "has no effect"}
    monkeypatch.setattr(sys, "argv", ["check", ",".join(f"{tmp_path}/{name}.py" for name in FILES)])
    assert check.main() == 1
    *pages, rest = capsys.readouterr().out.split("\n\n\n")
    assert not rest
    for name, printed in zip(FILES, pages, strict=True):
        assert printed.startswith(f"{name.lower()}: training length L and head dim K of (16, 8); causal and bidirectional")
        if name in told:
            assert re.search(rf"^WRONG  {told[name]} ", printed, re.MULTILINE)
            assert re.search(rf"{name.lower()}: \d of \d+ are WRONG$", printed)
            assert "cost at" not in printed
        else:
            assert "WRONG" not in printed
            assert printed.endswith("mine: nothing is wrong")
            assert "IS     cost at 128 tokens     little" in printed
    (tmp_path / "by_hand.py").write_text("def zero(scheme, q, causal):\n    return 0 * q @ q.mT\n")
    monkeypatch.setattr(sys, "argv", ["check", "rope", "--reference", f"{tmp_path}/by_hand.py:zero", "position.base=500.0"])
    assert check.main() == 1
    assert "WRONG  agrees with REFERENCE" in (printed := capsys.readouterr().out)
    assert "rope(base=500.0): 1 of" in printed
    monkeypatch.setattr(sys, "argv", ["check", f"{tmp_path}/Mine.py"])
    assert check.main() == 0


@pytest.mark.parametrize("place", ["by_hand.py", "by_hand.py:two", "by_hand.py:number", "gone.py:zero"])
def test_a_reference_that_is_no_function_is_told(tmp_path, place):
    (tmp_path / "by_hand.py").write_text("number = 1\n\n\ndef zero(q):\n    return 0 * q @ q.mT\n")
    with pytest.raises(UserError, match=r"expected FILE.py:function, and a function of that name|there is no such file"):
        function(f"{tmp_path}/{place}")


def test_a_reference_that_asks_for_what_it_is_not_given_is_told(tmp_path, monkeypatch):
    (tmp_path / "by_hand.py").write_text("def of_pairs(geometry, q):\n    return 0 * q @ q.mT\n")
    monkeypatch.setattr(sys, "argv", ["check", "rope", "--reference", f"{tmp_path}/by_hand.py:of_pairs"])
    with pytest.raises(UserError, match="expected a function of some of scheme, q, k, x, causal; found geometry"):
        check.main()
