"""What is tried on every scheme before a sweep: those of ours pass, and each broken promise is told in a line."""

from functools import partial

import numpy as np
import pytest
import torch
from checking import DECODER, ENCODER
from test_interface import Costs
from torch import nn

from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.extensions.far import ReRope
from extrap.objectives import Mlm
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.cope import Cope
from extrap.positions.local import Local
from extrap.positions.nope import Nope
from extrap.positions.randomized import Randomized
from extrap.positions.rope import Rope
from extrap.runs.prepare import Run
from extrap.sweep import checks
from extrap.sweep.checks import prepare_grid
from extrap.testing.promises import check_scheme


def test_schemes_that_a_user_could_write_pass():
    """As do those of the project, see test_findings."""
    for build in (lambda g: ReRope()(Rope(g), 99), lambda g: Randomized(g, Rope(g), 99)):
        for geometry in (DECODER, ENCODER):
            check_scheme(partial(build, geometry), longest=64)
    for build in (Cope, lambda g: Costs(Nope(g)), lambda g: Costs(Alibi(g)), lambda g: Randomized(g, Costs(Rope(g)), 99)):
        check_scheme(partial(build, DECODER), longest=64)


def test_draws_outside_stay_what_they_are(scheme_of):
    before = torch.get_rng_state()
    check_scheme(partial(Randomized, DECODER, Rope(DECODER), 99), longest=64)
    check_scheme(lambda: nn.init.normal_(Gate(DECODER).gate) is None or Alibi(DECODER), longest=64)
    assert torch.equal(before, torch.get_rng_state())


def next_vector(x):
    return nn.functional.pad(x[:, 1:], (0, 0, 0, 1))


class Leak(PositionScheme):
    """Each token gets something of the vector of the next."""

    strength = 1.0

    def embed(self, x, pos):
        return x + self.strength * next_vector(x)


class Faint(Leak):
    strength = 1e-3


class Late(Leak):
    """Only where the input is longer than in training."""

    def embed(self, x, pos):
        return super().embed(x, pos) if len(pos) > self.geometry.train_len else x


class Early(Leak):
    """Only in training."""

    def embed(self, x, pos):
        return super().embed(x, pos) if self.training else x


class Gate(PositionScheme):
    """A leak that is learned, closed at the start."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.gate = nn.Parameter(torch.zeros(geometry.d_model))

    def embed(self, x, pos):
        return x + self.gate * next_vector(x)


class KeyNorm(PositionScheme):
    """Keys in units of their length over the whole input."""

    def rotation(self, pos):
        return lambda q, k: (q, k / k.norm(dim=2, keepdim=True))


class NextKey(PositionScheme):
    """A content bias that asks the next key."""

    def branches(self, pos):
        def content(seen):
            norm = seen.k.roll(-1, dims=2).norm(dim=-1)  # (B, H, T)
            return lambda i, j: norm[:, :, None, j]

        return (Branch(content=content),)


class Blocks(PositionScheme):
    """Tokens of a block of 4 share the sum of their vectors."""

    def embed(self, x, pos):
        block = pos // 4
        return x + (block[:, None] == block).to(x.dtype) @ x


class Seventh(Leak):
    """Few tokens alone."""

    def embed(self, x, pos):
        return torch.where((pos % 7 == 4)[:, None], super().embed(x, pos), x)


class Even(Leak):
    """Only at twice the training length, and other multiples of it."""

    def embed(self, x, pos):
        beyond = len(pos) > self.geometry.train_len and len(pos) % self.geometry.train_len == 0
        return super().embed(x, pos) if beyond else x


class Between(Leak):
    """Only where the input is shorter than in training."""

    def embed(self, x, pos):
        return super().embed(x, pos) if 7 < len(pos) < self.geometry.train_len else x


FUTURE = [Leak, Faint, Late, Early, Gate, KeyNorm, NextKey, Blocks, Seventh, Even, Between]


@pytest.mark.parametrize("scheme", FUTURE)
def test_a_causal_model_that_sees_the_future_is_refused(scheme):
    with pytest.raises(UserError, match=rf"position: {scheme.__name__} \(.*\.py\) sees the future: token \d+ of \d+ "):
        check_scheme(partial(scheme, DECODER), longest=64)
    check_scheme(partial(scheme, ENCODER), longest=64)


class Neighbour(PositionScheme):
    def embed(self, x, pos):
        return x + 1e-3 * x.roll(1, dims=0)


class Mean(PositionScheme):
    def embed(self, x, pos):
        return x - x.mean(dim=0)


class OfThree(PositionScheme):
    """Not where there are but two."""

    def embed(self, x, pos):
        return x + x.roll(1, dims=0) if len(x) > 2 else x


class OfSize(PositionScheme):
    """Reads no other sequence and counts them."""

    def embed(self, x, pos):
        return x * (1 + 1e-4 * len(x))


class Exits(PositionScheme):
    def embed(self, x, pos):
        raise SystemExit(0)


class Noise(PositionScheme):
    def embed(self, x, pos):
        return x + 0.01 * torch.randn_like(x)


class Moving(PositionScheme):
    """Keeps the longest input that it has met, as dynamic NTK with a cache does."""

    longest = 0

    def rotation(self, pos):
        self.longest = max(self.longest, len(pos))
        return Rope(self.geometry, base=10_000.0 * self.longest).rotation(pos)


class Counter(PositionScheme):
    calls = 0

    def embed(self, x, pos):
        self.calls += 1
        return x * self.calls


class NoNumber(PositionScheme):
    def embed(self, x, pos):
        return x + torch.where(pos[:, None] == 9, torch.nan, 0.0)


class NoGradient(PositionScheme):
    """sqrt(0) has an infinite slope."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.zero = nn.Parameter(torch.zeros(1))

    def embed(self, x, pos):
        return x + self.zero.abs().sqrt()


class Twice(PositionScheme):
    def score_mod(self, pos):
        return lambda score, b, h, i, j: 2 * score - 0.1 * (i - j).abs()


class HalfTheKey(PositionScheme):
    def rotation(self, pos):
        return lambda q, k: (q, k[..., : k.shape[-1] // 2])


class HalfOfBoth(PositionScheme):
    def rotation(self, pos):
        return lambda q, k: (q[..., : q.shape[-1] // 2], k[..., : k.shape[-1] // 2])


class OfBatch(PositionScheme):
    def score_mod(self, pos):
        return lambda score, b, h, i, j: score - 0.1 * b


class WrongWindow(Local):
    def change(self, branch, pos):
        return super().change(branch, pos)._replace(window=self.window - 1)


class NoMask(PositionScheme):
    def branches(self, pos):
        return (Branch(window=3),)


class WrongKeys(PositionScheme):
    """Late by one."""

    def branches(self, pos):
        near, far = Branch(mask_mod=lambda b, h, i, j: i - j < 4), Branch(mask_mod=lambda b, h, i, j: i - j >= 4)
        return near, far._replace(keys=lambda start, stop: (0, stop - 5))


class Unrelative(Alibi):
    """Adds the place of the key to a relative bias."""

    def score_mod(self, pos):
        plain = super().score_mod(pos)
        return lambda score, b, h, i, j: plain(score, b, h, i, j) + 0.01 * pos[j]


class UnrelativeMask(Alibi):
    def mask_mod(self, pos):
        return lambda b, h, i, j: (j % 2 == 0) | (i == j)


class Overlap(PositionScheme):
    def branches(self, pos):
        return (Branch(), Branch(mask_mod=lambda b, h, i, j: i == j))


class Keyless(PositionScheme):
    """Beyond training the last token may attend to nothing."""

    def mask_mod(self, pos):
        return lambda b, h, i, j: (i < self.geometry.train_len) & (j <= i)


class Closed(PositionScheme):
    """Masks everything but itself, and itself too."""

    def mask_mod(self, pos):
        return lambda b, h, i, j: (i - j).abs() < 0


class IntegerMask(PositionScheme):
    def branches(self, pos):
        return (Branch(mask_mod=lambda b, h, i, j: torch.ones_like(i - j)),)


class BatchMask(PositionScheme):
    def mask_mod(self, pos):
        return lambda b, h, i, j: (i == j) | (b > 0)


class WrongTable(PositionScheme):
    """Adds the place in the input, whatever row is asked for."""

    tabular = True

    def embed(self, x, pos):
        return x + torch.arange(len(pos))[:, None]


class FloatPositions(PositionScheme):
    def positions(self, seq_len, device=None):
        return torch.linspace(0, 1, seq_len, device=device)


class Still(PositionScheme):
    def positions(self, seq_len, device=None):
        return torch.arange(seq_len, device=device) // 2


class InPlace(Nope):
    def positions(self, seq_len, device=None):
        pos = super().positions(seq_len, device)
        pos[seq_len // 2 :] += 3
        return pos


class Ends(PositionScheme):
    max_len = 8


class Table(PositionScheme):
    """Ends without saying so."""

    def embed(self, x, pos):
        return x + torch.zeros(self.geometry.train_len, 1)[pos]


class DrawnElsewhere(PositionScheme):
    """A vector of NumPy's, which no run seeds and no weights hold."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.own = torch.from_numpy(np.random.default_rng().standard_normal(geometry.d_model)).float()

    def embed(self, x, pos):
        return x + self.own


class Unregistered(PositionScheme):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.scale = torch.ones(geometry.d_model, requires_grad=True)

    def embed(self, x, pos):
        return x * self.scale


class Listed(PositionScheme):
    """Layers in a list that is no module; `spare` are too many."""

    spare = 0

    def __init__(self, geometry):
        super().__init__(geometry)
        self.each = [Alibi(geometry, learned=True) for _ in range(geometry.n_layers + self.spare)]

    def layers(self, n_layers):
        return self.each


class Spare(Listed):
    spare = 1


class Row(PositionScheme):
    """Adds the row of the batch."""

    def embed(self, x, pos):
        return x + torch.arange(len(x))[:, None, None] * torch.sin(torch.arange(x.shape[-1]))


class Exact(PositionScheme):
    """In float64, whatever it is given."""

    def embed(self, x, pos):
        return x + torch.sin(pos.double())[:, None]


class Silent(PositionScheme):
    def embed(self, x, pos):
        x + torch.sin(pos)[:, None]


class Doubled(PositionScheme):
    def embed(self, x, pos):
        return x + torch.sin(pos.mul_(2))[:, None]


class Added(PositionScheme):
    def embed(self, x, pos):
        return x.add_(torch.sin(pos)[:, None])


class Later(PositionScheme):
    """Counts from one, in place."""

    def score_mod(self, pos):
        pos += 1
        return lambda score, b, h, i, j: score - 0.1 * (pos[i] - pos[j]).abs()


class Tabled(PositionScheme):
    """A bias of all pairs, whichever are asked for."""

    def score_mod(self, pos):
        return lambda score, b, h, i, j: score - (pos[:, None] - pos).abs()


class Given(PositionScheme):
    def branches(self, pos):
        return (Branch(score_mod=-(pos[:, None] - pos).abs().float()),)


class ExactAngles(PositionScheme):
    def rotation(self, pos):
        return lambda q, k: (q * torch.cos(pos.double())[:, None], k)


BROKEN = {
    Row: "mixes the sequences of a batch: 7 tokens, alone and in a batch of 2",
    Exact: r"embeds \(2, 16, 32\) of float32 as \(2, 16, 32\) of float64; embed keeps shape and type",
    Silent: "embeds x as NoneType; embed returns a tensor like x",
    Doubled: "changes pos in place in embed",
    Added: "changes x in place in embed",
    Later: "changes pos in place; make another tensor",
    Tabled: r"has a score_mod that gives \(1, 4, 16, 16\) for one query and key",
    Given: "has a score_mod that gives Tensor; expected a function",
    ExactAngles: r"rotates \(2, 4, 16, 8\) of float32 to \(2, 4, 16, 8\) of float64",
    Unregistered: r"trains a tensor of shape \(32,\) that is no parameter of it",
    Listed: r"trains a tensor of shape \(\d,\) that is no parameter of it",
    Spare: r"has layers\(2\) that gives 3 schemes; expected one for each layer",
    DrawnElsewhere: "differs when it is built again",
    Neighbour: "mixes the sequences of a batch",
    Mean: "mixes the sequences of a batch",
    OfThree: "mixes the sequences of a batch: .* of 5",
    OfSize: "mixes the sequences of a batch: 7 tokens, alone and in a batch of 2",
    Exits: "fails before any training: SystemExit: 0",
    Noise: "gives two outputs for one input: .* drawn at random in evaluation",
    Counter: "gives two outputs for one input",
    Moving: "gives two outputs for one input: .* read after others",
    NoNumber: "is not finite: outputs in training, for 16 tokens",
    NoGradient: "is not finite: the gradient of scheme.zero",
    Twice: "has a score_mod that does more than add",
    HalfTheKey: "rotates queries or keys to another shape",
    HalfOfBoth: "rotates queries or keys to another shape",
    OfBatch: "has a score_mod that does more than add a bias of h, q_idx and kv_idx",
    BatchMask: "has a mask_mod that depends on b",
    WrongTable: "states tabular and embeds other than",
    NoMask: "states window=3 and attends beyond it",
    WrongKeys: r"states keys\(3, 6\) = \(0, 1\) and attends to others",
    Unrelative: "states relative and depends on more",
    UnrelativeMask: "states relative and depends on more",
    Overlap: "has branches that overlap",
    Keyless: "leaves a token of 32 without any key",
    Closed: "leaves a token of 16 without any key",
    IntegerMask: "has a mask_mod of torch.int64; expected torch.bool",
    FloatPositions: "has positions that are not 16 growing whole numbers",
    Still: "has positions that are not 16 growing whole numbers",
    InPlace: "changes positions in place",
    Ends: "has max_len=8; expected the training length 16",
    Table: "fails before any training: IndexError: .*; if it ends where a table does, state max_len",
}


@pytest.mark.parametrize("scheme", BROKEN)
def test_each_broken_promise_is_told(scheme, causal):
    with pytest.raises(UserError, match=BROKEN[scheme]) as told:
        check_scheme(partial(scheme, DECODER if causal else ENCODER), longest=64)
    assert "\n" not in str(told.value)


def test_a_window_that_is_wider_than_it_says_is_told(causal):
    geometry = DECODER if causal else ENCODER
    with pytest.raises(UserError, match="states window=4 and attends beyond it"):
        check_scheme(lambda: WrongWindow(geometry, Rope(geometry), 5), longest=64)


class NanBeyond(PositionScheme):
    def embed(self, x, pos):
        return x + torch.where(pos[:, None] >= self.geometry.train_len, torch.nan, 0.0)


def test_what_is_no_number_beyond_the_training_length_is_a_result(causal):
    check_scheme(partial(NanBeyond, DECODER if causal else ENCODER), longest=64)


def test_no_length_is_tried_beyond_the_longest():
    check_scheme(partial(Table, DECODER), longest=16)


def test_a_sweep_asks_about_every_scheme_once_unless_its_runs_are_over(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(checks, "check_scheme", lambda build, longest: asked.append((type(build()).__name__, longest)))
    grid = compose_grid(["experiment=smoke", "position=rope,alibi", "seed=0,1", f"runtime.results_dir={tmp_path}"])
    planned = [Run(config, None, Mlm(), {}, {}, None) for config in grid]
    checks._check_schemes(planned)
    assert asked == [("Rope", 128), ("Alibi", 128)]
    for run in planned[:2]:
        run.config.folder.mkdir(parents=True)
        run.folder.rows.touch()
    checks._check_schemes(planned)
    assert asked[2:] == [("Alibi", 128)]


def of_whole_distances(self, pos):
    table = torch.zeros(99)
    return lambda score, b, h, i, j: score - table[(pos[i] - pos[j]).abs().clamp(max=98)]


def test_an_extension_that_fails_on_a_scheme_ends_a_sweep(tmp_path, monkeypatch):
    """Not as late as when the model is trained: it asks for distances that are no whole numbers."""
    monkeypatch.setattr(Alibi, "score_mod", of_whole_distances)
    grid = ["experiment=smoke", "position=alibi", "objective=causal", "data=markov", f"runtime.results_dir={tmp_path}"]
    with pytest.raises(UserError, match=r"eval.extensions: rescale fails on Alibi: IndexError.*; leave it out, or"):
        prepare_grid(compose_grid([*grid, "eval.extensions=[none,window,rescale]"]))
    assert not list(tmp_path.iterdir())


def test_a_scheme_that_leaks_ends_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(Rope, "embed", lambda self, x, pos: x + next_vector(x))
    grid = ["experiment=smoke", "position=nope,rope", "objective=causal", "data=markov", f"runtime.results_dir={tmp_path}"]
    with pytest.raises(UserError, match=r"position: Rope \(extrap/positions/rope.py\) sees the future"):
        prepare_grid(compose_grid(grid))
    assert not list(tmp_path.iterdir())
