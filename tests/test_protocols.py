"""Protocols: every token once, the same targets at every length, never a window beyond its segment."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extrap.config.schema import EvalConfig
from extrap.data.markov import Markov
from extrap.objectives import Causal, Mlm
from extrap.score.protocols import PLACES, PROTOCOLS, Window, held_out_batch, label, masked_alone, rows_of

SIZES = st.tuples(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200)).map(
    lambda sizes: tuple(sorted(sizes, reverse=True))  # seg_len >= eval_len >= n_targets
)


def config_of(seg_len, eval_len, n_targets=1, stride=1, protocols=tuple(PROTOCOLS)) -> EvalConfig:
    lengths = sorted({eval_len, seg_len})
    return EvalConfig(list(protocols), ["none"], lengths, [eval_len], stride, 4, 1, n_targets, min(8, n_targets))


def nonoverlap(seg_len, eval_len, n_targets, causal) -> list[Window]:
    return PROTOCOLS["nonoverlap"](config_of(seg_len, eval_len, n_targets), 1, causal)[eval_len]


def same_targets(seg_len, eval_len, n_targets, causal) -> list[Window]:
    return PROTOCOLS["same_targets"](config_of(seg_len, eval_len, n_targets), 1, causal)[eval_len]


def sliding(seg_len, eval_len, stride, causal) -> list[Window]:
    return PROTOCOLS["sliding"](config_of(seg_len, eval_len, stride=stride), 1, causal)[eval_len]


def scored_positions(cut: list[Window]) -> list[int]:
    return [t for w in cut for t in range(w.score_start, w.score_stop)]


def context_sizes(cut: list[Window], causal: bool) -> dict[int, tuple[int, int]]:
    """Scored position -> tokens that its window holds to its left and to its right."""
    return {t: (t - w.start, 0 if causal else w.stop - 1 - t) for w in cut for t in range(w.score_start, w.score_stop)}


# what a protocol must be; `protocol` has the signature of nonoverlap


def assert_windows_fit(protocol, seg_len, eval_len, n_targets, causal) -> None:
    for w in protocol(seg_len, eval_len, n_targets, causal):
        assert 0 <= w.start <= w.score_start < w.score_stop <= w.stop <= seg_len
        assert w.stop - w.start <= eval_len


def assert_every_position_once(protocol, seg_len, eval_len, n_targets, causal) -> None:
    assert scored_positions(protocol(seg_len, eval_len, n_targets, causal)) == list(range(seg_len))


def assert_cut_at_multiples(protocol, seg_len, eval_len, n_targets, causal) -> None:
    """Position t is read with the t % eval_len tokens before it, and in an encoder with the rest of its piece."""
    sizes = context_sizes(protocol(seg_len, eval_len, n_targets, causal), causal)
    for t, (left, right) in sizes.items():
        assert left == t % eval_len
        if not causal:
            assert left + right + 1 == min(eval_len, seg_len - t // eval_len * eval_len)


def assert_same_targets_at_every_length(protocol, seg_len, eval_len, n_targets, causal) -> None:
    longest = scored_positions(protocol(seg_len, seg_len, n_targets, causal))
    assert scored_positions(protocol(seg_len, eval_len, n_targets, causal)) == longest
    if causal:
        assert longest == list(range(seg_len - n_targets, seg_len))
    else:  # at as many places as there is room for, and as much room on the left as on the right
        n_places = min(PLACES, max(1, 3 * seg_len // 4 // n_targets))
        assert len(longest) == len(set(longest)) == n_places * n_targets
        assert abs(longest[0] - (seg_len - 1 - longest[-1])) <= 2 + 3 * seg_len // 4 // n_places // 2
        assert n_places < 2 or longest[0] >= seg_len // 8 - 1


def assert_whole_context(protocol, seg_len, eval_len, n_targets, causal) -> None:
    """Windows of just eval_len tokens, on both sides of the targets unless causal, as far as the segment reaches."""
    for window in protocol(seg_len, eval_len, n_targets, causal):
        assert window.stop - window.start == eval_len
        assert window.score_stop - window.score_start == n_targets
        if causal:
            assert window.stop == window.score_stop
            continue
        room = 3 * eval_len // 16 - 1 if eval_len >= 8 * n_targets else (eval_len - n_targets) // 2
        assert window.score_start - window.start >= min(room, window.score_start)
        assert window.stop - window.score_stop >= min(room, seg_len - window.score_stop)


def assert_few_windows(protocol, seg_len, eval_len, n_targets, causal) -> None:
    """Long windows are shared: they begin where a piece of nonoverlap does, in its middle, or where the last window does."""
    windows = {(w.start, w.stop) for w in protocol(seg_len, eval_len, n_targets, causal)}
    if not causal and eval_len >= 8 * n_targets:
        assert all(start % (eval_len // 2) == 0 or stop == seg_len for start, stop in windows)


def assert_enough_context(protocol, seg_len, eval_len, stride, causal) -> None:
    """Beyond the first window a token has eval_len - stride before it; in an encoder half of that on either side."""
    sizes = context_sizes(protocol(seg_len, eval_len, stride, causal), causal)
    for t, (left, right) in sizes.items():
        if causal:
            assert left == t if t < eval_len else eval_len - stride <= left < eval_len
        else:
            room = (eval_len - stride) // 2
            assert left >= min(room, t)
            assert right >= min(room, seg_len - 1 - t)
            assert left + right + 1 == min(eval_len, seg_len)


def assert_as_few_windows_as_possible(protocol, seg_len, eval_len, stride, causal) -> None:
    assert len(protocol(seg_len, eval_len, stride, causal)) == 1 + -(-(seg_len - eval_len) // stride)


NONOVERLAP = [assert_windows_fit, assert_every_position_once, assert_cut_at_multiples]
SLIDING = [assert_windows_fit, assert_every_position_once, assert_enough_context, assert_as_few_windows_as_possible]
SAME_TARGETS = [assert_windows_fit, assert_same_targets_at_every_length, assert_whole_context, assert_few_windows]


@settings(deadline=None, derandomize=True)
@given(sizes=SIZES, causal=st.booleans())
@example(sizes=(4096, 4096, 64), causal=True)
@example(sizes=(4096, 3000, 64), causal=False)  # what is left over is shorter than a piece
@example(sizes=(10, 7, 1), causal=True)
@example(sizes=(1, 1, 1), causal=False)
def test_protocols_are_what_they_say(sizes, causal):
    for check in NONOVERLAP:
        check(nonoverlap, *sizes, causal)
    for check in SAME_TARGETS:
        check(same_targets, *sizes, causal)
    for check in SLIDING:  # the smallest of the three sizes as its stride
        check(sliding, *sizes, causal)


# the same mistakes that were made elsewhere


def without_the_last_piece(seg_len, eval_len, n_targets, causal):
    return [w for w in nonoverlap(seg_len, eval_len, n_targets, causal) if w.stop - w.start == eval_len]


def with_half_a_stride(seg_len, eval_len, n_targets, causal):
    """Sliding: overlapping windows, each scored as a whole."""
    starts = range(0, seg_len, max(1, eval_len // 2))
    return [Window(a, min(a + eval_len, seg_len), a, min(a + eval_len, seg_len)) for a in starts]


def with_half_a_window_before(seg_len, eval_len, n_targets, causal):
    """Every position once, but with at least half a window before it: another protocol under the same name."""
    cut, done = [], 0
    while done < seg_len:
        stop = min(seg_len, done + (max(1, eval_len // 2) if done else eval_len))
        cut.append(Window(max(0, stop - eval_len), stop, done, stop))
        done = stop
    return cut


def with_half_the_window(seg_len, eval_len, n_targets, causal):
    return nonoverlap(seg_len, max(1, eval_len // 2), n_targets, causal)


def beyond_the_end(seg_len, eval_len, n_targets, causal):
    return [Window(a, a + eval_len, a, a + eval_len) for a in range(0, seg_len, eval_len)]


@pytest.mark.parametrize(
    "mutant", [without_the_last_piece, with_half_a_stride, with_half_a_window_before, with_half_the_window, beyond_the_end]
)
@pytest.mark.parametrize("causal", [True, False])
def test_a_wrong_nonoverlap_is_noticed(mutant, causal):
    assert_all_reject(mutant, NONOVERLAP, causal)


def from_the_start(seg_len, eval_len, n_targets, causal):
    """The end of the first eval_len tokens: another text for each length."""
    return [Window(0, eval_len, eval_len - n_targets, eval_len)]


def all_that_fits(seg_len, eval_len, n_targets, causal):
    """The targets grow with the length."""
    return [Window(seg_len - eval_len, seg_len, seg_len - eval_len, seg_len)]


def in_the_wrong_place(seg_len, eval_len, n_targets, causal):
    return same_targets(seg_len, eval_len, n_targets, not causal)


def with_half_the_context(seg_len, eval_len, n_targets, causal):
    return same_targets(seg_len, max(n_targets, eval_len // 2), n_targets, causal)


def each_in_the_middle(seg_len, eval_len, n_targets, causal):
    """A window of its own for every place: right, and several times as slow."""
    found = same_targets(seg_len, eval_len, n_targets, causal)
    starts = [min(max(0, w.score_start - (eval_len - n_targets) // 2), seg_len - eval_len) for w in found]
    return [Window(start, start + eval_len, *w[2:]) for start, w in zip(starts, found, strict=True)]


def with_all_the_context(seg_len, eval_len, n_targets, causal):
    """The window never changes: flat curves for everybody."""
    return same_targets(seg_len, seg_len, n_targets, causal)


@pytest.mark.parametrize(
    "mutant", [from_the_start, all_that_fits, in_the_wrong_place, with_half_the_context, with_all_the_context]
)
@pytest.mark.parametrize("causal", [True, False])
def test_a_wrong_same_targets_is_noticed(mutant, causal):
    assert_all_reject(mutant, SAME_TARGETS, causal)


def test_places_that_do_not_share_their_windows_are_noticed():
    assert_all_reject(each_in_the_middle, SAME_TARGETS, causal=False)


def with_the_window_as_stride(seg_len, eval_len, stride, causal):
    """The stride silently set to the window: nonoverlap under another name."""
    return nonoverlap(seg_len, eval_len, 1, causal)


def without_the_first_window(seg_len, eval_len, stride, causal):
    return sliding(seg_len, eval_len, stride, causal)[1:]


def scoring_whole_windows(seg_len, eval_len, stride, causal):
    return [Window(w.start, w.stop, w.start, w.stop) for w in sliding(seg_len, eval_len, stride, causal)]


def scoring_the_other_end(seg_len, eval_len, stride, causal):
    return sliding(seg_len, eval_len, stride, not causal)


@pytest.mark.parametrize(
    "mutant", [with_the_window_as_stride, without_the_first_window, scoring_whole_windows, scoring_the_other_end]
)
@pytest.mark.parametrize("causal", [True, False])
def test_a_wrong_sliding_is_noticed(mutant, causal):
    assert_all_reject(mutant, SLIDING, causal)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("seg_len", "train_len"), [(4096, 128), (100, 10), (17, 17), (9, 5)])
def test_position_scores_one_pass_in_bins_that_know_the_training_length(seg_len, train_len, causal):
    plan = PROTOCOLS["position"](config_of(seg_len, seg_len), train_len, causal)
    windows = [w for some in plan.values() for w in some]
    assert {(w.start, w.stop) for w in windows} == {(0, seg_len)}
    scored = scored_positions(windows)
    assert len(scored) == len(set(scored))
    assert set(range(seg_len)) - set(scored) <= ({seg_len // 2} if not causal and seg_len % 2 else set())
    assert train_len in plan or train_len > seg_len // 2
    assert list(plan) == sorted(plan)
    before = 0
    for eval_len, some in plan.items():
        for t in scored_positions(some):
            nearer = t if causal else min(t, seg_len - 1 - t)
            assert before < nearer + 1 <= eval_len
        before = eval_len


def test_bins_of_position_double_in_two_steps():
    plan = PROTOCOLS["position"](config_of(4096, 4096), 100, True)
    assert list(plan)[:8] == [16, 24, 32, 48, 64, 96, 100, 128]
    assert list(plan)[-3:] == [2048, 3072, 4096]


def test_a_protocol_is_labelled_with_what_it_depends_on():
    config = config_of(100, 50, stride=7)
    assert [label(config, protocol) for protocol in ("nonoverlap", "sliding")] == ["nonoverlap", "sliding(stride=7)"]


def test_pseudo_masks_targets_one_at_a_time():
    held_out = Markov(8, 0.3).held_out(100, 3)
    config = config_of(100, 20, n_targets=12)
    batch = masked_alone(held_out, 8, config)
    assert batch.inputs.shape == batch.scored.shape == (3 * 8, 100)
    np.testing.assert_array_equal(batch.targets, np.repeat(held_out.tokens, 8, axis=0))
    np.testing.assert_array_equal(batch.inputs == 8, batch.scored)
    np.testing.assert_array_equal(np.where(batch.scored, batch.targets, batch.inputs), batch.targets)
    assert (batch.scored.sum(axis=1) == 1).all()
    targets = set(scored_positions(PROTOCOLS["pseudo"](config, 1, False)[20]))
    assert targets == set(range(44, 56))
    for segment in batch.scored.reshape(3, 8, 100):
        places = np.flatnonzero(segment.any(axis=0))
        assert len(places) == 8
        assert set(places) <= targets


def assert_all_reject(mutant, checks, causal) -> None:
    """At the sizes of a real experiment one of the checks fails, as it does not for the protocol itself."""

    def check_all() -> None:
        for check in checks:
            for eval_len in (128, 1000, 4096):
                check(mutant, 4096, eval_len, 64, causal)

    with pytest.raises(AssertionError):
        check_all()


# held-out text for all lengths


@pytest.mark.parametrize("objective", [Mlm(), Causal()])
def test_every_length_and_protocol_reads_one_text_with_one_mask(objective):
    source = Markov(8, 0.3)
    config = EvalConfig(list(PROTOCOLS), ["none"], [16, 40, 100], [16, 40, 100], 8, 4, 1, 12, 8)
    held_out, batch = held_out_batch(source, objective, config)
    again = held_out_batch(source, objective, config)[1]
    for array, other in zip(batch, again, strict=True):
        np.testing.assert_array_equal(array, other)
    np.testing.assert_array_equal(batch.targets, held_out.tokens[:, objective.extra_tokens :])
    for protocol in PROTOCOLS.keys() - {"position"}:
        scored = []
        for windows in PROTOCOLS[protocol](config, 16, objective.causal).values():
            mask = np.zeros_like(batch.scored)
            for w in windows:
                mask[:, w.score_start : w.score_stop] |= batch.scored[:, w.score_start : w.score_stop]
            scored.append(mask)
        assert scored[0].any()
        for mask in scored[1:]:
            np.testing.assert_array_equal(mask, scored[0])


def test_the_order_of_lengths_changes_nothing():
    for protocol in PROTOCOLS.values():
        cuts = [
            protocol(EvalConfig(list(PROTOCOLS), ["none"], lengths, lengths, 8, 4, 1, 12, 8), 16, True)
            for lengths in ([16, 40, 100], [100, 40, 16])
        ]
        assert cuts[0] == cuts[1]


def test_rows_keep_segments_apart():
    held_out = Markov(8, 0.3).held_out(10, 3)
    rows = rows_of(held_out, "nonoverlap", 5, np.array([[1.0, 2.0, 3.0], [10, 10, 9], [31, 10, 12]]))
    assert rows["document"].to_list() == held_out.documents
    assert rows["nll_sum"].to_list() == [1.0, 2.0, 3.0]
    assert (rows["n_tokens"].to_list(), rows["n_bytes"].to_list()) == ([10, 10, 9], [31, 10, 12])
    assert set(rows["eval_len"]) == {5}
