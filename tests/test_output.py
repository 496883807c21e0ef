"""Tied outputs: how fast they learn beside an untied one, where they start, and what they are."""

import copy
import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from marks import slow
from torch import nn
from torch.testing import assert_close

from extrap.config.choices import Output, Precision
from extrap.config.compose import compose_grid
from extrap.config.schema import ModelConfig
from extrap.model.encoder import Encoder, n_parameters
from extrap.positions.base import TABLE_STD, Geometry
from extrap.positions.nope import Nope
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.train.loop import TrainingLoss, train_step, training_batch
from extrap.train.optimizer import make_optimizers, set_rates
from extrap.train.stacked import train_stacked

WIDTHS = [32, *slow(64, 128, 256), 512]
SIZES = [257, *slow(4096)]
TIED = [Output.tied, Output.tied_head]


def sizes_of(output: Output, d_model: int) -> ModelConfig:
    return ModelConfig(d_model, n_layers=2, n_heads=2, d_ff=d_model, dropout=0.0, output=output)


def encoder_of(output: Output, d_model: int, vocab_size: int, causal: bool = True) -> Encoder:
    torch.manual_seed(0)
    return Encoder(sizes_of(output, d_model), Nope(Geometry(d_model, 2, 32, causal, 2)), vocab_size + 1, vocab_size)


@cache
def train_config(optimizer: str):
    return compose_grid(["experiment=smoke", "seed=0", "position=rope", f"train.optimizer={optimizer}"])[0].train


# how fast


def moved(encoder: Encoder, optimizer: str) -> tuple[float, float]:
    """By how far one step of training moves logits of given hidden states, and what is read of given tokens, each by a
    gradient of its own: the root of the mean square over those that have one."""
    torch.manual_seed(1)
    d_model = encoder.embedding.embedding_dim
    hidden = F.layer_norm(torch.randn(64, d_model), (d_model,))
    tokens, targets = torch.randint(encoder.n_outputs, (2, 64))
    slope = torch.randn(64, d_model)
    found = []
    asked = (lambda one: one.embedding(tokens), lambda x: (x * slope).sum())
    for part, loss in ((logits_of(hidden), lambda x: F.cross_entropy(x, targets)), asked):
        one = copy.deepcopy(encoder)
        loss(before := part(one)).backward()
        for own in make_optimizers(one, train_config(optimizer)):
            own.step()
        with torch.no_grad():
            found.append((part(one) - before).square().mean().sqrt().item())
    return found[0], found[1]


def logits_of(hidden: torch.Tensor):
    """Of the output table, behind whatever head there is."""

    def part(one: Encoder) -> torch.Tensor:
        if hasattr(one, "unembedding"):
            return one.unembedding(hidden)
        return one.embedding.logits(hidden, one.n_outputs)

    return part


def check_speeds(tied: Encoder, optimizer: str) -> None:
    """Logits move by 2 / sqrt(D) of those of an untied model, and what is read by sqrt(D) / 2, within 2 %: neither is
    further off than it must be."""
    d_model = tied.embedding.embedding_dim
    untied = encoder_of(Output.untied, d_model, tied.n_outputs)
    written, read = (mine / other for mine, other in zip(moved(tied, optimizer), moved(untied, optimizer), strict=True))
    assert written == pytest.approx(2 / d_model**0.5, rel=0.02)
    assert read == pytest.approx(d_model**0.5 / 2, rel=0.02)


@pytest.mark.parametrize("optimizer", ["muon", *slow("adamw")])
@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize("d_model", WIDTHS)
@pytest.mark.parametrize("output", TIED)
def test_a_step_moves_logits_and_what_is_read_as_much_alike_as_one_table_can(output, d_model, vocab_size, optimizer):
    check_speeds(encoder_of(output, d_model, vocab_size), optimizer)


@pytest.mark.parametrize("std", [TABLE_STD, 2 / 128])
def test_a_table_that_is_as_quick_at_one_end_alone_is_noticed(std):
    """Of before: as large as what is read. The other: as quick to write as one of its own."""
    encoder = encoder_of(Output.tied, 128, 257)
    encoder.embedding.read, encoder.embedding.write = TABLE_STD / std, 2 / (128 * std)
    with pytest.raises(AssertionError, match="comparison failed"):
        check_speeds(encoder, "muon")


def test_no_scale_is_nearer_to_an_untied_table_at_both_ends():
    for d_model in (32, 128, 512):
        table = encoder_of(Output.tied, d_model, 257).embedding
        assert table.read * table.std == pytest.approx(TABLE_STD)
        assert table.write * d_model * table.std == pytest.approx(2)
        off = {k: max(TABLE_STD / (k * table.std), d_model * k * table.std / 2) for k in (0.5, 0.9, 1, 1.1, 2)}
        assert min(off, key=off.__getitem__) == 1


# where they start


def loss_at_start(encoder: Encoder) -> float:
    """Of tokens that nothing tells: those that were read are seldom those to predict."""
    torch.manual_seed(2)
    tokens, targets = torch.randint(encoder.n_outputs, (2, 32, 32))
    with torch.no_grad():
        return F.cross_entropy(encoder.logits(encoder(tokens)).flatten(0, 1), targets.flatten()).item()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize("d_model", WIDTHS)
@pytest.mark.parametrize("output", Output)
def test_the_loss_at_the_start_is_near_log_v(output, d_model, vocab_size, causal):
    assert loss_at_start(encoder_of(output, d_model, vocab_size, causal)) == pytest.approx(math.log(vocab_size), abs=0.1)


@pytest.mark.parametrize("d_model", [128, *slow(512)])
def test_a_table_that_is_written_without_a_factor_starts_far_above(d_model):
    encoder = encoder_of(Output.tied, d_model, 257)
    encoder.embedding.write = 1.0
    assert loss_at_start(encoder) > math.log(257) + 1


@pytest.mark.parametrize("output", TIED)
def test_all_else_is_drawn_alike(output):
    untied, tied = encoder_of(Output.untied, 64, 257), encoder_of(output, 64, 257)
    for name, value in untied.state_dict().items():
        if name == "embedding.weight":
            assert_close(tied.embedding.read * tied.embedding.weight, value)
        elif name != "unembedding.weight":
            assert torch.equal(tied.state_dict()[name], value), name


# what they are


def test_logits_of_a_tied_table_are_products_with_what_is_read():
    encoder = encoder_of(Output.tied, 64, 257, causal=False)
    hidden, read = torch.randn(3, 5, 64), encoder.embedding(torch.arange(257))
    assert encoder.logits(hidden).shape == (3, 5, 257)  # [MASK], the last token that is read, is not written
    assert_close(encoder.logits(hidden), hidden @ read.T * 4 / 64)


def test_a_head_that_changes_nothing_is_a_tied_table():
    tied, behind = encoder_of(Output.tied, 64, 257), encoder_of(Output.tied_head, 64, 257)
    hidden = torch.randn(7, 64)
    assert not torch.allclose(tied.logits(hidden), behind.logits(hidden), atol=0.1)
    behind.head.forward = lambda x: x
    assert torch.equal(tied.logits(hidden), behind.logits(hidden))
    nn.init.normal_(behind.head.bias)
    assert_close(behind.logits(hidden), tied.logits(hidden) + behind.head.bias)


def test_a_head_is_that_of_bert():
    head = encoder_of(Output.tied_head, 64, 257).head
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, 64, dtype=torch.float64)
    y = x @ head.dense.weight.double().T + head.dense.bias.double()
    y = y * (1 + torch.erf(y / 2**0.5)) / 2
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert_close(head(x.float()).double(), y * head.norm.weight.double() + head.norm.bias.double(), rtol=1e-4, atol=1e-5)
    assert {name: tuple(value.shape) for name, value in head.named_parameters()} == {
        "bias": (257,), "dense.weight": (64, 64), "dense.bias": (64,), "norm.weight": (64,), "norm.bias": (64,),
    }  # fmt: skip


@pytest.mark.parametrize(("output", "more"), [(Output.tied, 0), (Output.tied_head, 128 * 128 + 3 * 128 + 256)])
def test_parameters_are_counted_without_memory(output, more):
    encoder = encoder_of(output, 128, 256)
    found = n_parameters(sizes_of(output, 128), encoder.scheme, 257, 256)
    of_blocks = 2 * (6 * 128**2 + 2 * 128)
    assert found == sum(parameter.numel() for parameter in encoder.parameters()) == 257 * 128 + of_blocks + 128 + more


def test_both_ends_learn(tmp_path):
    encoder = encoder_of(Output.tied_head, 32, 257)
    table = encoder.embedding.weight
    encoder.logits(torch.randn(4, 32)).square().sum().backward()
    of_output = table.grad.clone()
    assert (of_output[:257].abs().sum(dim=1) > 0).all()
    assert not of_output[257:].any()
    encoder(torch.tensor([[257, 3]])).square()[..., 0].sum().backward()
    assert (table.grad - of_output)[[257, 3]].abs().sum(dim=1).all()


SMALL = ["experiment=smoke", "data=markov", "position=rope", "train.train_len=16", "train.batch_size=4", "train.max_steps=8",
         "train.lr=5e-4", "train.muon_ratio=0.5", "train.precision=fp32", "eval.lengths=[16]"]  # fmt: skip


@pytest.mark.parametrize("output", [one.value for one in TIED])
def test_models_trained_as_one_are_those_trained_alone(output):
    runs = [prepare(compose_grid([*SMALL, f"seed={seed}", f"model.output={output}"])[0]) for seed in (0, 1)]
    source, objective, config = runs[0].source, runs[0].objective, runs[0].config.train
    together = [build_encoder(run) for run in runs]
    train_stacked(together, source, objective, config, seeds=[0, 1], precision=Precision.fp32)
    for seed, run in enumerate(runs):
        alone = build_encoder(run)
        train_alone(alone, run, seed)
        for name, value in alone.state_dict().items():
            assert_close(together[seed].state_dict()[name], value, rtol=0, atol=2e-6, msg=name)


def train_alone(encoder: Encoder, run, seed: int) -> None:
    config = run.config.train
    model, optimizers = TrainingLoss(encoder.train(), Precision.fp32), make_optimizers(encoder, config)
    for step in range(config.max_steps):
        set_rates(optimizers, step, config)
        batch = training_batch(run.source, run.objective, config, seed, step)
        train_step(model, optimizers, batch, config.grad_clip)
