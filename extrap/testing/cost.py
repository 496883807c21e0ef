"""What a scheme costs beside nope and rope: time of training and scoring, and memory that a training step keeps."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from extrap.errors import UserError, one_line
from extrap.positions.base import Geometry, PositionScheme
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.testing.case import VOCAB, Build, encoder_with
from extrap.testing.findings import LAYERS, Finding

TRAIN_LEN, HEAD_DIM, HEADS = 128, 32, 4
LONGER = 8  # times the training length
TOKENS = 4096  # at a time
ROUNDS = 5  # of which the fastest counts: whatever else the machine does makes none faster


def costs(build: Build) -> Iterator[Finding]:
    """One finding for the training length and one for a longer one, if the scheme is defined there; causal, if it can be."""
    with torch.random.fork_rng(devices=[]):
        try:
            it = _built(build)
        except (UserError, ValueError) as error:
            yield Finding("IS", "cost", one_line(f"not asked: {error}"))
            return
        of = {"it": it, "nope": Nope(it.geometry), "rope": Rope(it.geometry)}
        encoders = {name: encoder_with(scheme, LAYERS) for name, scheme in of.items()}
        for n in (TRAIN_LEN, LONGER * TRAIN_LEN):
            if of["it"].max_len is not None and of["it"].max_len < n:
                return
            tokens = torch.randint(VOCAB, (TOKENS // n, n))
            told = []
            for what, training in (("training", True), ("scoring", False)):
                took = [
                    {name: _seconds(one.train(training), tokens) for name, one in encoders.items()} for _ in range(ROUNDS)
                ]
                told.append(f"{what} {_beside({name: min(one[name] for one in took) for name in of}, 1e3, 'ms')}")
            kept = {name: float(_kept(encoder.train(), tokens)) for name, encoder in encoders.items()}
            told.append(f"memory of a training step {_beside(kept, 2.0**-20, 'MiB')}")
            yield Finding("IS", f"cost at {n:,} tokens", "; ".join(told))


def _built(build: Build) -> PositionScheme:
    causal, encoder = (Geometry(HEAD_DIM * HEADS, HEADS, TRAIN_LEN, kind, LAYERS) for kind in (True, False))
    try:
        return build(causal)
    except (UserError, ValueError):
        return build(encoder)


def _beside(values: dict[str, float], scale: float, unit: str) -> str:
    it, nope, rope = values["it"], values["nope"], values["rope"]
    shown = f"{it * scale:,.0f}" if it * scale >= 1000 else f"{it * scale:.3g}"
    return f"{shown} {unit}, {it / nope:.2f} of nope, {it / rope:.2f} of rope"


def _seconds(encoder: torch.nn.Module, tokens: Tensor) -> float:
    began = time.perf_counter()
    with torch.set_grad_enabled(encoder.training):
        hidden: Tensor = encoder(tokens)
        if encoder.training:
            torch.autograd.grad(hidden.sum(), [*encoder.parameters()], allow_unused=True)
    return time.perf_counter() - began


def _kept(encoder: torch.nn.Module, tokens: Tensor) -> int:
    """Bytes that a training step keeps from its forward to its backward pass, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    seen: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        hidden: Tensor = encoder(tokens)
    del hidden
    return sum(size for place, size in seen.items() if place not in weights)
