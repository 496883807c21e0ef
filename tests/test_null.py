"""The early-token null: what published curves and models that are blind by construction say it is."""

from collections.abc import Sequence
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from rows import many, scheme_rows, shuffled

from experiments.claims.published import load_published
from extrap.config.schema import EvalConfig
from extrap.score.protocols import PROTOCOLS, Window
from extrap.stats import null
from extrap.stats.null import early_token_null
from extrap.stats.perplexity import over_seeds

L, N = 16, 96  # trained on L, segments of N
STRIDE_1 = "sliding(stride=1)"


# models that are blind beyond L by construction


def blind_causal(left: int, right: int) -> float:
    """Whoever reads the last L tokens, the one that it predicts from included: nats by how many of them there are."""
    return 1 + 3 / min(left + 1, L)


def blind_window(left: int, right: int) -> float:
    """L tokens, itself included: the middle of a window has everything."""
    return 1 + 3 / (1 + min(left, L // 2)) + 2 / (1 + min(right, L // 2 - 1))


def blind_control(left: int, right: int) -> float:
    """What the extension `window` lets an encoder read."""
    return 1 + 3 / (1 + min(left, L // 2 - 1)) + 2 / (1 + min(right, L // 2 - 1))


def blind_both_ways(left: int, right: int) -> float:
    """L/2 tokens to either side, itself not counted: one more than a window of L holds."""
    return 1 + 3 / (1 + min(left, L // 2)) + 2 / (1 + min(right, L // 2))


def log_ppl(model, windows: list[Window]) -> float:
    """Nats per token of a segment, every position scored once."""
    read = {t: (t - w.start, w.stop - 1 - t) for w in windows for t in range(w.score_start, w.score_stop)}
    return sum(model(*sides) for sides in read.values()) / len(read)


LENGTHS = [L, 20, 24, 32, 40, 48, N]  # what is left over is nothing, or no less than L


def blind_rows(model, stride: int = 1, lengths: Sequence[int] = tuple(LENGTHS)) -> pd.DataFrame:
    """As the protocols cut a segment of the longest length."""
    config = EvalConfig(
        ["nonoverlap", "sliding"], ["none"], list(lengths), [L], stride, n_segments=1, whole_every=1, n_targets=1, n_pseudo=1
    )
    plans = {protocol: PROTOCOLS[protocol](config, L, model is blind_causal) for protocol in config.protocols}
    pieces, full = ({n: [log_ppl(model, cut)] for n, cut in plan.items()} for plan in plans.values())
    rows = [
        scheme_rows("blind", pieces, train_len=L),
        scheme_rows("blind", full, train_len=L, protocol=f"sliding({stride=})"),
    ]
    return pd.concat(rows, ignore_index=True)


def assert_blind_has_no_excess(model) -> None:
    found = early_token_null(blind_rows(model))
    assert found["eval_len"].to_list() == LENGTHS
    assert found["null_excess"].to_numpy() == pytest.approx(1, rel=1e-12)
    assert found["null"].iloc[-1] < 0.75 * found["null"].iloc[0], "or there would be nothing to explain"


@pytest.mark.parametrize("model", [blind_causal, blind_window, blind_control])
def test_who_is_blind_beyond_the_training_length_has_no_excess(model):
    assert_blind_has_no_excess(model)


def swapped(joined, seg_lens):
    log_null = real_log_null(joined.rename(columns={"log_a": "log_full", "log_full": "log_a"}), seg_lens)
    return log_null.where(joined["eval_len"] > joined["train_len"], joined["log_ppl"])


def first_windows_forgotten(joined, seg_lens):
    """As if every token under sliding had a full context, those at the start of a segment too."""
    return real_log_null(joined.assign(full_context="same_targets"), seg_lens)


def without_leftovers(joined, seg_lens):
    """As if every length divided the segment."""
    share = joined["train_len"] / joined["eval_len"]
    segment = joined.join(seg_lens, on=list(seg_lens.index.names))["seg_len"]
    log_b = (segment * joined["log_full"] - L * joined["log_a"]) / (segment - L)
    return share * joined["log_a"] + (1 - share) * log_b


def one_token_off(joined, seg_lens):
    return real_log_null(joined.assign(train_len=joined["train_len"] - 1), seg_lens)


real_log_null = null._log_null


@pytest.mark.parametrize("mutant", [swapped, first_windows_forgotten, without_leftovers, one_token_off])
def test_another_null_is_noticed(mutant):
    with mock.patch.object(null, "_log_null", mutant), pytest.raises(AssertionError):
        assert_blind_has_no_excess(blind_causal)


def test_two_edges_of_a_piece_count_as_its_first_tokens_do_when_causal():
    given = blind_rows(blind_both_ways).query("protocol == 'nonoverlap'")
    log_a = given[given["eval_len"] == L]["nll_sum"].sum() / given[given["eval_len"] == L]["n_tokens"].sum()
    log_b = blind_both_ways(L // 2, L // 2)  # no window of L holds such a token; a segment of them, with its two edges:
    full = scheme_rows("blind", {L: [(L * log_a + (N - L) * log_b) / N]}, train_len=L, protocol=STRIDE_1)
    assert early_token_null(pd.concat([given, full]))["null_excess"].to_numpy() == pytest.approx(1, rel=1e-12)


def test_in_an_encoder_a_window_of_the_training_length_lacks_one_token_and_no_more():
    found = early_token_null(blind_rows(blind_both_ways)).set_index("eval_len")["null_excess"]
    lacks = blind_both_ways(L // 2, L // 2 - 1) - blind_both_ways(L // 2, L // 2)
    expected = {n: np.exp(-(n - L) / n * lacks) for n in (32, 48, N)}
    assert found[[32, 48, N]].to_dict() == pytest.approx(expected, rel=1e-12)


def test_a_last_piece_shorter_than_the_training_length_is_all_but_right():
    """96 = 2 * 41 + 14: its 14 tokens count as 14 of a piece of 16, though the last two of those read most."""
    found = early_token_null(blind_rows(blind_causal, lengths=(L, 41, N))).set_index("eval_len")["null_excess"]
    shorter = np.mean([blind_causal(t, 0) for t in range(14)]) - np.mean([blind_causal(t, 0) for t in range(L)])
    assert found[41] == pytest.approx(np.exp(14 / N * shorter), rel=1e-12)


def test_segments_that_the_training_length_does_not_divide_are_off_by_their_last_piece():
    """100 = 6 * 16 + 4: a holds 4 tokens more that read little. Whatever is known of a segment is its sums: all that is
    wrong is that those 4 count as 4 of a whole piece, in a as at each length."""
    whole, last = (np.mean([blind_causal(t, 0) for t in range(size)]) for size in (L, 4))
    log_a = (96 * whole + 4 * last) / 100
    found = early_token_null(blind_rows(blind_causal, lengths=(L, 32, 50, 100))).set_index("eval_len")["null_excess"]
    b = blind_causal(L, 0)
    b_found = b + L * (whole - log_a) / (100 - L)
    at_32 = (3 * L * whole + 4 * last + 48 * b) / 100 - ((3 * L + 4) * log_a + 48 * b_found) / 100
    at_50 = (2 * L * whole + 68 * b) / 100 - (2 * L * log_a + 68 * b_found) / 100
    assert found[[32, 50]].to_list() == pytest.approx([np.exp(at_32), np.exp(at_50)], rel=1e-12)
    assert found[100] == pytest.approx(1, rel=1e-12)
    assert found[50] < 1 < found[32], "the sign depends on what is left over"


def test_a_coarser_stride_makes_the_null_higher_by_what_a_shorter_context_costs():
    fine, coarse = (early_token_null(blind_rows(blind_causal, stride)).set_index("eval_len") for stride in (1, 4))
    cost = np.mean([blind_causal(t, 0) for t in range(L - 4, L)]) - blind_causal(L, 0)
    expected = {n: np.exp(-(n - L) / n * cost) for n in (32, 48, N)}
    assert coarse["null_excess"][[32, 48, N]].to_dict() == pytest.approx(expected, rel=1e-12)
    assert (fine["full_context"] == STRIDE_1).all()
    both = early_token_null(
        shuffled(pd.concat([blind_rows(blind_causal, 4), blind_rows(blind_causal, 1).query("protocol != 'nonoverlap'")]))
    )
    assert (both["full_context"] == STRIDE_1).all(), "the finest is taken"
    assert both["null_excess"].to_numpy() == pytest.approx(1, rel=1e-12)


# published curves


def published(table: str, train_len: int) -> pd.DataFrame:
    """Perplexities of words of one long text: at every length, and at L with a window moved word by word."""
    facts = load_published().query("source == 'press2022alibi' and metric == 'ppl'")
    facts = facts[(facts["train_len"] == train_len) & facts["table"].isin([table, "13-15"])]
    facts = facts[(facts["protocol"] == "nonoverlap") | (facts["eval_len"] == train_len)]
    n_words = 217_646  # of the validation text
    rows = [
        scheme_rows(fact.scheme, {fact.eval_len: [np.log(fact.value)]}, train_len=train_len, data=fact.corpus,
                    objective=fact.objective, protocol=fact.protocol.replace("sliding stride 1", STRIDE_1))
        for fact in facts.itertuples()
    ]  # fmt: skip
    made = pd.concat(rows, ignore_index=True)
    scale = n_words / made["n_tokens"].groupby([made["scheme"], made["protocol"], made["eval_len"]]).transform("sum")
    return made.assign(**{c: made[c] * scale for c in ("nll_sum", "n_tokens", "n_bytes")})


def excess_of(rows: pd.DataFrame, scheme: str) -> pd.Series:
    found = early_token_null(rows)
    found = found[found["scheme"] == scheme].sort_values("eval_len")
    return found.set_index(found["eval_len"] / found["train_len"])["null_excess"]


TABLES = [("2", 512), ("3", 1024), ("4", 3072)]


@pytest.mark.parametrize(("table", "train_len"), TABLES)
def test_alibi_as_published_gains_what_a_blind_model_would(table, train_len):
    """Up to 3 L to 1 %, at L = 3072 as far as was published; beyond, ALiBi is worse than blind by what stride 1 shows, too.

    (Tables 13 and 14: at 6 L and 3 L perplexity with stride 1 is 1.8 % and 2.6 % above that at L.)
    """
    rows = published(table, train_len)
    curve = rows.query("scheme == 'alibi' and protocol == 'nonoverlap'").set_index("eval_len").groupby("eval_len").sum()
    perplexity = np.exp(curve["nll_sum"] / curve["n_tokens"])
    excess = excess_of(rows, "alibi")
    assert len(excess) > 30
    assert perplexity.iloc[-1] < 0.98 * perplexity.loc[train_len], "a gain that there is to explain"
    near = excess.index <= 3 if train_len < 3072 else excess.index <= 6
    assert excess[near].to_numpy() == pytest.approx(1, abs=0.01)
    assert excess.between(0.99, 1.03).all()


@pytest.mark.parametrize(("table", "train_len"), TABLES)
def test_t5_as_published_fails_from_three_times_the_training_length_on(table, train_len):
    """Its perplexity still falls there: the null falls faster."""
    excess = excess_of(published(table, train_len), "t5")
    assert excess[excess.index < 2.2].between(0.99, 1.01).all()
    assert 2.9 < excess[excess <= 1.05].index.max() < 3.5
    assert (excess[excess.index > 3.5] > 1.05).all()
    assert excess[excess.index > 3].is_monotonic_increasing


@pytest.mark.parametrize("table", TABLES)
def test_with_a_and_b_swapped_nothing_published_would_come_out(table):
    with mock.patch.object(null, "_log_null", swapped), pytest.raises(AssertionError):
        test_alibi_as_published_gains_what_a_blind_model_would(*table)


# seeds, extensions, where b comes from


def trained(log_ppl_by_length: dict[int, list[float]], full: list[float], protocol: str = STRIDE_1) -> pd.DataFrame:
    """One scheme; at every length the segments have 4,096 positions."""
    rows = [scheme_rows("a", log_ppl_by_length), scheme_rows("a", {128: full}, protocol=protocol)]
    return pd.concat(rows, ignore_index=True)


def full_context(a: float, b: float) -> float:
    """What sliding shows of b in a segment of 4,096."""
    return (128 * a + (4096 - 128) * b) / 4096


def test_excess_is_paired_by_seed():
    a, b = np.array([2.0, 2.5, 3.0]), np.array([1.8, 2.4, 2.7])
    at_512 = (a + 3 * b) / 4 + np.array([0.01, 0.02, 0.06])
    rows = trained({128: list(a), 512: list(at_512), 4096: [1.0] * 3}, [full_context(*ab) for ab in zip(a, b, strict=True)])
    found = early_token_null(shuffled(rows)).set_index("eval_len").loc[512]
    half = over_seeds(pd.Series([0.01, 0.02, 0.06])).half
    assert found["null"] == pytest.approx(np.exp(((a + 3 * b) / 4).mean()))
    assert found["null_excess"] == pytest.approx(np.exp(0.03))
    assert (found["null_excess_low"], found["null_excess_high"]) == pytest.approx((np.exp(0.03 - half), np.exp(0.03 + half)))
    assert found["n_seeds"] == 3


def test_up_to_the_training_length_there_is_no_excess():
    rows = trained({32: [3.0, 3.1], 128: [2.0, 2.1], 4096: [1.0, 1.1]}, [1.8, 1.9])
    found = early_token_null(rows).set_index("eval_len")
    assert (found.loc[[32, 128], ["null_excess", "null_excess_low", "null_excess_high"]] == 1).all(axis=None)
    assert found.loc[32, "null"] == pytest.approx(np.exp(3.05))


def test_one_seed_has_an_excess_without_an_interval():
    found = early_token_null(trained({128: [2.0], 4096: [1.0]}, [1.8])).set_index("eval_len").loc[4096]
    assert found["null_excess"] == pytest.approx(np.exp(1.0 - 1.8))  # at the length of a segment the null is sliding itself
    assert np.isnan(found[["null_excess_low", "null_excess_high"]].astype(float)).all()


def test_extensions_are_held_against_the_null_of_their_weights():
    rows = trained({128: [2.0], 4096: [1.0]}, [1.8])
    window = scheme_rows("a", {128: [2.0], 4096: [1.5]}, extension="window")
    found = early_token_null(pd.concat([rows, window])).query("eval_len == 4096").set_index("extension")
    assert found["null"].nunique() == 1
    assert found["null_excess"].to_dict() == pytest.approx({"none": np.exp(1.0 - 1.8), "window": np.exp(1.5 - 1.8)})


def test_each_scheme_has_its_own_null_and_references_have_none():
    rows = [many({"a": {128: [2.0], 4096: [1.0]}, "b": {128: [3.0], 4096: [2.0]}}),
            many({"a": {128: [1.5]}, "b": {128: [2.5]}}, protocol=STRIDE_1),
            scheme_rows("unigram", {128: [5.0], 4096: [5.0]}, kind="unigram"),
            scheme_rows("unigram", {128: [5.0]}, kind="unigram", protocol=STRIDE_1)]  # fmt: skip
    found = early_token_null(pd.concat(rows)).query("eval_len == 4096").set_index("scheme")["null_excess"]
    assert found.to_dict() == pytest.approx({"a": np.exp(-0.5), "b": np.exp(-0.5)})


def test_same_targets_stand_in_for_sliding_and_are_named():
    rows = trained({128: [2.0], 512: [1.8], 4096: [1.0]}, [1.6], protocol="same_targets")
    found = early_token_null(rows).set_index("eval_len").loc[512]
    assert found["null"] == pytest.approx(np.exp(2.0 / 4 + 1.6 * 3 / 4))
    assert found["full_context"] == "same_targets"
    both = pd.concat([rows, scheme_rows("a", {128: [1.7]}, protocol="sliding(stride=32)")])
    assert set(early_token_null(both)["full_context"]) == {"sliding(stride=32)"}


@pytest.mark.parametrize("protocol", ["position", "pseudo", "nonoverlap"])
def test_without_a_full_context_there_is_no_null(protocol):
    rows = scheme_rows("a", {128: [2.0], 4096: [1.0]})
    other = scheme_rows("a", {128: [1.0]}, protocol=protocol) if protocol != "nonoverlap" else rows[:0]
    assert early_token_null(pd.concat([rows, other])).empty
