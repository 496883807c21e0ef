"""A discriminator and its generator: who learns from what, and what each is scored on."""

import dataclasses
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare

from extrap.config.choices import Precision
from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.model import electra
from extrap.model.encoder import Encoder
from extrap.objectives import Electra, Mlm, Rtd, parts_of
from extrap.report.report import gather
from extrap.results.rows import collect, collect_training
from extrap.runs.run import build_encoder, execute, write_references
from extrap.runs.trained import load_encoder
from extrap.score.evaluate import evaluate
from extrap.score.protocols import held_out_batch
from extrap.stats.statistics import Statistics
from extrap.sweep.checks import prepare_grid
from extrap.train.loop import TrainingLoss, clip, held_out_sequences, loss_on, training_batch
from extrap.train.optimizer import make_optimizers

V = 8


def cells(results, *overrides):
    given = [
        "experiment=smoke", "position=rope,learned", "seed=0", "data=markov", "objective=electra", f"data.vocab_size={V}",
        "train.train_len=16", "train.max_steps=12", "train.batch_size=4", "eval.lengths=[16,40]", "eval.n_segments=8",
        "eval.n_targets=10", "eval.protocols=[nonoverlap,same_targets]", "eval.extensions=[none]",
    ]  # fmt: skip
    return prepare_grid(compose_grid([*given, f"runtime.results_dir={results}", *overrides]))


@pytest.fixture
def run(tmp_path):
    return cells(tmp_path)[0]


@pytest.fixture
def batch(run):
    return training_batch(run.source, run.objective, run.config.train, 0, 0)


def loss_of(pair, batch):
    torch.manual_seed(3)
    return TrainingLoss(pair, Precision.fp32)(*batch)


def gradients(pair, batch, of_generator, of_discriminator):
    pair.weights = of_generator, of_discriminator
    pair.zero_grad()
    loss_of(pair, batch).backward()
    return {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in pair.named_parameters()}


def test_the_generator_is_a_quarter_as_wide_and_has_the_same_scheme_in_as_many_heads(run):
    pair = build_encoder(run)
    sizes, small = run.config.model, run.objective.generator(run.config.model)
    assert (small.d_model, small.d_ff, small.n_layers) == (sizes.d_model // 4, sizes.d_ff // 4, sizes.n_layers)
    assert small.n_heads == sizes.n_heads
    assert type(pair.generator.scheme) is type(pair.scheme)
    assert pair.generator.scheme is not pair.scheme
    assert pair.generator.scheme.geometry.d_model == small.d_model
    assert (pair.n_outputs, pair.generator.n_outputs) == (2, V)
    assert pair.embedding.weight.shape[0] == V + 1  # [MASK] is read by the generator
    assert pair.generator.embedding.table is pair.embedding


def test_the_discriminator_reads_samples_where_tokens_were_hidden_and_no_mask(run, batch, monkeypatch):
    pair, read = build_encoder(run).train(), []
    true_forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, tokens, at=None: (
        read.append((self, tokens)), true_forward(self, tokens, at))[1])  # fmt: skip
    drawn = []
    monkeypatch.setattr(electra, "sample", lambda logits: drawn.append(torch.arange(len(logits)) % V) or drawn[0])
    loss = loss_of(pair, batch)
    (generator, masked), (discriminator, corrupted) = read
    assert (generator, discriminator) == (pair.generator, pair)
    hidden = torch.zeros(masked.numel(), dtype=torch.bool).index_fill(0, batch.scored, True).view_as(masked)
    assert (masked == V).eq(hidden).all()
    assert torch.equal(corrupted[hidden], drawn[0])
    assert torch.equal(corrupted[~hidden], masked[~hidden])
    labels = torch.zeros_like(masked)
    labels[hidden] = (drawn[0] != batch.targets).long()  # a right guess is original
    assert 0 < (drawn[0] == batch.targets).sum() < len(drawn[0])
    with torch.no_grad():
        logits = pair.logits(true_forward(pair, corrupted)).flatten(0, 1)
        of_generator = pair.generator.loss(batch.inputs, batch.scored, batch.targets)
        expected = 1 * of_generator + 50 * F.cross_entropy(logits, labels.flatten())  # everywhere, not at the hidden alone
    torch.testing.assert_close(loss, expected)


def test_no_gradient_of_the_discriminator_reaches_the_generator(run, batch):
    pair = build_encoder(run).train()
    of_discriminator = gradients(pair, batch, 0.0, 1.0)
    assert not any(size for name, size in of_discriminator.items() if name.startswith("generator."))
    assert of_discriminator["embedding.weight"] > 0
    of_generator = gradients(pair, batch, 1.0, 0.0)
    own = {name for name, size in of_generator.items() if size > 0}
    assert {name for name in own if not name.startswith("generator.")} == {"embedding.weight"}  # which they share
    assert own > {"generator.unembedding.weight", "generator.embedding.project.weight"}


def test_tables_are_apart_where_they_are_not_shared(tmp_path):
    run = cells(tmp_path, "objective.share_tokens=false")[0]
    pair = build_encoder(run).train()
    found = gradients(pair, training_batch(run.source, run.objective, run.config.train, 0, 0), 1.0, 0.0)
    assert found["embedding.weight"] == 0
    assert found["generator.embedding.weight"] > 0


def test_samples_come_as_often_as_they_should_whatever_the_precision():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).expand(40_000, 4)
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        drawn = electra.sample(logits.to(dtype))
        expected = len(logits) * logits[0].softmax(0).double().numpy()
        assert chisquare(np.bincount(drawn.numpy(), minlength=4), expected * len(logits) / expected.sum()).pvalue > 1e-4


def test_the_gradients_of_the_two_are_clipped_apart(run, batch):
    pair = build_encoder(run).train()
    model = TrainingLoss(pair, Precision.fp32)
    loss_of(pair, batch).backward()
    for parameter in pair.generator.parameters():
        if parameter is not pair.embedding.weight:
            parameter.grad *= 1e-6  # far below the bound: they stay what they are, whatever the others come to
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    clip(model, 0.01)
    generator = [name for name in before if ".generator." in name]
    assert generator
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, before[name]) == (name in generator)


def test_both_have_muon_for_their_matrices(run):
    pair = build_encoder(run)
    config = dataclasses.replace(run.config.train, optimizer=type(run.config.train.optimizer).muon)
    muon, adamw = make_optimizers(pair, config)
    matrices = {p for group in muon.param_groups for p in group["params"]}
    assert matrices == {p for net in pair.networks() for name, p in net.blocks.named_parameters() if p.dim() == 2}
    others = {p for group in adamw.param_groups for p in group["params"]}
    assert matrices | others == {*pair.parameters()}
    assert not matrices & others


def test_it_is_scored_on_the_text_of_rtd_and_its_generator_as_a_masked_language_model(run, undrawn):
    pair = build_encoder(run).eval()
    of_discriminator = evaluate(pair, run.source, Rtd(0.15), run.config.eval).rows
    of_generator = evaluate(pair.generator, run.source, Mlm(0.15), run.config.eval).rows
    parts = parts_of(run.objective)
    assert [*parts] == ["", "generator"]
    for one, other in zip(held_out_batch(run.source, parts[""], run.config.eval)[1],
                          held_out_batch(run.source, Rtd(0.15), run.config.eval)[1], strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    execute_with(run, pair, of_discriminator, of_generator)


def in_order(rows):
    return rows.sort_values(["extension", "protocol", "eval_len", "document", "segment"], ignore_index=True)


def execute_with(run, pair, of_discriminator, of_generator):
    """The run's own rows, of the trained pair, are of these very tokens."""
    execute(run)
    write_references(run)
    gather(run.config.results.parent, run.config.name, "a sweep")
    pair.load_state_dict(load_encoder(run).state_dict())
    rows = collect(run.folder.path.parent)
    schemes = rows[rows["kind"] == "scheme"]
    told = dict([*schemes.groupby("objective")])
    assert {*told} == {"electra", "electra_generator"}
    for name, expected in (("electra", of_discriminator), ("electra_generator", of_generator)):
        own, expected = in_order(told[name]), in_order(expected)
        pd.testing.assert_frame_equal(own[["protocol", "eval_len", "document", "n_tokens"]],
                                      expected[["protocol", "eval_len", "document", "n_tokens"]])  # fmt: skip
        network, objective = (pair, Rtd(0.15)) if name == "electra" else (pair.generator, Mlm(0.15))
        again = in_order(evaluate(network, run.source, objective, run.config.eval).rows)
        np.testing.assert_array_equal(own["nll_sum"], again["nll_sum"])
    references = rows[rows["kind"] != "scheme"].groupby("objective")["kind"].unique()
    assert {*references["electra"]} == {"rate", "byte", "neighbours"}
    assert {*references["electra_generator"]} == {"unigram"}
    training = collect_training(run.folder.path.parent)
    assert {*training["run"]} == {run.config.run}  # its loss is told once
    found = Statistics(rows, training=training)
    assert len(found.groups) == 2
    shutil.rmtree(run.config.folder.parent)
    assert prepare_grid([run.config])  # a tracked report can be made again


def test_what_is_seen_of_it_in_training_is_the_discriminator_on_held_out_text(run):
    pair = build_encoder(run)
    batch = held_out_sequences(run.source, run.objective, run.config.train)
    assert batch.inputs.max() < V
    assert len(batch.scored) == batch.inputs.numel()
    with torch.no_grad():
        pair.unembedding.weight.zero_()
    assert loss_on(pair, batch, 16) == pytest.approx(math.log(2), rel=1e-6)
    assert pair.guessing() == pytest.approx(math.log(V) + 50 * math.log(2))


@pytest.mark.parametrize(("overrides", "message"), [
    (["objective.width=0.3"], r"^objective\.width: 0\.3 of model\.d_model=\d+ and model\.d_ff=\d+ are .*; expected whole"),
    (["objective.disc_weight=0"], r"^objective\.disc_weight: expected a positive number, found 0\.0$"),
])  # fmt: skip
def test_what_it_cannot_be_is_told(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        cells(tmp_path, *overrides)


def test_defaults_are_those_of_the_paper():
    objective = Electra()
    assert (objective.mask_rate, objective.width, objective.weights, objective.share_tokens) == (0.15, 0.25, (1, 50), True)
