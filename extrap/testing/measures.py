"""What is measured of a position scheme on a small encoder: numbers, each with where it was found, of one size."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from unittest.mock import patch

import torch
from torch import Tensor

from extrap.config.schema import ModelConfig
from extrap.model.attention import Attend, attend_reference, prepare
from extrap.model.encoder import Encoder
from extrap.model.seed import seed_generators
from extrap.positions.base import Geometry, PositionScheme
from extrap.positions.nope import Nope

SHORT, BEYOND = 7, 129  # tokens: an odd length, and how far beyond the training length at most
CHUNKED = 515  # tokens, on which attention trains in chunks
FAR = 1000  # tokens further on
VOCAB = 16
MOVED = 0.5  # by up to this much a parameter is moved away from 0
TOLERANCE = 1e-5  # of hidden states, which are about 1: a hundred roundings of float32, a hundredth of a leak of 0.001

Build = Callable[[Geometry], PositionScheme]
Measured = Iterator[tuple[float, str]]  # each number with its place
Measure = Callable[["Case"], Measured]


class Case:
    """A scheme in an encoder whose other weights are those of every scheme of this size, and lengths up to `longest`.

    One block, or all of them where layers differ.
    """

    def __init__(self, scheme: PositionScheme, longest: int) -> None:
        self.scheme, self.geometry = scheme, scheme.geometry
        n = self.geometry.train_len
        shared = len({*scheme.layers(self.geometry.n_layers)}) == 1
        self.encoder = encoder_with(scheme, 1 if shared else self.geometry.n_layers)
        end = min(longest, 2 * n + 1, n + BEYOND, longest if scheme.max_len is None else scheme.max_len)
        self.lengths = sorted({min(SHORT, n), n, max(end, n)})
        self.reads = [(n, True), *((n, False) for n in self.lengths)]  # and whether in training
        self.tokens = torch.randint(VOCAB, (2, self.lengths[-1]))

    def move_parameters(self) -> None:
        """Away from 0: a gate that is nearly closed hides what it lets through."""
        with torch.no_grad():
            for parameter in self.scheme.parameters():
                parameter.add_(torch.where(parameter < 0, -MOVED, MOVED) * torch.rand_like(parameter))

    def read(self, seq_len: int, training: bool = False, changed: int | None = None) -> Tensor:
        """Hidden states (2, T, D) of the first tokens; `changed`: with another one there in the second sequence."""
        tokens = self.tokens[:, :seq_len].clone()
        if changed is not None:
            tokens[1, changed] = (tokens[1, changed] + 1) % VOCAB
        return read(self.encoder, tokens, training)

    @cached_property
    def paths(self) -> list[tuple[float, float, str]]:
        """Each layer in training and evaluation, at every length, against the definition in float64: by how much outputs
        differ, gradients in parts of the largest, and where.
        """
        geometry, found = self.geometry, []
        # at one of the training lengths alone: it is slow
        chunked = [CHUNKED] if geometry.train_len == 128 and self.scheme.max_len is None else []
        for n, training in itertools.product([*self.lengths, *chunked], (True, False)):
            scheme = self.scheme.train(training)
            pos = scheme.positions(n)
            tensors = [*heads(geometry, n), torch.randn(2, n, geometry.d_model, dtype=torch.float64)]
            weight = torch.randn_like(tensors[0])
            for layer in dict.fromkeys(scheme.layers(geometry.n_layers)):
                wanted = answers(define, copy.deepcopy(layer).double(), pos, training, tensors, weight)
                given = answers(prepare, layer, pos, training, [x.float() for x in tensors], weight)
                output, *off = (apart(a, b) for a, b in zip(given, wanted, strict=True))
                largest = max(float(grad.abs().max()) for grad in wanted[1:])
                found.append((output, max(off) / largest, f"{n} tokens in {'training' if training else 'evaluation'}"))
        return found


def encoder_with(scheme: PositionScheme, n_layers: int) -> Encoder:
    geometry = scheme.geometry
    seed_generators(1)
    sizes = ModelConfig(geometry.d_model, n_layers, geometry.n_heads, geometry.d_model, dropout=0.0, tie=False)
    return Encoder(sizes, scheme, VOCAB, VOCAB)


def read(encoder: Encoder, tokens: Tensor, training: bool = False, seed: int = 2) -> Tensor:
    seed_generators(seed)  # what is drawn in training is drawn alike
    hidden: Tensor = encoder.train(training)(tokens)
    return hidden


def heads(geometry: Geometry, seq_len: int, n_batch: int = 2) -> tuple[Tensor, ...]:
    """Random queries, keys and values in float64."""
    return torch.randn(3, n_batch, geometry.n_heads, seq_len, geometry.head_dim, dtype=torch.float64).unbind()


def define(scheme: PositionScheme, pos: Tensor, *, training: bool) -> Attend:
    """What stands in for attention.prepare: the definition."""
    return partial(attend_reference, scheme, pos)


def answers(
    path: Callable[..., Attend], scheme: PositionScheme, pos: Tensor, training: bool, tensors: list[Tensor], weight: Tensor
) -> list[Tensor]:
    """The output for tensors q, k, v, x, and the gradients of its weighted sum: of these, and of the scheme's parameters."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    seed_generators(2)  # what is drawn in training is drawn alike
    output = path(scheme, pos, training=training)(*leaves)
    loss = (output * weight.to(output.dtype)).sum()
    return [output.detach(), *torch.autograd.grad(loss, [*leaves, *scheme.parameters()], materialize_grads=True)]


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference; two that are both no number are the same, one that is none is infinitely far."""
    differs = torch.where(a.isnan() & b.isnan(), 0.0, (a - b).abs().to(torch.float64)).nan_to_num(nan=math.inf)
    return float(differs.max()) if differs.numel() else 0.0


def gradients(case: Case) -> dict[str, Tensor]:
    """Of a weighted sum of what comes out in training, by the names of the encoder's parameters."""
    hidden = case.read(case.geometry.train_len, training=True)
    weight = torch.sin(torch.arange(hidden.numel(), dtype=torch.float64)).view_as(hidden).to(hidden.dtype)
    named = {name: parameter for name, parameter in case.encoder.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad((hidden * weight).sum(), [*named.values()], materialize_grads=True)
    return dict(zip(named, found, strict=True))


def not_finite(case: Case) -> Measured:
    """How many numbers of outputs and gradients at the training length are none."""
    n = case.geometry.train_len
    outputs = {f"outputs in {'training' if t else 'evaluation'}": case.read(n, t).detach() for t in (True, False)}
    for name, x in (outputs | {f"the gradient of {name}": grad for name, grad in gradients(case).items()}).items():
        yield float((~x.isfinite()).sum()), f"{name}, for {n} tokens"


@torch.no_grad()
def future(case: Case) -> Measured:
    """How earlier tokens move with a later one, where the model is causal."""
    for n, training in case.reads if case.geometry.causal else []:
        whole = case.read(n, training)
        for t in sorted({1, n // 2, n - 1}, reverse=True):
            moved = case.read(n, training, changed=t)
            yield apart(moved[1, :t], whole[1, :t]), f"token {t} of {n} changes earlier ones"


@torch.no_grad()
def batch(case: Case) -> Measured:
    """How a sequence moves with another one, and where it is alone."""
    for n, training in case.reads:
        whole = case.read(n, training)
        yield apart(case.read(n, training, changed=n // 2)[0], whole[0]), f"of {n} tokens, one changes another sequence"
        if not training:
            yield apart(read(case.encoder, case.tokens[:1, :n]), whole[:1]), f"{n} tokens, alone and in a batch"


@torch.no_grad()
def again(case: Case) -> Measured:
    """How the output for an input changes, whatever was read between, and in evaluation whatever is drawn."""
    before = [case.read(*of) for of in case.reads]
    for (n, training), whole in zip(case.reads, before, strict=True):
        yield apart(case.read(n, training), whole), f"{n} tokens, read after others"
        if not training:
            yield apart(read(case.encoder, case.tokens[:, :n], seed=3), whole), f"{n} tokens, drawn at random in evaluation"


@torch.no_grad()
def drawn(case: Case) -> Measured:
    """How the output changes with what is drawn in training."""
    tokens = case.tokens[:, : case.geometry.train_len]
    yield apart(*(read(case.encoder, tokens, training=True, seed=seed) for seed in (2, 3))), ""


@torch.no_grad()
def length(case: Case) -> Measured:
    """How a token moves with the number of those after it."""
    whole = case.read(case.lengths[-1])
    for n in (*case.lengths, case.lengths[-1] - 1):
        yield apart(case.read(n), whole[:, :n]), f"{n} tokens of {case.lengths[-1]}"


@torch.no_grad()
def effect(case: Case) -> Measured:
    """How hidden states, which are about 1, change against no positions at all."""
    plain = encoder_with(Nope(case.geometry), len(case.encoder.blocks))
    for n in case.lengths:
        yield apart(read(plain, case.tokens[:, :n]), case.read(n)), f"{n} tokens"


@torch.no_grad()
def shift(case: Case) -> Measured:
    """How the same text differs further on."""
    n, end, positions = case.geometry.train_len, case.scheme.max_len, case.scheme.positions
    n = n if end is None else max(1, end // 2)
    here = case.read(n)
    for first in (1, n, FAR) if end is None else (end - n,):
        with patch.object(case.scheme, "positions", lambda n, device=None, first=first: positions(n, device) + first):
            yield apart(case.read(n), here), f"{first} tokens further on"


@torch.no_grad()
def mirror(case: Case) -> Measured:
    """How a text and its mirror image differ."""
    n = case.geometry.train_len
    yield apart(read(case.encoder, case.tokens[:, :n].flip(1)).flip(1), case.read(n)), ""


@torch.no_grad()
def lost(case: Case) -> Measured:
    """How many numbers are none at 8 times the training length."""
    n = 8 * case.geometry.train_len
    yield float((~read(case.encoder, case.tokens.repeat(1, 8)[:1, :n]).isfinite()).sum()), f"{n} tokens"
