"""The known floor: exact where it says so, blind to the future, beaten by nobody but an oracle."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2, chisquare

from extrap.config.compose import compose_grid
from extrap.data.markov import Markov
from extrap.errors import UserError
from extrap.results.rows import COLUMNS
from extrap.runs.prepare import build
from extrap.score.protocols import DECIMALS, held_out_batch
from extrap.score.references import reference_rows

ROUNDED = 0.501 * 10.0**-DECIMALS  # nats: rows keep no more


def brute_force_nll(tokens, context, n_symbols, alpha):
    """-log p(tokens[t+1] | its context), one token at a time, in the words of the definition."""
    found = np.zeros(len(tokens) - 1)
    for t in range(len(tokens) - 1):
        seen = list(tokens[t - context[t] + 1 : t + 1])
        n_xy = n_x = 0
        for x, y in pairwise(seen):
            n_x += x == tokens[t]
            n_xy += x == tokens[t] and y == tokens[t + 1]
        found[t] = -np.log((n_xy + alpha) / (n_x + alpha * n_symbols))
    return found


def whole(tokens) -> np.ndarray:
    """Context that reaches back to the first token."""
    return np.arange(1, len(tokens))


def draw(source: Markov, n_documents: int, length: int, seed: int):
    """(D, length) documents and the matrices (D, V, V) that they follow."""
    # a batch draws its matrices first: the same generator draws the same ones again
    matrices = np.random.default_rng(seed).dirichlet(
        np.full(source.vocab_size, source.alpha), size=(n_documents, source.vocab_size)
    )
    return source.batch(np.random.default_rng(seed), n_documents, length), matrices


def standard_error(values) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


# the predictor


@pytest.mark.parametrize(("n_symbols", "alpha"), [(2, 0.5), (8, 0.3), (5, 3.0)])
def test_posterior_equals_a_brute_force_loop(n_symbols, alpha):
    rng = np.random.default_rng(0)
    source = Markov(n_symbols, alpha)
    tokens = source.batch(rng, 1, 200)[0]
    for context in (
        whole(tokens),
        np.minimum(whole(tokens), 17),
        np.ones(199, dtype=int),
        rng.integers(1, whole(tokens) + 1),
    ):
        expected = brute_force_nll(tokens, context, n_symbols, alpha)
        np.testing.assert_allclose(source.posterior_nll(tokens, context), expected, rtol=1e-13)


@pytest.mark.parametrize("tokens", [[0, 1, 1, 0, 1, 1, 1], [2, 2, 0, 2, 1, 2], [1, 0]])
def test_posterior_is_the_bayes_posterior(tokens):
    """Against weights of matrices drawn from the prior by how well each explains what was seen."""
    n_symbols, alpha = max(tokens) + 2, 0.7
    matrices = np.random.default_rng(0).dirichlet(np.full(n_symbols, alpha), size=(400_000, n_symbols))
    weight = np.prod([matrices[:, x, y] for x, y in pairwise(tokens[:-1])], axis=0) * np.ones(400_000)
    hit = matrices[:, tokens[-2], tokens[-1]]
    expected = np.average(hit, weights=weight)
    error = np.sqrt(np.average((hit - expected) ** 2 * weight, weights=weight) / weight.sum())
    assert error < 0.01 * expected
    found = np.exp(-Markov(n_symbols, alpha).posterior_nll(np.array(tokens), whole(tokens))[-1])
    assert abs(found - expected) < 4 * error


def assert_sums_to_one(predict) -> None:
    tokens = Markov(4, 0.3).batch(np.random.default_rng(0), 1, 40)[0]
    for context in (whole(tokens), np.minimum(whole(tokens), 9)):
        total = np.zeros(39)
        for t in range(39):
            for symbol in range(4):
                changed = tokens.copy()
                changed[t + 1] = symbol
                total[t] += np.exp(-predict(changed, context)[t])
        np.testing.assert_allclose(total, 1, rtol=1e-12)


def assert_blind_to_the_future(predict) -> None:
    rng = np.random.default_rng(0)
    tokens = Markov(4, 0.3).batch(rng, 1, 40)[0]
    before = predict(tokens, whole(tokens))
    for t in range(38):
        changed = tokens.copy()
        changed[t + 2 :] = rng.integers(4, size=38 - t)  # after the target of t, which is tokens[t + 1]
        np.testing.assert_array_equal(predict(changed, whole(tokens))[: t + 1], before[: t + 1])


def assert_blind_to_what_lies_before_the_context(predict) -> None:
    rng = np.random.default_rng(0)
    tokens = Markov(4, 0.3).batch(rng, 1, 40)[0]
    context = np.minimum(whole(tokens), 7)
    before = predict(tokens, context)
    for t in range(7, 39):
        changed = tokens.copy()
        changed[: t - 6] = rng.integers(4, size=t - 6)
        assert predict(changed, context)[t] == before[t]


def counts_its_own_target(tokens, context):
    return -np.log([pair_share(tokens[t - context[t] + 1 : t + 2], tokens[t], tokens[t + 1]) for t in range(len(context))])


def counts_the_whole_document(tokens, context):
    return -np.log([pair_share(tokens, tokens[t], tokens[t + 1]) for t in range(len(context))])


def pair_share(seen, x, y) -> float:
    pairs = list(pairwise(seen))
    return (pairs.count((x, y)) + 0.3) / (sum(first == x for first, _ in pairs) + 1.2)


def test_the_floor_sees_its_context_and_nothing_else():
    source = Markov(4, 0.3)
    for predict in (source.posterior_nll, source.symbol_nll):
        assert_sums_to_one(predict)
        assert_blind_to_the_future(predict)
        assert_blind_to_what_lies_before_the_context(predict)


@pytest.mark.parametrize(
    ("check", "mutant"),
    [(assert_sums_to_one, counts_its_own_target), (assert_blind_to_the_future, counts_the_whole_document)],
)
def test_a_floor_that_sees_the_future_is_noticed(check, mutant):
    with pytest.raises(AssertionError):
        check(mutant)


def test_a_floor_that_ignores_its_window_is_noticed():
    source = Markov(4, 0.3)
    with pytest.raises(AssertionError):
        assert_blind_to_what_lies_before_the_context(lambda tokens, context: source.posterior_nll(tokens, whole(tokens)))


# nobody is better


def test_only_an_oracle_beats_the_floor():
    source = Markov(8, 0.3)
    documents, matrices = draw(source, 300, 201, seed=1)
    floor = np.array([source.posterior_nll(tokens, whole(tokens)).mean() for tokens in documents])
    oracle = [-np.log(p[tokens[:-1], tokens[1:]]).mean() for tokens, p in zip(documents, matrices, strict=True)]
    assert (floor - oracle).mean() > 5 * standard_error(floor - oracle)
    others = {
        "alpha too small": lambda tokens: Markov(8, 0.15).posterior_nll(tokens, whole(tokens)),
        "alpha too large": lambda tokens: Markov(8, 0.6).posterior_nll(tokens, whole(tokens)),
        "add one": lambda tokens: Markov(8, 1.0).posterior_nll(tokens, whole(tokens)),
        "last 64": lambda tokens: source.posterior_nll(tokens, np.minimum(whole(tokens), 64)),
        "symbol counts": lambda tokens: source.symbol_nll(tokens, whole(tokens)),
        "uniform": lambda tokens: np.full(200, np.log(8)),
        "half floor, half uniform": lambda tokens: (
            -np.log(np.exp(-source.posterior_nll(tokens, whole(tokens))) / 2 + 1 / 16)
        ),
    }
    for name, predict in others.items():
        worse = np.array([predict(tokens).mean() for tokens in documents]) - floor
        assert worse.mean() > 4 * standard_error(worse), name


def test_the_floor_is_the_probability_that_symbols_are_drawn_with():
    """If y is drawn from p, the mean of q(y) / p(y) is 1 for any other distribution q; for a wrong p it is not."""
    source = Markov(4, 0.5)
    documents, _ = draw(source, 2000, 12, seed=2)
    for other in (Markov(4, 2.0), Markov(4, 0.1)):
        for floor, fits in ((source, True), (Markov(4, 0.8), False)):
            ratio = [
                np.exp(floor.posterior_nll(tokens, whole(tokens)) - other.posterior_nll(tokens, whole(tokens))).mean()
                for tokens in documents
            ]
            assert (abs(np.mean(ratio) - 1) < 4 * standard_error(ratio)) == fits


def test_more_context_always_helps_by_the_known_amount():
    source = Markov(8, 0.3)
    documents, _ = draw(source, 150, 1025, seed=3)

    def last_64(window):
        return np.array([source.posterior_nll(d, np.minimum(whole(d), window))[-64:].mean() for d in documents])

    windows = [last_64(window) for window in (1, 8, 64, 128, 256, 512, 1024)]
    for shorter, longer in pairwise(windows):
        gain = shorter - longer
        assert gain.mean() > 3 * standard_error(gain)


@pytest.mark.slow
def test_far_from_the_start_the_floor_lies_half_a_nat_a_parameter_and_token_above_the_oracle():
    """What is not known yet of V rows with V - 1 free parameters costs V (V - 1) / (2 n) nats after n tokens."""
    source = Markov(3, 2.0)
    documents, matrices = draw(source, 3000, 401, seed=4)
    cost = np.array([
        (source.posterior_nll(tokens, whole(tokens)) + np.log(p[tokens[:-1], tokens[1:]]))[-100:].mean()
        for tokens, p in zip(documents, matrices, strict=True)
    ])  # fmt: skip
    expected = (3 * 2 / 2 / np.arange(301, 401)).mean()
    assert standard_error(cost) < 0.05 * expected
    assert cost.mean() == pytest.approx(expected, rel=0.15)


def first_symbol_gain(source: Markov, context_len: int, n_documents: int, n_samples: int) -> np.ndarray:
    """Nats a token that a context inside a document gives beyond its transitions, one estimate a document.

    Its first symbol x is the likelier, the more often the chain comes to x. Matrices are drawn from the posterior of
    the transitions and weighted by the probability of x 128 steps after a uniform start (the stationary one, all but).
    Half the squared relative difference is the divergence; two halves of the samples keep it free of bias.
    """
    n, alpha, start = source.vocab_size, source.alpha, 128
    rng = np.random.default_rng(5)
    found = []
    for tokens in source.batch(rng, n_documents, start + context_len)[:, start:]:
        counts = np.full((n, n), alpha)
        np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
        posterior = counts[tokens[-1]] / counts[tokens[-1]].sum()
        differences = []
        for _ in range(2):
            matrices = rng.standard_gamma(counts, size=(n_samples, n, n))
            matrices /= matrices.sum(axis=-1, keepdims=True)
            later = matrices
            for _ in range(7):  # to the power 128
                later = later @ later
            weight = later.mean(axis=1)[:, tokens[0]]
            differences.append((weight - weight.mean()) @ (matrices[:, tokens[-1]] - posterior) / weight.sum())
        found.append((differences[0] * differences[1] / posterior).sum() / 2)
    return np.array(found)


@pytest.mark.slow
def test_what_the_first_symbol_of_a_context_tells_is_negligible():
    """Left out of the floor: below 0.0005 nats a token after 128 tokens, where the floor lies near 1.39."""
    source = Markov(8, 0.3)
    gain = first_symbol_gain(source, 128, 150, 500)
    assert gain.mean() + 4 * standard_error(gain) < 5e-4
    alone = first_symbol_gain(source, 1, 100, 300)  # where that symbol is all there is, it tells something
    assert alone.mean() - 4 * standard_error(alone) > 5e-3


# the source


def test_transitions_follow_the_drawn_matrix():
    source = Markov(4, 2.0)
    documents, matrices = draw(source, 200, 1001, seed=6)
    statistic = freedom = 0
    for tokens, p in zip(documents, matrices, strict=True):
        counts = np.zeros((4, 4))
        np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
        expected = counts.sum(axis=1, keepdims=True) * p
        rows = (expected >= 5).all(axis=1)  # what chi-squared needs
        statistic += ((counts - expected) ** 2 / expected)[rows].sum()
        freedom += 3 * rows.sum()
    assert freedom > 2000
    assert 1e-4 < chi2(freedom).sf(statistic) < 1 - 1e-4


def test_every_document_has_a_matrix_of_its_own_from_the_prior():
    _, matrices = draw(Markov(8, 0.3), 2000, 2, seed=7)
    rows = matrices.reshape(-1, 8)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    assert rows.mean(axis=0) == pytest.approx(np.full(8, 1 / 8), abs=0.01)
    # the variance of an entry is (1/V) (1 - 1/V) / (alpha V + 1)
    assert rows.var(axis=0) == pytest.approx(np.full(8, 7 / 64 / 3.4), rel=0.05)
    first, second = matrices[0], matrices[1]
    assert abs(first - second).max() > 0.1


def test_the_first_symbol_is_uniform():
    first = Markov(8, 0.3).batch(np.random.default_rng(8), 16_000, 1)[:, 0]
    assert chisquare(np.bincount(first, minlength=8)).pvalue > 1e-4


@pytest.mark.parametrize(("n_symbols", "alpha"), [(2, 0.01), (256, 0.05), (3, 1e6)])
def test_tokens_stay_within_the_vocabulary(n_symbols, alpha):
    tokens = Markov(n_symbols, alpha).batch(np.random.default_rng(9), 20, 50)
    assert tokens.dtype == np.int64
    assert tokens.min() >= 0
    assert tokens.max() < n_symbols


def test_held_out_documents_do_not_depend_on_what_is_asked_for():
    source = Markov(8, 0.3)
    few, many = source.held_out(100, 3), source.held_out(140, 10)
    np.testing.assert_array_equal(few.tokens, many.tokens[:3, :100])
    assert few.documents == many.documents[:3]
    assert many.segments == [0] * 10
    assert len(set(many.documents)) == 10
    assert len({tuple(tokens) for tokens in many.tokens}) == 10
    np.testing.assert_array_equal(Markov(8, 0.3).held_out(100, 3).tokens, few.tokens)
    assert (Markov(8, 0.31).held_out(100, 3).tokens != few.tokens).any()


def test_the_digest_tells_sources_apart():
    digests = [Markov(*settings).describe()["sha256"] for settings in ((8, 0.3), (8, 0.31), (4, 0.3), (8, 0.3))]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


@pytest.mark.parametrize(
    ("n_symbols", "alpha"), [(1, 0.3), (257, 0.3), (8, 0.0), (8, -1.0), (8, float("nan")), (8, float("inf"))]
)
def test_impossible_sources_are_refused(n_symbols, alpha):
    with pytest.raises(UserError, match=r"^data\.(vocab_size|alpha): expected .* found [^\n]+$"):
        Markov(n_symbols, alpha)


# its rows


SMALL = [
    "experiment=markov", "position=rope", "seed=0", "train.train_len=12", "eval.lengths=[8,12,20,30]", "eval.n_segments=3",
    "eval.n_targets=5", "eval.stride=3", "eval.windows=[12]",
]  # fmt: skip


def rows_of(*overrides):
    config = compose_grid([*SMALL, *overrides])[0]
    source = build(config.data, "data", "extrap.data")
    return config, source, reference_rows(config, source, build(config.objective, "objective", "extrap.objectives"))


def test_pseudo_alone_has_a_table_without_rows():
    _, _, rows = rows_of("objective=mlm", "eval.protocols=[pseudo]", "eval.n_pseudo=5")
    assert rows.empty
    assert list(rows.columns) == COLUMNS


def test_reference_rows_equal_a_direct_loop():
    _, source, rows = rows_of("eval.whole_every=1")
    assert list(rows.columns) == COLUMNS
    assert set(rows["scheme"]) == {"unigram", "floor", "floor, last 12", "symbol counts"}
    assert len(rows) == 4 * (2 * 4 + 1) * 3
    n = source.vocab_size
    for d in range(3):
        tokens = source.held_out(31, 3).tokens[d]
        for eval_len in (8, 12, 20, 30):
            windows = {  # where the context of each scored t begins; t is predicted from tokens[begin : t]
                "nonoverlap": [((t - 1) // eval_len * eval_len, t) for t in range(1, 31)],
                "same_targets": [(30 - eval_len, t) for t in range(26, 31)],
            }
            if eval_len == 12:  # every 3 tokens a window of 12, the last 3 of which are scored
                begins = [max(0, -(-t // 3) * 3 - 12) for t in range(1, 31)]
                windows["sliding(stride=3)"] = list(zip(begins, range(1, 31), strict=True))
            for protocol, scored in windows.items():
                floor = near = counts = 0.0
                for begin, t in scored:
                    context, nll = tokens[begin:t], {}
                    for kind, seen in (("floor", context), ("near", context[-12:])):
                        pairs = list(pairwise(seen))
                        n_x = sum(x == tokens[t - 1] for x, _ in pairs)
                        nll[kind] = -np.log(
                            (pairs.count((tokens[t - 1], tokens[t])) + source.alpha) / (n_x + source.alpha * n)
                        )
                    floor, near = floor + nll["floor"], near + nll["near"]
                    counts -= np.log((list(context).count(tokens[t]) + 1) / (len(context) + n))
                chosen = (
                    (rows["protocol"] == protocol)
                    & (rows["eval_len"] == eval_len)
                    & (rows["document"] == f"document-{d:04d}")
                )
                cell = rows[chosen].set_index("kind")
                unigram = len(scored) * np.log(n)
                expected = {"floor": floor, "window_floor": near, "plateau": counts, "unigram": unigram}
                for kind, value in expected.items():
                    assert cell.loc[kind, "nll_sum"] == pytest.approx(value, rel=0, abs=ROUNDED), (protocol, eval_len, kind)
                    assert cell.loc[kind, "n_tokens"] == cell.loc[kind, "n_bytes"] == len(scored)


def test_reference_rows_score_the_same_segments_at_every_length():
    _, _, rows = rows_of()
    for _, cell in rows.groupby(["kind", "protocol"]):
        scored = [
            set(part[["document", "segment", "n_tokens"]].itertuples(index=False)) for _, part in cell.groupby("eval_len")
        ]
        assert all(part == scored[0] for part in scored)


def test_up_to_the_training_length_a_window_of_that_length_is_no_window():
    _, _, rows = rows_of()
    losses = rows.pivot(index=["protocol", "eval_len", "document"], columns="kind", values="nll_sum").reset_index()
    short = losses[losses["eval_len"] <= 12]
    assert (short["floor"] == short["window_floor"]).all()
    assert (losses[losses["eval_len"] > 12]["floor"] != losses[losses["eval_len"] > 12]["window_floor"]).any()


@pytest.mark.parametrize("overrides", [["objective=mlm"], ["data=stdlib"], ["data=stdlib", "objective=mlm"]])
def test_where_no_floor_is_known_there_are_frequencies_alone(overrides):
    config, source, rows = rows_of(*overrides)
    assert set(rows["kind"]) == {"unigram"}
    assert list(rows.columns) == COLUMNS
    held_out, batch = held_out_batch(source, build(config.objective, "objective", "extrap.objectives"), config.eval)
    for s in range(3):
        targets = batch.targets[s][batch.scored[s]]
        expected = sum(-np.log((seen(source, x) + 1) / (seen(source, None) + source.vocab_size)) for x in targets)
        cell = rows[(rows["protocol"] == "nonoverlap") & (rows["document"] == held_out.documents[s])]
        for nll_sum in cell.loc[cell["segment"] == held_out.segments[s], "nll_sum"]:
            assert nll_sum == pytest.approx(expected, rel=0, abs=ROUNDED)


def seen(source, token) -> int:
    """How often a byte stands in the training text, or any byte; in a chain all symbols are alike."""
    text = b"".join(getattr(source, "train", {"": b""}).values())
    return len(text) if token is None else text.count(bytes([token]))


def test_the_default_source_is_the_one_that_the_bounds_above_are_stated_for():
    assert compose_grid(["experiment=markov", "position=rope", "seed=0"])[0].data == {
        "_target_": "extrap.data.markov.Markov", "vocab_size": 8, "alpha": 0.3,
    }  # fmt: skip
