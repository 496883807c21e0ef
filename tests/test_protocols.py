"""Protocols: every token once, the same targets at every length, never a window beyond its segment."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extrap.config import EvalConfig
from extrap.data.markov import Markov
from extrap.objectives import Causal, Mlm
from extrap.protocols import PROTOCOLS, Window, held_out_batch, nonoverlap, rows_of, same_targets, windows

SIZES = st.tuples(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200)).map(
    lambda sizes: tuple(sorted(sizes, reverse=True))  # seg_len >= eval_len >= n_targets
)


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
    assert len(longest) == len(set(longest)) == n_targets
    assert scored_positions(protocol(seg_len, eval_len, n_targets, causal)) == longest
    if causal:
        assert longest == list(range(seg_len - n_targets, seg_len))
    else:  # as much room on the left as on the right
        assert abs(longest[0] - (seg_len - 1 - longest[-1])) <= 1


def assert_whole_context(protocol, seg_len, eval_len, n_targets, causal) -> None:
    """One window of just eval_len tokens, on both sides of the targets unless causal, within that of a longer one."""
    (window,) = protocol(seg_len, eval_len, n_targets, causal)
    assert window.stop - window.start == eval_len
    if causal:
        assert window.stop == window.score_stop
    else:
        assert abs((window.score_start - window.start) - (window.stop - window.score_stop)) <= 1
    if eval_len < seg_len:
        (longer,) = protocol(seg_len, eval_len + 1, n_targets, causal)
        assert longer.start <= window.start
        assert window.stop <= longer.stop


NONOVERLAP = [assert_windows_fit, assert_every_position_once, assert_cut_at_multiples]
SAME_TARGETS = [assert_windows_fit, assert_same_targets_at_every_length, assert_whole_context]


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


# the same mistakes that were made elsewhere


def without_the_last_piece(seg_len, eval_len, n_targets, causal):
    return [w for w in nonoverlap(seg_len, eval_len, n_targets, causal) if w.stop - w.start == eval_len]


def with_half_a_stride(seg_len, eval_len, n_targets, causal):
    """Sliding: overlapping windows, each scored as a whole."""
    starts = range(0, seg_len, max(1, eval_len // 2))
    return [Window(a, min(a + eval_len, seg_len), a, min(a + eval_len, seg_len)) for a in starts]


def sliding(seg_len, eval_len, n_targets, causal):
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
    "mutant", [without_the_last_piece, with_half_a_stride, sliding, with_half_the_window, beyond_the_end]
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


def with_all_the_context(seg_len, eval_len, n_targets, causal):
    """The window never changes: flat curves for everybody."""
    return same_targets(seg_len, seg_len, n_targets, causal)


@pytest.mark.parametrize(
    "mutant", [from_the_start, all_that_fits, in_the_wrong_place, with_half_the_context, with_all_the_context]
)
@pytest.mark.parametrize("causal", [True, False])
def test_a_wrong_same_targets_is_noticed(mutant, causal):
    assert_all_reject(mutant, SAME_TARGETS, causal)


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
    config = EvalConfig(protocols=list(PROTOCOLS), lengths=[16, 40, 100], n_segments=4, n_targets=12)
    held_out, batch = held_out_batch(source, objective, config)
    again = held_out_batch(source, objective, config)[1]
    for array, other in zip(batch, again, strict=True):
        np.testing.assert_array_equal(array, other)
    np.testing.assert_array_equal(batch.targets, held_out.tokens[:, objective.extra_tokens :])
    for protocol in PROTOCOLS:
        scored = []
        for eval_len in config.lengths:
            mask = np.zeros_like(batch.scored)
            for w in windows(config, protocol, eval_len, objective.causal):
                mask[:, w.score_start : w.score_stop] |= batch.scored[:, w.score_start : w.score_stop]
            scored.append(mask)
        assert scored[0].any()
        for mask in scored[1:]:
            np.testing.assert_array_equal(mask, scored[0])


def test_the_order_of_lengths_changes_nothing():
    cuts = [
        windows(EvalConfig(list(PROTOCOLS), lengths, 4, 12), "same_targets", 40, True)
        for lengths in ([16, 40, 100], [100, 40, 16])
    ]
    assert cuts[0] == cuts[1]


def test_rows_keep_segments_apart():
    held_out = Markov(8, 0.3).held_out(10, 3)
    rows = rows_of(held_out, "nonoverlap", 5, np.array([1.0, 2.0, 3.0]), np.array([10, 10, 9]))
    assert rows["document"].to_list() == held_out.documents
    assert rows["nll_sum"].to_list() == [1.0, 2.0, 3.0]
    assert rows["n_tokens"].to_list() == rows["n_bytes"].to_list() == [10, 10, 9]
    assert set(rows["eval_len"]) == {5}
