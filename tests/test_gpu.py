"""A GPU gives the same answers. Run by `make test-all` where there is one."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from checking import check_path, inputs, layers
from torch.testing import assert_close

from extrap.config.choices import Precision
from extrap.config.compose import compose_grid
from extrap.model.attention import prepare as prepare_attention
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.score.evaluate import evaluate
from extrap.testing.case import define
from extrap.train.loop import TrainingLoss, train_step, training_batch
from extrap.train.optimizer import make_optimizers
from extrap.train.stacked import train_stacked

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("seq_len", [1, 45, 257, 515, 1237])
def test_every_path_of_every_scheme(case, causal, training, seq_len, scheme_of):
    for layer in layers(scheme_of(case, causal, train_len=1237)):
        check_path(layer, seq_len, training, device="cuda")


@pytest.fixture
def cell(case):
    position, *options = case.split()
    return prepare(compose_grid(["experiment=smoke", "seed=0", f"position={position}", *options])[0])


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_a_step_of_training(cell, precision):
    config, source, objective, *_ = cell
    batch = training_batch(source, objective, config.train, config.seed, 0)
    losses = []
    for device in ("cpu", "cuda"):
        encoder = copy.deepcopy(build_encoder(cell)).to(device).train()
        optimizers = make_optimizers(encoder, config.train)
        model = TrainingLoss(encoder, precision)
        there = tuple(part.to(device) for part in batch)
        losses.append([train_step(model, optimizers, there, 1.0)[0].item() for _ in range(3)])
    assert losses[0][0] > losses[0][-1]
    assert_close(losses[1], losses[0], rtol=0, atol=1e-4 if precision is Precision.fp32 else 2e-2)


@pytest.mark.parametrize("seq_len", [64, 1237])
def test_training_waits_for_nothing(cell, seq_len):
    config, source, objective, *_ = cell
    train = dataclasses.replace(config.train, train_len=seq_len)
    read = dataclasses.replace(config.eval, lengths=[seq_len], windows=[seq_len])
    config = dataclasses.replace(config, train=train, eval=read)
    encoder = build_encoder(cell._replace(config=config)).to("cuda").train()
    model, optimizers = TrainingLoss(encoder, Precision.bf16), make_optimizers(encoder, train)
    batches = [training_batch(source, objective, train, config.seed, step) for step in range(3)]
    train_step(model, optimizers, batches[0].to(torch.device("cuda")), 1.0)  # the first makes what the others use
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps = [train_step(model, optimizers, batch.to(torch.device("cuda")), 1.0) for batch in batches[1:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(loss.isfinite() and grad_norm.isfinite() for loss, grad_norm in steps)


@pytest.mark.parametrize("seq_len", [45, 1237])
def test_training_in_bfloat16_is_that_in_float32_rounded(case, causal, seq_len, scheme_of):
    for layer in layers(scheme_of(case, causal, train_len=1237)):
        layer = layer.to("cuda")
        pos = layer.positions(seq_len, torch.device("cuda"))
        tensors = [x.to("cuda", torch.bfloat16) for x in inputs(layer.geometry, seq_len)]
        tensors.append(torch.randn(1, seq_len, layer.geometry.d_model, device="cuda", dtype=torch.bfloat16))
        exact = define(layer, pos, training=True)(*(x.float() for x in tensors))
        with torch.autocast("cuda", torch.bfloat16):
            rounded = prepare_attention(layer, pos, training=True)(*tensors)
        assert rounded.dtype == torch.bfloat16
        error = (rounded.float() - exact).abs()
        # bfloat16 keeps 8 bits, 2**-8 of values near 1: what turned queries and keys, weights and outputs lose comes to less
        # on average, and to more where all of them are rounded to the same side
        assert error.square().mean().sqrt() < 2**-8
        assert error.max() < 2**-5


def test_models_trained_as_one(cell):
    config, source, objective, *_ = cell
    encoders = [build_encoder(cell) for _ in range(4)]
    there = [copy.deepcopy(encoder).to("cuda") for encoder in encoders[:2]]
    known = {"seeds": [0, 1], "precision": Precision.fp32}
    losses, on_gpu = (train_stacked(some, source, objective, config.train, **known) for some in (encoders[:2], there))
    assert_close(on_gpu, losses, rtol=0, atol=1e-2)
    assert_close(on_gpu[0], losses[0], rtol=0, atol=1e-4)


def test_evaluation(cell):
    config, source, objective, *_ = cell
    rows = [evaluate(build_encoder(cell).to(device), source, objective, config.eval).rows for device in ("cpu", "cuda")]
    assert (rows[0]["n_tokens"] == rows[1]["n_tokens"]).all()
    assert np.allclose(rows[0]["nll_sum"], rows[1]["nll_sum"], rtol=1e-5)
