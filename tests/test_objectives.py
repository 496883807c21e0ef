"""Objectives: what is hidden stays hidden, what is scored is what stands there, and a uniform model scores V."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.objectives import Batch, Causal, Mlm
from extrap.runs.run import build_encoder
from extrap.score.evaluate import evaluate
from extrap.stats.perplexity import perplexity
from extrap.sweep.checks import prepare_grid

V = 7
SOURCE = SimpleNamespace(vocab_size=V)


def tokens_of(n_rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(V, size=(n_rows, length))


def batch_of(objective: Mlm | Causal, tokens: np.ndarray, seed: int = 0) -> Batch:
    return objective.batch(tokens, SOURCE, np.random.default_rng(seed))


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(rate=st.floats(0.001, 0.999), length=st.integers(1, 200), seed=st.integers(0, 99))
def test_mlm_hides_a_fixed_number_in_every_row(rate, length, seed):
    batch = batch_of(Mlm(rate), tokens_of(4, length), seed)
    assert (batch.scored.sum(axis=1) == max(1, round(rate * length))).all()


def test_mlm_replaces_exactly_what_is_scored_by_a_token_of_its_own():
    objective, tokens = Mlm(0.3), tokens_of(50, 40)
    before = tokens.copy()
    batch = batch_of(objective, tokens)
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(batch.targets, tokens)
    np.testing.assert_array_equal(batch.inputs[~batch.scored], tokens[~batch.scored])
    assert (batch.inputs[batch.scored] == V).all()  # V is no data token: those are 0 .. V - 1
    assert tokens.max() < V == objective.n_inputs(V) - 1
    assert batch.inputs.dtype == batch.targets.dtype == np.int64


def assert_tells_nothing_of_what_is_hidden(make_batch) -> None:
    tokens = tokens_of(50, 40)
    batch = make_batch(tokens)
    changed = np.where(batch.scored, (tokens + 1 + tokens_of(50, 40, seed=1) % (V - 1)) % V, tokens)
    assert (changed != tokens)[batch.scored].all()
    again = make_batch(changed)
    np.testing.assert_array_equal(again.scored, batch.scored)
    np.testing.assert_array_equal(again.inputs, batch.inputs)


def in_bert_s_way(tokens: np.ndarray) -> Batch:
    """80 % [MASK], 10 % another token, 10 % the token itself."""
    batch = batch_of(Mlm(0.15), tokens)
    lot = np.random.default_rng(2).random(tokens.shape)
    replaced = np.where(lot < 0.8, V, np.where(lot < 0.9, tokens_of(50, 40, seed=3), tokens))
    return batch._replace(inputs=np.where(batch.scored, replaced, tokens))


def unmasked(tokens: np.ndarray) -> Batch:
    return batch_of(Mlm(0.15), tokens)._replace(inputs=tokens)


def where_tokens_are_rare(tokens: np.ndarray) -> Batch:
    scored = tokens == tokens.max()
    return Batch(np.where(scored, V, tokens), tokens, scored)


def test_mlm_inputs_tell_nothing_of_what_is_hidden():
    assert_tells_nothing_of_what_is_hidden(lambda tokens: batch_of(Mlm(0.15), tokens))


@pytest.mark.parametrize("mutant", [in_bert_s_way, unmasked, where_tokens_are_rare])
def test_a_leak_is_noticed(mutant):
    with pytest.raises(AssertionError):
        assert_tells_nothing_of_what_is_hidden(mutant)


def test_every_position_is_hidden_equally_often():
    batch = batch_of(Mlm(0.2), tokens_of(10_000, 20))
    assert chisquare(batch.scored.sum(axis=0)).pvalue > 1e-4


def test_masks_depend_on_the_generator_and_stay_when_rows_are_added():
    few, many = batch_of(Mlm(0.15), tokens_of(5, 40)), batch_of(Mlm(0.15), tokens_of(9, 40))
    np.testing.assert_array_equal(few.scored, many.scored[:5])
    assert (batch_of(Mlm(0.15), tokens_of(5, 40), seed=1).scored != few.scored).any()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 15.0, float("nan")])
def test_an_impossible_mask_rate_is_refused(rate):
    with pytest.raises(UserError, match=r"^objective\.mask_rate: expected a share between 0 and 1, found .*$"):
        Mlm(rate)


def test_causal_predicts_the_next_token_everywhere():
    objective, tokens = Causal(), tokens_of(5, 40 + Causal.extra_tokens)
    batch = batch_of(objective, tokens)
    assert batch.inputs.shape == batch.targets.shape == batch.scored.shape == (5, 40)
    for t in range(40):
        np.testing.assert_array_equal(batch.inputs[:, t], tokens[:, t])
        np.testing.assert_array_equal(batch.targets[:, t], tokens[:, t + 1])
    assert batch.scored.all()
    assert objective.n_inputs(V) == V  # no token but data


@pytest.mark.parametrize("objective", ["mlm", "causal"])
def test_a_uniform_model_has_a_perplexity_of_exactly_v(tmp_path, objective):
    overrides = ["experiment=smoke", "position=alibi", "seed=0", "data=markov", f"objective={objective}",
                 "data.vocab_size=8", "train.train_len=16", "eval.lengths=[16,40]", "eval.n_segments=8",
                 "eval.n_targets=10", "eval.stride=8"]  # fmt: skip
    cell = prepare_grid(compose_grid([*overrides, f"runtime.results_dir={tmp_path}"]))[0]
    encoder = build_encoder(cell)
    with torch.no_grad():
        encoder.unembedding.weight.zero_()  # every data token equally likely; [MASK] is none of them
    rows = evaluate(encoder, cell.source, cell.objective, cell.config.eval).rows
    log_ppl = perplexity(rows, ["protocol", "eval_len"])["log_ppl"]
    assert len(log_ppl) == 2 + 2 + 1  # nonoverlap and same_targets at two lengths, sliding at one
    assert np.exp(log_ppl).to_numpy() == pytest.approx(8, rel=1e-6)  # losses of a token are float32
