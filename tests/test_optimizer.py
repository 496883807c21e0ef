"""The recipe: who updates which weights, at which rate, and Muon beside torch's and the singular value decomposition."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from extrap.config.choices import Output, Schedule
from extrap.config.compose import compose_grid
from extrap.model.encoder import Encoder
from extrap.runs.prepare import Run, prepare
from extrap.runs.run import build_encoder
from extrap.sweep.checks import READ_BY
from extrap.train.optimizer import MOMENTUM, Muon, learning_rate, make_optimizers, orthogonal


def run_of(tmp_path: Path, *overrides: str) -> Run:
    return prepare(compose_grid(["experiment=smoke", "seed=0", f"runtime.results_dir={tmp_path}", *overrides])[0])


def names_of(encoder: Encoder, parameters: list[nn.Parameter]) -> set[str]:
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    return {names[id(parameter)] for parameter in parameters}


@pytest.mark.parametrize("schedule", Schedule)
def test_rates_warm_up_and_decay_to_zero(tmp_path, schedule):
    config = run_of(tmp_path, "position=rope").config.train
    config.max_steps, config.warmup_steps, config.schedule = 100, 10, schedule
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert rates[32] == pytest.approx(
        {Schedule.linear: 1 - 22 / 90, Schedule.cosine: (1 + math.cos(math.pi * 22 / 90)) / 2}[schedule]
    )
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize("output", [one.value for one in Output])
def test_muon_has_the_matrices_of_the_blocks_and_of_a_head_and_adamw_all_else(tmp_path, output):
    run = run_of(tmp_path, "position=learned", "model.n_layers=2", f"model.output={output}", "train.weight_decay=0.3")
    encoder = build_encoder(run)
    muon, adamw = make_optimizers(encoder, run.config.train)
    assert isinstance(muon, Muon)
    of_blocks = {f"blocks.{i}.{part}.weight" for i in (0, 1) for part in ("qkv", "out", "up", "down")}
    of_blocks |= {"head.dense.weight"} if output == "tied_head" else set()
    stacks, single = ((names_of(encoder, group["params"]), group["stacked"]) for group in muon.param_groups)
    assert stacks == ({name for name in of_blocks if "qkv" in name}, 3)
    assert single == ({name for name in of_blocks if "qkv" not in name}, 1)
    by_decay = {group["weight_decay"]: names_of(encoder, group["params"]) for group in adamw.param_groups}
    assert by_decay.get(0.3, set()) == ({"unembedding.weight"} if output == "untied" else set())
    assert by_decay[0.0] >= {"embedding.weight", "scheme.table", "norm.weight"}
    assert of_blocks | set().union(*by_decay.values()) == {name for name, _ in encoder.named_parameters()}
    assert {group["peak"] for group in muon.param_groups} == {5 * 8e-3}
    assert {group["peak"] for group in adamw.param_groups} == {8e-3}


@pytest.mark.parametrize("output", ["untied", "tied"])
@pytest.mark.parametrize("objective", ["mlm", "electra"])
def test_what_sweeps_over_weight_decay_are_refused_is_who_decays_nothing(tmp_path, objective, output):
    run = run_of(tmp_path, "position=rope", f"objective={objective}", f"model.output={output}")
    optimizers = make_optimizers(build_encoder(run), run.config.train)
    decays = any(group.get("weight_decay") for optimizer in optimizers for group in optimizer.param_groups)
    _, reads = READ_BY["train.weight_decay"]
    assert reads(run) == decays


def test_with_adamw_alone_the_matrices_of_linear_maps_decay(tmp_path):
    run = run_of(tmp_path, "position=learned", "train=adamw", "train.max_steps=60", "train.weight_decay=0.3")
    encoder = build_encoder(run)
    (adamw,) = make_optimizers(encoder, run.config.train)
    decayed, others = adamw.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert {name.split(".")[-2] for name in names_of(encoder, decayed["params"])} == {
        "qkv",
        "out",
        "up",
        "down",
        "unembedding",
    }
    assert names_of(encoder, others["params"]) >= {"embedding.weight", "scheme.table", "norm.weight"}
    assert len(decayed["params"]) + len(others["params"]) == len([*encoder.parameters()])


@pytest.mark.parametrize("train", ["default", "adamw"])
def test_what_a_scheme_learns_is_adamws_and_not_decayed(tmp_path, train):
    run = run_of(tmp_path, "position=rope", f"train={train}", "train.max_steps=60")
    encoder = build_encoder(run)
    encoder.scheme.gate = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    *_, adamw = make_optimizers(encoder, run.config.train)
    free = {id(parameter) for group in adamw.param_groups if not group["weight_decay"] for parameter in group["params"]}
    own = {id(parameter) for parameter in encoder.scheme.parameters()}
    assert len(own) == 4
    assert own <= free


def in_float64(x: torch.Tensor) -> torch.Tensor:
    """Five steps of the quintic on the singular values."""
    u, s, v = torch.linalg.svd(x.double(), full_matrices=False)
    s = s / s.square().sum(dim=-1, keepdim=True).sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s[..., None, :] @ v


@pytest.mark.parametrize("shape", [(128, 128), (512, 128), (128, 512), (3, 32, 32), (2, 3, 16, 40), (8, 1)])
def test_orthogonal_is_the_quintic_of_the_singular_values(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = in_float64(x)
    torch.testing.assert_close(orthogonal(x).double(), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_orthogonal_bears_what_gradients_are_like():
    """Singular values over six decades, zeros, and a scale far from one."""
    basis = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(1)))[0]
    steep = 1e-8 * basis * torch.logspace(0, -6, 128) @ torch.randn(128, 512, generator=torch.Generator().manual_seed(2))
    found, expected = orthogonal(steep), in_float64(steep)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-3
    assert torch.equal(orthogonal(torch.zeros(4, 4)), torch.zeros(4, 4))


def test_muon_is_torchs_but_for_its_rounding():
    """torch.optim.Muon works in bfloat16, of which an update has two digits; here both have the same orthogonal."""
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(3 * 32, 32, generator=generator), torch.randn(64, 32, generator=generator)]
    ours = [nn.Parameter(matrix.clone()) for matrix in matrices]
    theirs = [nn.Parameter(part.clone()) for part in (*matrices[0].split(32), matrices[1])]
    muon = Muon([{"params": [ours[0]], "stacked": 3}, {"params": [ours[1]], "stacked": 1}], 0.04)
    other = torch.optim.Muon(theirs, lr=0.04, momentum=MOMENTUM, weight_decay=0.0)
    for _ in range(3):
        for parameter in ours:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for parameter, grad in zip(theirs, (*ours[0].grad.split(32), ours[1].grad), strict=True):
            parameter.grad = grad.clone()
        muon.step()
        other.step()
    for found, expected in zip((*ours[0].split(32), ours[1]), theirs, strict=True):  # three updates of 0.04 each
        torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=3 * 0.04 * 0.02)


@pytest.mark.parametrize("mutant", ["as one matrix", "no nesterov", "no aspect ratio"])
def test_a_wrong_muon_is_noticed(mutant, monkeypatch):
    """Of one step from rest, by the singular value decomposition."""
    grad = torch.randn(3 * 32, 16, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(torch.zeros_like(grad))
    parameter.grad = grad

    def step(stacked: int) -> torch.Tensor:
        parameter.data.zero_()
        Muon([{"params": [parameter], "stacked": stacked}], 1.0).step()
        return parameter.detach().clone()

    expected = -math.sqrt(2) * in_float64(grad.view(3, 32, 16)).flatten(0, 1)
    torch.testing.assert_close(step(3).double(), expected, rtol=0, atol=1e-3)
    if mutant == "as one matrix":
        assert float((step(1) - expected).abs().max()) > 0.05
    elif mutant == "no aspect ratio":
        monkeypatch.setattr("extrap.train.optimizer.math.sqrt", lambda x: 1.0)
        assert float((step(3) - expected).abs().max()) > 0.05
    else:  # two steps with gradients that differ: the momentum alone lags behind
        second = torch.randn(grad.shape, generator=torch.Generator().manual_seed(1))
        optimizer = Muon([{"params": [parameter], "stacked": 3}], 1.0)
        parameter.data.zero_()
        optimizer.step()
        before, parameter.grad = parameter.detach().clone(), second
        optimizer.step()
        momentum = (0.9 * 0.1 * grad + 0.1 * second).view(3, 32, 16)
        looked_ahead = 0.1 * second.view(3, 32, 16) + 0.9 * momentum
        moved = (parameter.detach() - before).double()
        torch.testing.assert_close(moved, -math.sqrt(2) * in_float64(looked_ahead).flatten(0, 1), rtol=0, atol=1e-3)
        assert float((moved + math.sqrt(2) * in_float64(momentum).flatten(0, 1)).abs().max()) > 0.05
