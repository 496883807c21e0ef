"""Replaced-token detection: what stands in the place of a token, what is asked of it, and what is known without a model."""

import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from rows import both_protocols, many, scheme_rows
from scipy.stats import chisquare

from extrap.config.compose import compose_grid
from extrap.data import cloze
from extrap.data.cloze import Counted, OfChain, Places, places
from extrap.data.documents import Documents
from extrap.data.markov import Markov
from extrap.errors import UserError
from extrap.objectives import Rtd
from extrap.report.answer import answer
from extrap.report.tables import markdown_table
from extrap.results.shown import by_measure
from extrap.runs.run import build_encoder
from extrap.score.evaluate import evaluate
from extrap.score.protocols import held_out_batch
from extrap.score.references import reference_rows
from extrap.stats.perplexity import perplexity, summarise
from extrap.stats.statistics import Statistics
from extrap.sweep.checks import prepare_grid

V = 5
RATE = 0.15
TEXTS = [np.array(text) for text in ([0, 1, 2, 1, 0, 1, 3, 1, 0, 1, 2], [2, 1, 0, 0, 0, 1], [4])]


class Source:
    """Whose corrupter notes what it is asked, and puts (a + 2 c) % V, or else that and one more, between a and c."""

    vocab_size = V
    asked: tuple[np.ndarray, np.ndarray]

    @property
    def corrupter(self):
        return self

    def probabilities(self, left, right):
        self.asked = left, right
        q = np.zeros((len(left), V))
        q[np.arange(len(left)), (left + 2 * right) % V] = 0.75
        q[np.arange(len(left)), (left + 2 * right + 1) % V] = 0.25
        return q

    def replaced(self, rate):
        return np.full(V, rate / 2)


def tokens_of(n_rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(V, size=(n_rows, length))


# ---- the corrupter of text


def q_by_hand(a: int, c: int) -> np.ndarray:
    """The formula, one count at a time."""
    triples = Counter((x, y, z) for text in TEXTS for x, y, z in zip(text, text[1:], text[2:], strict=False))
    pairs = Counter(pair for text in TEXTS for pair in pairwise(text))
    single = Counter(token for text in TEXTS for token in text)
    n = sum(single.values()) + V
    p = [(single[b] + 1) / n for b in range(V)]
    after = [(pairs[a, b] + 0.5 * p[b]) / (sum(pairs[a, x] for x in range(V)) + 0.5) for b in range(V)]
    before = [(pairs[b, c] + 0.5 * p[b]) / (sum(pairs[x, c] for x in range(V)) + 0.5) for b in range(V)]
    r = [after[b] * before[b] / p[b] for b in range(V)]
    n_ac = sum(triples[a, b, c] for b in range(V))
    return np.array([(triples[a, b, c] + 2 * r[b] / sum(r)) / (n_ac + 2) for b in range(V)])


def test_what_stands_between_two_tokens_is_counted():
    left, right = (part.ravel() for part in np.meshgrid(np.arange(V), np.arange(V)))
    found = Counted(TEXTS, V).probabilities(left, right)
    expected = [q_by_hand(a, c) for a, c in zip(left, right, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


def test_how_often_a_token_is_not_the_true_one_is_what_its_draws_come_to():
    fakes, read = np.zeros(V), np.zeros(V)
    for text in TEXTS:
        for a, x, c in zip(text, text[1:], text[2:], strict=False):
            q = q_by_hand(a, c)
            read += RATE * q
            read[x] += 1 - RATE
            fakes += RATE * q
            fakes[x] -= RATE * q[x]
    known = read > 0  # 4 stands nowhere between two others, though it may be drawn there
    share = fakes.sum() / read.sum()
    np.testing.assert_allclose(Counted(TEXTS, V).replaced(RATE)[known], ((fakes + share) / (read + 1))[known], rtol=1e-12)


def test_a_token_that_training_text_does_not_hold_is_not_known_to_be_replaced():
    source = Documents({"a": b"to be or not to be " * 40}, {"b": b"not to be \xe2 or to be " * 9})
    objective, tokens = Rtd(), source.held_out(150, 1).tokens
    known = objective.references(tokens, objective.batch(tokens, source, np.random.default_rng(0)), source, 16)
    assert all(np.isfinite(nll).all() for nll in known.values())


def test_draws_come_as_often_as_they_should_and_none_is_beyond_the_last_token():
    n = 40_000
    at = places(Counted(TEXTS, V), np.zeros(n, dtype=int), np.full(n, 2), V)
    drawn = at.draw(np.random.default_rng(0))
    assert chisquare(np.bincount(drawn, minlength=V), n * q_by_hand(0, 2)).pvalue > 1e-4

    class Highest:
        def random(self, n):
            return np.full(n, np.nextafter(1.0, 0.0))

    n_pairs = 8_000  # the last of so many are told apart as well as the first
    q = np.random.default_rng(1).dirichlet(np.ones(V), n_pairs)
    known = SimpleNamespace(probabilities=lambda left, right: q[left * V + right])
    one, every = Places(known, V, np.arange(n_pairs), np.arange(n_pairs)[::-1]), np.random.default_rng(2).random(n_pairs)
    alone = [np.searchsorted(row.cumsum(), u) for row, u in zip(q[::-1], every, strict=True)]
    tokens = np.random.default_rng(3).integers(V, size=n_pairs)
    for most in (cloze.MOST_AT_ONCE, 1_000 * V, 1):  # a part at a time, they are the same
        with mock.patch.object(cloze, "MOST_AT_ONCE", most):
            np.testing.assert_array_equal(one.draw(np.random.default_rng(2)), alone)
            np.testing.assert_array_equal(one.of(tokens), q[np.arange(n_pairs)[::-1], tokens])
    many_pairs = places(Counted(TEXTS, V), *(part.ravel() for part in np.meshgrid(np.arange(V), np.arange(V))), V)
    assert many_pairs.draw(Highest()).max() == V - 1


def test_the_corrupter_knows_training_text_alone():
    train = {"a": b"abcabcabdabc" * 50}
    one = Documents(train, {"b": b"abx" * 100}).corrupter
    other = Documents(train, {"b": b"zzz" * 100}).corrupter
    asked = np.array(list(b"ab")), np.array(list(b"cc"))
    np.testing.assert_array_equal(one.probabilities(*asked), other.probabilities(*asked))
    held_back = Documents({"a": b"ab" * 1000 + b"x" * 1000}, {"b": b"abx" * 100})
    held_back.hold_back(100, 1)
    assert held_back.corrupter.counts.sum() < 3000 - 2 - 100  # what is held back is not counted


def test_training_text_is_counted_when_fakes_are_asked_for_and_not_before_some_is_held_back(tmp_path):
    told = ["experiment=smoke", "objective=rtd", "position=nope", "seed=0", "train.lr=0.001,0.002"]
    cell = prepare_grid(compose_grid([*told, f"runtime.results_dir={tmp_path}"]))[0]
    assert cell.held_back is not None
    assert "corrupter" not in vars(cell.source)


def moment(counts: dict[tuple[int, int], int], alpha: float) -> float:
    """E of the product of P(a -> b)^n over these transitions, rows drawn from Dirichlet(alpha, ..., alpha)."""
    found = 1.0
    for a in {a for a, _ in counts}:
        row = [n for (x, _), n in counts.items() if x == a]
        rising = [math.prod(alpha + i for i in range(n)) for n in row]
        found *= math.prod(rising) / math.prod(alpha * V + i for i in range(sum(row)))
    return found


@pytest.mark.parametrize("alpha", [0.03, 1.0])
def test_what_stands_between_two_symbols_of_a_chain_is_known_exactly(alpha):
    joint = np.array([[[moment(Counter([(a, b), (b, c)]), alpha) for b in range(V)] for c in range(V)] for a in range(V)])
    expected = joint / joint.sum(axis=2, keepdims=True)
    left, right = (part.ravel() for part in np.meshgrid(np.arange(V), np.arange(V), indexing="ij"))
    chain = OfChain(V, alpha)
    np.testing.assert_allclose(chain.probabilities(left, right).reshape(V, V, V), expected, rtol=1e-12)
    fakes = RATE * (joint * (1 - expected)).sum() / V  # the first symbol is uniform
    np.testing.assert_allclose(chain.replaced(RATE), np.full(V, fakes), rtol=1e-12)


# ---- the objective


def test_a_token_counts_as_replaced_where_another_stands_in_its_place():
    tokens, source = tokens_of(200, 42), Source()
    before = tokens.copy()
    batch = Rtd(RATE).batch(tokens, source, np.random.default_rng(0))
    np.testing.assert_array_equal(tokens, before)
    true = tokens[:, 1:-1]
    assert batch.inputs.shape == batch.targets.shape == batch.scored.shape == (200, 40)
    np.testing.assert_array_equal(batch.targets, batch.inputs != true)  # a draw of the true token is no replacement
    assert batch.scored.all()  # not the drawn ones alone
    assert batch.inputs.max() < V  # [MASK] is never read
    fakes = batch.targets.sum(axis=1)
    assert fakes.max() <= round(RATE * 40)  # so many are drawn in every row
    # of the draws those are fakes that are not what stood there: 4 in 5 of uniform text
    assert fakes.sum() / (200 * round(RATE * 40)) == pytest.approx(0.8, abs=0.04)
    assert batch.inputs.dtype == batch.targets.dtype == np.int64


def test_the_corrupter_is_asked_about_the_true_neighbours():
    tokens, source = tokens_of(50, 42), Source()
    batch = Rtd(0.9).batch(tokens, source, np.random.default_rng(0))
    mode = (tokens[:, :-2] + 2 * tokens[:, 2:]) % V
    drawn = batch.targets == 1
    assert ((batch.inputs == mode) | (batch.inputs == (mode + 1) % V))[drawn].all()  # none is of a neighbour that was drawn
    assert ((batch.inputs == (mode + 1) % V) & drawn).any()  # a sample, not the likeliest


def test_training_hides_as_much_as_scoring():
    tokens, source = tokens_of(20, 42), Source()
    one, other = (Rtd(RATE).batch(tokens, source, np.random.default_rng(0), rate) for rate in (None, 0.9))
    np.testing.assert_array_equal(one.inputs, other.inputs)


def test_held_out_text_is_corrupted_once_for_every_length_seed_and_scheme():
    config = compose_grid(["experiment=smoke", "position=rope", "seed=0", "objective=rtd", "data=markov"])[0].eval
    source = Markov(8, 0.3)
    (held_out, batch), (_, again) = (held_out_batch(source, Rtd(), config) for _ in range(2))
    for one, other in zip(batch, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert batch.inputs.shape[1] == max(config.lengths) == held_out.tokens.shape[1] - 2


@pytest.mark.parametrize(
    "source", [Markov(8, 0.3), Documents({"a": b"to be or not to be " * 40}, {"b": b"not to be or to be " * 9})]
)
def test_references_are_what_they_say(source):
    objective = Rtd()
    tokens = source.held_out(150, 1).tokens
    batch = objective.batch(tokens, source, np.random.default_rng(0))
    known = objective.references(tokens, batch, source, 16)
    share = batch.targets.mean()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert known["rate"].mean() == pytest.approx(entropy, rel=1e-12)  # exactly what a constant can come to
    read = np.concatenate([tokens[:, :1], batch.inputs, tokens[:, -1:]], axis=1)[0]
    chance = source.corrupter.replaced(objective.mask_rate)
    for t, fake in enumerate(batch.targets[0]):
        q = source.corrupter.probabilities(read[t : t + 1], read[t + 2 : t + 3])[0, read[t + 1]]
        for kind, p in (("neighbours", 0.15 * (1 - q)), ("byte", chance[read[t + 1]])):
            assert known[kind][0, t] == pytest.approx(-math.log(p if fake else 1 - p), rel=1e-12)


def test_neighbours_tell_what_they_can_where_both_are_true():
    """And q is how the source draws: no other function of these predicts better in the long run, it is calibrated."""
    source = Markov(4, 0.5)
    rng = np.random.default_rng(0)
    tokens = source.batch(rng, 30_000, 3)
    batch = Rtd(0.3).batch(tokens, source, rng)  # a single position: it is drawn always, its neighbours never
    p = 1 - places(source.corrupter, tokens[:, 0], tokens[:, 2], 4).of(batch.inputs[:, 0])
    for value in np.unique(p.round(9)):
        here = np.isclose(p, value)
        assert batch.targets[here].mean() == pytest.approx(value, abs=4 * math.sqrt(0.25 / here.sum()))


def cells(results, *overrides):
    return prepare_grid(
        compose_grid(
            [
                "experiment=smoke", "position=alibi,rope", "seed=0", "data=markov", "objective=rtd", "data.vocab_size=8",
                "train.train_len=16", "eval.lengths=[16,40]", "eval.n_segments=8", "eval.n_targets=10",
                "eval.protocols=[nonoverlap,same_targets]", f"runtime.results_dir={results}", *overrides,
            ]
        )
    )  # fmt: skip


def test_a_constant_discriminator_loses_log_2_of_every_token_and_two_classes_have_two_scores(tmp_path):
    cell = cells(tmp_path)[0]
    encoder = build_encoder(cell)
    assert encoder.unembedding.weight.shape[0] == encoder.n_outputs == 2
    assert encoder.embedding.weight.shape[0] == 8
    with torch.no_grad():
        encoder.unembedding.weight.zero_()
    rows = evaluate(encoder, cell.source, cell.objective, cell.config.eval).rows
    found = perplexity(rows[rows["extension"] == "none"], ["protocol", "eval_len"])
    assert found["log_ppl"].to_numpy() == pytest.approx(math.log(2), rel=1e-6)
    nonoverlap = found[found["protocol"] == "nonoverlap"]
    assert (nonoverlap["n_tokens"] == 8 * 40).all()  # every token is asked about


def test_references_have_rows(tmp_path):
    cell = cells(tmp_path)[0]
    rows = reference_rows(cell.config, cell.source, cell.objective)
    assert {*rows["kind"]} == {"rate", "byte", "neighbours"}
    assert {*rows["objective"]} == {"rtd"}


@pytest.mark.parametrize(("overrides", "message"), [
    (
        ["model.output=tied"],
        r"^model\.output: expected model\.output=untied with objective=rtd or electra, which predict no tokens, found tied$",
    ),
    (["eval.protocols=[nonoverlap,pseudo]"], r"^eval\.protocols: pseudo masks tokens one at a time; expected objective=mlm"),
    (["objective.mask_rate=1.5"], r"^objective\.mask_rate: expected a share between 0 and 1, found 1\.5$"),
])  # fmt: skip
def test_what_it_cannot_be_asked_is_told(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        cells(tmp_path, *overrides)


# ---- how it is told

KNOWN = {"rate": ("rate", 0.28), "byte": ("byte alone", 0.27), "neighbours": ("two neighbours", 0.25)}
LOSSES = {"rope": {128: [0.20, 0.22], 512: [0.40, 0.44]}, "alibi": {128: [0.21, 0.23], 512: [0.21, 0.23]},
          "nope": {128: [0.26, 0.27], 512: [0.26, 0.27]}, "t5": {128: [0.20, 0.22], 512: [0.204, 0.224]}}  # fmt: skip


def made() -> pd.DataFrame:
    references = [
        scheme_rows(name, {n: [nll] for n in (128, 512)}, kind=kind, protocol=protocol)
        for kind, (name, nll) in KNOWN.items() for protocol in ("nonoverlap", "same_targets")
    ]  # fmt: skip
    return pd.concat([both_protocols(LOSSES), *references], ignore_index=True).assign(objective="rtd")


def test_losses_are_told_in_nats_and_as_the_share_that_is_explained():
    summary = summarise(made()).set_index(["protocol", "scheme", "eval_len"]).loc["nonoverlap"]
    rope = summary.loc["rope"]
    assert rope.loc[128, "ppl"] == pytest.approx(0.21)
    assert rope.loc[128, "ppl_high"] - 0.21 == pytest.approx(0.21 - rope.loc[128, "ppl_low"])
    assert rope.loc[512, "ratio"] == pytest.approx(2)
    assert rope.loc[512, "ratio_high"] == pytest.approx(2)  # paired by seed
    assert rope.loc[512, "limit"] == pytest.approx(1 + 0.05 * (0.28 - 0.21) / 0.21)
    assert summary.loc[("t5", 512), "ratio"] < 1.05
    assert (summary.loc[("t5", 128), "onset_low"], summary.loc[("t5", 128), "onset_high"]) == (128, 512)
    assert summary.loc[("alibi", 128), "onset_low"] == 512  # nowhere
    assert rope.loc[128, "explained"] == pytest.approx(1 - 0.21 / 0.28)
    assert np.isnan(rope.loc[128, "bpb"])
    assert (rope.loc[128, "onset_low"], rope.loc[128, "onset_high"]) == (128, 512)
    assert [bool(summary.loc[(s, 128), "beats_unigram"]) for s in ("rope", "alibi", "nope")] == [True, True, False]
    table = by_measure(summarise(made()))
    assert {"nats", "nats_low", "nats_high", "explained", "beats_neighbours"} < {*table}
    assert not {column for column in table if "ppl" in column or column in ("bpb", "beats_unigram")}


def test_who_explains_nothing_has_nothing_to_lose():
    """Its losses lie above that of `rate` everywhere, and no length is where it begins to break."""
    rows = made()
    rows.loc[rows["scheme"] == "nope", "nll_sum"] *= 1.1
    told = summarise(rows).query("scheme == 'nope'")
    assert (told["explained"] < 0).all()
    assert (told["onset_low"] == 512).all()
    assert told["onset_high"].isna().all()
    assert "<NA>" not in markdown_table(Statistics(rows))


def test_no_perplexity_is_spoken_of():
    found = Statistics(made())
    told = markdown_table(found) + answer(found)
    assert "0.210" in told
    assert "25.0 %" in told  # of what there is to explain
    assert "worse than two neighbours" in told
    assert "rope (128 to 512; 2.000 x at 512)" in told
    assert "perplexit" not in told
    assert "unigram" not in told


def test_beside_perplexities_each_has_its_own_columns():
    both = pd.concat([made(), many({"rope": {128: [1.0, 1.1], 512: [1.5, 1.6]}})], ignore_index=True)
    table = by_measure(summarise(both))
    rtd = table["objective"] == "rtd"
    assert table.loc[rtd, "ppl"].isna().all()
    assert table.loc[~rtd, "nats"].isna().all()
    assert table.loc[~rtd, "ppl"].notna().all()
    assert table.loc[rtd, "nats"].notna().all()
