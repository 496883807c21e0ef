"""Randomized positions and PoSE: what is drawn, what it comes down to, and the bugs that are told of it."""

import pytest
import torch
from checking import DECODER, ENCODER, check_path, check_same, inputs
from references.alibi import alibi
from references.base import attend
from torch.testing import assert_close

from extrap.extensions.blocks import Bca
from extrap.extensions.controls import Window
from extrap.model.definition import attend_reference
from extrap.model.seed import seed_generators
from extrap.positions.absolute import Learned, Sinusoidal
from extrap.positions.alibi import Alibi
from extrap.positions.base import consecutive
from extrap.positions.fox import Fox
from extrap.positions.kerple import Kerple
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.pose import Pose
from extrap.positions.randomized import Randomized
from extrap.positions.rope import Rope
from extrap.positions.wrappers import Wrapper
from extrap.positions.xpos import Xpos

L, N = 16, 40
SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])


def draws(scheme, n=16, times=300):
    return [scheme.train().positions(n) for _ in range(times)]


def check_drawn(cls, geometry=DECODER, n=16, **arguments):
    """Whole, increasing, below the end, all of it reached, another one each time; in evaluation one, or none."""
    scheme = cls(geometry, Alibi(geometry), max_len=N, **arguments)
    found = draws(scheme, n)
    for pos in found:
        assert pos.dtype == torch.int64
        assert pos.shape == (n,)
        assert (pos.diff() > 0).all(), "not increasing"
        assert 0 <= pos[0] <= pos[-1] < N, "not below the end"
    assert max(int(pos[-1]) for pos in found) == N - 1, "not all of it"
    assert len({tuple(pos.tolist()) for pos in found}) > 100
    read = [scheme.eval().positions(n).tolist() for _ in range(2)]
    assert read[0] == read[1], "another one in evaluation"
    assert (read[0] == list(range(n))) == (not isinstance(scheme, Randomized)), "not read as it was trained"
    return torch.stack(found)


KINDS = [(Randomized, {}), (Randomized, {"draw": "distances"}), (Pose, {})]


@pytest.mark.parametrize(("cls", "arguments"), KINDS)
def test_what_is_drawn(cls, arguments):
    check_drawn(cls, **arguments)
    check_drawn(cls, n=7, **arguments)


@SIZES
@pytest.mark.parametrize(("cls", "arguments"), KINDS)
def test_with_no_room_nothing_is_drawn(cls, arguments, geometry):
    scheme = cls(geometry, Alibi(geometry), max_len=L, **arguments).train()
    assert all(pos.tolist() == list(range(L)) for pos in draws(scheme, L, 5))
    check_same(scheme, Alibi(geometry), L, atol=1e-6)


def test_positions_are_drawn_evenly():
    """Each of N as often as another: n / N."""
    found = torch.stack(draws(Randomized(DECODER, Rope(DECODER), max_len=N), times=2000))
    share = torch.bincount(found.flatten(), minlength=N) / 2000
    assert (share - 16 / N).abs().max() < 0.05


def test_distances_begin_with_the_token_itself():
    found = check_drawn(Randomized, draw="distances")
    assert (found[:, 0] == 0).all()


def test_pose_has_two_chunks_of_neighbours():
    """The first at 0, of up to half; gaps of every width."""
    found = check_drawn(Pose)
    steps = found.diff(dim=1)
    assert (found[:, 0] == 0).all()
    assert ((steps > 1).sum(dim=1) <= 1).all()
    first, gaps = steps.argmax(dim=1) + 1, steps.amax(dim=1) - 1
    assert first.min() == 1
    assert first[gaps > 0].max() == 8
    assert (gaps.min(), gaps.max()) == (0, N - 16)
    assert draws(Pose(DECODER, Rope(DECODER)), n=1, times=1)[0].shape == (1,)


@SIZES
def test_a_window_around_drawn_distances_is_of_these(geometry, small):
    """Tokens t apart see each other if the t-th distance lies within it, wherever they stand."""
    scheme = Local(geometry, Randomized(geometry, Alibi(geometry), N, draw="distances"), 9).train()
    pos, i = scheme.positions(16), torch.arange(16)
    (branch,) = scheme.branches(pos)
    apart = (i[:, None] - i).abs()
    assert torch.equal(branch.mask_mod(0, 0, i[:, None], i), pos[apart] < 9)
    check_path(scheme, 16, training=True)


@SIZES
@pytest.mark.parametrize("inner", [Alibi, Kerple])
def test_drawn_distances_are_read_off_the_diagonals(inner, geometry, small):
    """Tokens t apart count as r_t apart, wherever they stand, the same to both sides."""
    scheme = Randomized(geometry, inner(geometry), N, draw="distances").train()
    pos, (q, k, v) = scheme.positions(16), inputs(geometry, 16)
    found = attend_reference(scheme, pos, q, k, v)
    r = pos.tolist()
    if inner is Alibi:
        plain = alibi(geometry)
        held = plain._replace(score=lambda q, k, i, j, h: plain.score(q, k, r[abs(i - j)], 0, h))
        rows = attend(held, q.tolist(), k.tolist(), v.tolist(), range(16), geometry.causal)
        assert_close(found, torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-6)
        apart = attend_reference(Randomized(geometry, Alibi(geometry), N).train(), pos.clone(), q, k, v)
        assert (found - apart).abs().max() > 0.01, "another reading than that of positions"
    for training in (True, False):
        for seq_len in (9, 16, 20):
            check_path(scheme.train(training), seq_len, training)
    (branch,) = scheme.train().branches(pos)
    assert branch.relative


@SIZES
def test_all_layers_have_one_draw(geometry, encoder_of):
    """Layers that differ, too."""
    scheme = Randomized(geometry, Mixed(geometry, Alibi(geometry), Kerple(geometry)), draw="distances")
    seen = []

    class Watched(Wrapper):
        def branches(self, pos):
            seen.append(pos)
            return super().branches(pos)

    encoder_of(Watched(scheme)).train()(torch.randint(11, (2, 16)))
    assert len(seen) == 2
    assert torch.equal(*seen)


def test_without_a_max_len_it_is_a_multiple_of_the_training_length():
    assert Randomized(DECODER, Rope(DECODER)).end == 32 * L
    assert Pose(DECODER, Rope(DECODER)).end == 8 * L


def test_each_run_is_read_at_a_draw_of_its_own():
    one, other = (Randomized(DECODER, Rope(DECODER), N).eval() for _ in range(2))
    assert one.positions(16).tolist() != other.positions(16).tolist()
    seed_generators(7)
    again, *_ = (Randomized(DECODER, Rope(DECODER), N).eval() for _ in range(2))
    seed_generators(7)
    assert Randomized(DECODER, Rope(DECODER), N).eval().positions(16).tolist() == again.positions(16).tolist()
    assert one.positions(N).tolist() == list(range(N)), "all of them"


def test_the_control_is_a_window_of_tokens():
    """However far apart they are drawn."""
    scheme = Randomized(DECODER, Alibi(DECODER), 1000).eval()
    window = Window()(scheme, 45)
    (branch,) = window.branches(window.positions(45))
    i, zero = torch.arange(45), torch.tensor(0)
    seen = branch.mask_mod(zero, zero, i[:, None], i)
    assert torch.equal(seen, (i[:, None] - i).abs() < L)
    check_path(window, 45, training=False)


def test_blocks_are_of_tokens():
    (branch,) = Bca()(Randomized(DECODER, Rope(DECODER), 1000).eval(), 45).branches(torch.arange(45) * 20)
    i = torch.arange(45)
    assert (branch.mask_mod(0, 0, i[:, None], i) & (i <= i[:, None])).sum(dim=1)[L:].min() == L // 2 + 1


@pytest.mark.parametrize("inner", [Xpos, Fox])
def test_a_window_of_drawn_positions_is_no_window_of_indices(inner):
    """Around what is relative by index, as both are in an encoder."""
    for scheme in (Pose(ENCODER, Local(ENCODER, inner(ENCODER), 5)), Local(ENCODER, Pose(ENCODER, inner(ENCODER)), 5)):
        check_path(scheme.train(), 16, training=True)


@pytest.mark.parametrize("cls", [Randomized, Pose])
@pytest.mark.parametrize(
    ("inner", "max_len", "told"),
    [
        (Rope, 15, "max_len >= 16, the training length, found 15"),
        (Learned, 128, "all positions below 128, found Learned, which ends at 16"),
        (lambda g: Randomized(g, Rope(g)), None, "expected a scheme that draws none, found Randomized"),
    ],
)
def test_what_cannot_be_drawn_is_told(cls, inner, max_len, told):
    with pytest.raises(ValueError, match=told):
        cls(DECODER, inner(DECODER), max_len)


@pytest.mark.parametrize("inner", [Rope, Sinusoidal, lambda g: Local(g, Alibi(g), 5), lambda g: Mixed(g, Alibi(g), Rope(g))])
def test_distances_are_drawn_of_biases_alone(inner):
    with pytest.raises(ValueError, match="distances are drawn of a bias of distance alone; found"):
        Randomized(DECODER, inner(DECODER), draw="distances")


def test_more_tokens_than_positions_are_told():
    assert Randomized(DECODER, Rope(DECODER), N).max_len == 40
    for cls in (Randomized, Pose):
        with pytest.raises(ValueError, match=f"{cls.__name__} trains on positions below 40, found 41 tokens"):
            cls(DECODER, Rope(DECODER), N).train().positions(41)


# ---- bugs


class Unsorted(Randomized):
    def draw_positions(self, seq_len, device=None, generator=None):
        return torch.randperm(self.end, device=device, generator=generator)[:seq_len]


class WithReplacement(Randomized):
    def draw_positions(self, seq_len, device=None, generator=None):
        return torch.randint(self.end, (seq_len,), device=device, generator=generator).sort().values


class OfSteps(Randomized):
    """Random steps, which may lead beyond the end."""

    def draw_positions(self, seq_len, device=None, generator=None):
        return torch.randint(1, 4, (seq_len,), device=device, generator=generator).cumsum(0)


class DrawnOnce(Randomized):
    def draw_positions(self, seq_len, device=None, generator=None):
        return super().draw_positions(seq_len, device, torch.Generator().manual_seed(0))


class InEvaluation(Randomized):
    """Another one for every batch."""

    def positions(self, seq_len, device=None):
        return self.draw_positions(seq_len, device)


class Consecutive(Randomized):
    """In evaluation, where 0 .. n - 1 were hardly ever trained together."""

    def positions(self, seq_len, device=None):
        return super().positions(seq_len, device) if self.training else consecutive(seq_len, device)


class GapBelow(Pose):
    """A gap of up to max_len, which leads beyond it."""

    def draw_positions(self, seq_len, device=None):
        self.end += seq_len
        pos = super().draw_positions(seq_len, device)
        self.end -= seq_len
        return pos


@pytest.mark.parametrize("mutant", [Unsorted, WithReplacement, OfSteps, DrawnOnce, InEvaluation, Consecutive, GapBelow])
def test_a_bug_is_rejected(mutant):
    check_drawn(mutant.__mro__[1])
    with pytest.raises(AssertionError):
        check_drawn(mutant)


class KeysOfTheirOwn(Randomized):
    """A new draw for the keys."""

    def branches(self, pos):
        return (self.inner.apart(pos, self.draw_positions(len(pos))),)


def test_keys_of_their_own_are_rejected(small):
    """A token is no longer at the distance 0 from itself."""

    def diagonal(cls):
        scheme = cls(ENCODER, Alibi(ENCODER), N).train()
        pos = scheme.positions(16)
        weights = attend_reference(scheme, pos, *torch.zeros(2, 1, 4, 16, 8), torch.eye(16).expand(1, 4, 16, 16))
        return bool((weights.argmax(dim=-1)[0, 0] == torch.arange(16)).all())

    assert diagonal(Randomized)
    assert not diagonal(KeysOfTheirOwn)


def test_who_reads_no_positions_is_refused():
    for inner in (Nope(DECODER), Fox(DECODER)):
        with pytest.raises(ValueError, match=f"drawn for a scheme that reads them; found {type(inner).__name__}"):
            Randomized(DECODER, inner)
