"""A GPU gives the same answers. Run by `make test-all` where there is one."""

import copy

import numpy as np
import pytest
import torch
from test_attention import check_path
from test_positions import layers
from torch.testing import assert_close

from extrap.config.compose import compose_grid
from extrap.config.schema import Precision
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.score.evaluate import evaluate
from extrap.train.loop import TrainingLoss, train_step, training_batch
from extrap.train.optimizer import make_optimizers

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


def test_evaluation(cell):
    config, source, objective, *_ = cell
    rows = [evaluate(build_encoder(cell).to(device), source, objective, config.eval).rows for device in ("cpu", "cuda")]
    assert (rows[0]["n_tokens"] == rows[1]["n_tokens"]).all()
    assert np.allclose(rows[0]["nll_sum"], rows[1]["nll_sum"], rtol=1e-5)
