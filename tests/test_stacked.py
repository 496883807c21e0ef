"""Several models trained as one become what each becomes alone."""

import copy
import itertools
import math

import pytest
import torch
from marks import slow
from torch import nn
from torch.testing import assert_close

from extrap.config.choices import Precision
from extrap.config.compose import compose_grid
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.train import stacked
from extrap.train.loop import Diverged, TrainingLoss, train, training_batch
from extrap.train.stacked import clip_each, train_stacked

SEEDS = [3, 0, 1, 2, 4, 5, 6, 7]
# What is rounding alone optimizers can make large: Adam divides by gradients, of which those of a rare token may be as
# small; Muon magnifies 484 times what lies in directions that a gradient has not. So tokens are frequent and rates low.
SMALL = ["experiment=smoke", "data=markov", "train.train_len=16", "train.batch_size=4", "train.max_steps=20",
         "train.lr=5e-4", "train.muon_ratio=0.5", "train.grad_clip=0.5", "train.precision=fp32", "model.n_layers=2",
         "eval.lengths=[16]"]  # fmt: skip


def runs_of(scheme, objective, optimizer, *more, seeds=SEEDS):
    overrides = [*SMALL, f"position={scheme}", f"objective={objective}", f"train.optimizer={optimizer}", *more]
    return [prepare(compose_grid([*overrides, f"seed={seed}"])[0]) for seed in seeds]


def together(runs):
    """The encoders, and their losses (steps, N)."""
    encoders, run = [build_encoder(run) for run in runs], runs[0]
    seeds = [run.config.seed for run in runs]
    losses = train_stacked(encoders, run.source, run.objective, run.config.train, seeds=seeds, precision=Precision.fp32)
    return encoders, losses


def alone(run, folder):
    """The encoder as a run trains it, and its log."""
    encoder = build_encoder(run)
    files = {"log": folder / "train.csv", "checkpoint": folder / "none.pt", "checkpoint_every": 1000, "of": ""}
    history = train(
        encoder, run.source, run.objective, run.config.train, seed=run.config.seed, precision=Precision.fp32, **files
    )
    return encoder, history.log


CASES = itertools.product(("alibi", "rope", "learned", "t5"), ("mlm", "causal"), ("muon", "adamw"))
QUICK = [("rope", "causal", "muon", 3), ("learned", "mlm", "adamw", 3)]
MORE = [("alibi", "mlm", "muon", 3), ("t5", "causal", "adamw", 3), *((*case, 8) for case in CASES)]


@pytest.mark.parametrize(("scheme", "objective", "optimizer", "n"), [*QUICK, *slow(*MORE)])
def test_models_trained_as_one_are_those_trained_alone(scheme, objective, optimizer, n, tmp_path):
    runs = runs_of(scheme, objective, optimizer, seeds=SEEDS[:n])
    encoders, losses = together(runs)
    for i, run in enumerate(runs):
        wanted, log = alone(run, tmp_path)
        found = encoders[i].state_dict()
        for name, parameter in wanted.state_dict().items():
            assert_close(found[name], parameter, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        assert [losses[entry.step - 1, i].item() for entry in log] == pytest.approx([entry.loss for entry in log], abs=1e-5)
        assert not encoders[i].training
        start = build_encoder(run).state_dict()
        assert all(not torch.equal(found[name], start[name]) for name, _ in wanted.named_parameters())


@pytest.mark.parametrize("largest", [0.1, 1.0, 100.0])
def test_each_model_is_clipped_by_its_own_norm(largest):
    shapes, scales = [(5, 3), (7,), (2, 2, 2)], [0.01, 1.0, 50.0]
    gradients = [torch.randn(3, *shape) * torch.tensor(scales).view(3, *(1,) * len(shape)) for shape in shapes]
    expected, norms = [], []
    for i in range(3):
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[i].clone()
        norms.append(nn.utils.clip_grad_norm_(parameters, largest))
        expected.append([parameter.grad for parameter in parameters])
    assert_close(clip_each(gradients, largest), torch.stack(norms))
    for gradient, of_models in zip(gradients, zip(*expected, strict=True), strict=True):
        assert_close(gradient, torch.stack(of_models))


@pytest.mark.slow
def test_a_buffer_in_which_models_differ_is_that_of_each():
    models = [TrainingLoss(build_encoder(run), Precision.fp32) for run in runs_of("alibi", "mlm", "adamw", seeds=[0, 1])]
    models[1].encoder.scheme.slopes.mul_(3)
    run = runs_of("alibi", "mlm", "adamw", seeds=[0])[0]
    batch = training_batch(run.source, run.objective, run.config.train, 0, 0)
    stack, gradients_of = stacked.stacked(models)
    twice = type(batch)(*(torch.stack([part, part]) for part in batch))
    _, losses = gradients_of(dict(stack.named_parameters()), twice)
    assert losses.tolist() == pytest.approx([model(*batch).item() for model in models], abs=1e-6)
    assert abs(losses[0] - losses[1]) > 1e-4


@pytest.mark.slow
def test_one_that_diverges_is_told_and_leaves_the_others_alone(monkeypatch):
    runs = runs_of("rope", "causal", "muon", seeds=SEEDS[:3])
    expected, losses = together(runs)
    real, calls = stacked.clip_each, []

    def explode(gradients, largest):
        calls.append(1)
        if len(calls) == 8:
            gradients[0][1] = math.inf
        return real(gradients, largest)

    monkeypatch.setattr(stacked, "clip_each", explode)
    encoders = [build_encoder(run) for run in runs]
    before = copy.deepcopy(encoders[1].state_dict())
    run = runs[0]
    with pytest.raises(Diverged, match=f"^seed 0 diverged at step 7: loss {losses[7, 1]:.4g}, gradient norm inf$"):
        train_stacked(encoders, run.source, run.objective, run.config.train, seeds=SEEDS[:3], precision=Precision.fp32)
    assert all(torch.equal(encoders[1].state_dict()[name], value) for name, value in before.items())
    for i in (0, 2):
        assert all(torch.equal(encoders[i].state_dict()[name], value) for name, value in expected[i].state_dict().items())


@pytest.mark.slow
def test_models_that_end_far_above_guessing_have_diverged():
    runs = runs_of("rope", "causal", "adamw", "train.lr=100.0", seeds=[0, 1])
    with pytest.raises(Diverged, match=r"seed 0 diverged .*; seed 1 diverged "):
        together(runs)


def test_a_seed_for_each():
    run = runs_of("rope", "causal", "muon", seeds=[0])[0]
    with pytest.raises(ValueError, match="expected a seed for each of 1 encoders, found 2"):
        train_stacked(
            [build_encoder(run)], run.source, run.objective, run.config.train, seeds=[0, 1], precision=Precision.fp32
        )
