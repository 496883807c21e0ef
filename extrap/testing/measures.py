"""What is measured of a position scheme on a small encoder: numbers, each with where it was found, of one size."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from torch import Tensor

from extrap.model.encoder import Encoder
from extrap.positions.nope import Nope
from extrap.testing.case import SEQUENCES, TOLERANCE, VOCAB, Case, TwiceThere, apart, differences, encoder_with, read

FAR = 1000  # tokens further on
PART = 2**21  # scores of a head at a time
ROUNDED = 2.0**-22  # of a weight: four roundings of float32
ROUNDED_ANGLE = 2.0**-23  # of a position p: in float32 angles of up to p, a query's and a key's, are off by p * 2**-24 each

Measured = Iterator[tuple[float, str]]  # each number with its place
Measure = Callable[[Case], Measured]


def rounded(encoder: Encoder) -> Encoder:
    """A copy with weights that are off by a few roundings."""
    encoder, generator = copy.deepcopy(encoder), torch.Generator().manual_seed(0)
    for weight in encoder.parameters():
        weight.mul_(1 + ROUNDED * (2 * torch.rand(weight.shape, generator=generator) - 1))
    return encoder


def beyond_rounding(differs: float, case: Case, tokens: Tensor) -> float:
    """The part of a difference above TOLERANCE between two outputs for these tokens that exceeds twice the effect of
    rounding the weights: scores in the hundreds, and tables of steep steps, magnify what sums in another order are off by.
    """
    if differs > TOLERANCE:
        differs -= 2 * apart(read(rounded(case.encoder), tokens), read(case.encoder, tokens))
    return differs


def gradients(case: Case) -> dict[str, Tensor]:
    """Of a weighted sum of what comes out in training, by the names of the encoder's parameters."""
    hidden = case.read(case.geometry.train_len, training=True)
    weight = torch.sin(torch.arange(hidden.numel(), dtype=torch.float64)).view_as(hidden).to(hidden.dtype)
    named = {name: parameter for name, parameter in case.encoder.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad((hidden * weight).sum(), [*named.values()], materialize_grads=True)
    return dict(zip(named, found, strict=True))


def unregistered(case: Case) -> Measured:
    """Numbers that backpropagation reaches in training and that are in no parameter of the encoder."""
    registered = {id(parameter) for parameter in case.encoder.parameters()}
    nodes, seen = [case.read(case.geometry.train_len, training=True).grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [before for before, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in registered:
            yield float(leaf.numel()), f"a tensor of shape {(*leaf.shape,)}"


def not_finite(case: Case) -> Measured:
    """How many numbers of outputs and gradients at the training length are none."""
    n = case.geometry.train_len
    outputs = {f"outputs in {'training' if t else 'evaluation'}": case.read(n, t).detach() for t in (True, False)}
    for name, x in (outputs | {f"the gradient of {name}": grad for name, grad in gradients(case).items()}).items():
        yield float((~x.isfinite()).sum()), f"{name}, for {n} tokens"


@torch.no_grad()
def future(case: Case) -> Measured:
    """How earlier tokens move with a later one, where the model is causal: a token in each sequence of a batch."""

    def moved(n: int, training: bool, t: Tensor, n_before: int) -> Tensor:
        tokens = case.tokens[:1, :n].repeat(len(t), 1)
        before = read(case.encoder, tokens[:n_before], training)
        tokens[range(len(t)), t] = (tokens[range(len(t)), t] + 1) % VOCAB
        differ = differences(read(case.encoder, tokens, training), before).amax(dim=-1)
        return differ.masked_fill(torch.arange(n) >= t[:, None], 0.0).amax(dim=1)

    for n, training in case.reads if case.geometry.causal else []:
        n_looked = int(min(n - 1, max(2, case.n_scores // n**2)))
        for t in torch.split(1 + torch.randperm(n - 1)[:n_looked], max(1, PART // n**2)):
            drawn = training and case.scheme.random_in_training  # for each sequence, maybe
            worst = t[moved(n, training, t, len(t) if drawn else 1).argmax()]
            same = moved(n, training, worst.repeat(SEQUENCES[-1]), SEQUENCES[-1])  # of which none can tell another anything
            yield float(same.max()), f"token {worst} of {n} changes earlier ones"


@torch.no_grad()
def batch(case: Case) -> Measured:
    """How a sequence moves with another one, and where it is alone, which sums in another order."""
    for (n, training), n_batch in itertools.product(case.reads, SEQUENCES):
        whole, others = case.read(n, training, n_batch=n_batch), [i for i in range(n_batch) if i != 1]
        moved = case.read(n, training, changed=n // 2, n_batch=n_batch)
        yield apart(moved[others], whole[others]), f"of {n} tokens, one changes another sequence of {n_batch}"
        if not training:
            alone = case.tokens[n_batch - 1 : n_batch, :n]  # then the first, here the last
            differs = beyond_rounding(apart(read(case.encoder, alone), whole[-1:]), case, alone)
            yield differs, f"{n} tokens, alone and in a batch of {n_batch}"


@torch.no_grad()
def again(case: Case) -> Measured:
    """How the output for an input changes, whatever was read between, and in evaluation whatever is drawn."""
    before = [case.read(*of) for of in case.reads]
    for (n, training), whole in zip(case.reads, before, strict=True):
        yield apart(case.read(n, training), whole), f"{n} tokens, read after others"
        if not training:
            yield apart(read(case.encoder, case.tokens[:2, :n], seed=3), whole), f"{n} tokens, drawn at random in evaluation"


@torch.no_grad()
def drawn(case: Case) -> Measured:
    """How the output changes with what is drawn in training."""
    tokens = case.tokens[:2, : case.geometry.train_len]
    yield apart(*(read(case.encoder, tokens, training=True, seed=seed) for seed in (2, 3))), ""


@torch.no_grad()
def length(case: Case) -> Measured:
    """How a token moves with the number of those after it, which sums in another order."""
    whole = case.read(case.lengths[-1])
    for n in (*case.lengths, case.lengths[-1] - 1):
        differs = beyond_rounding(apart(case.read(n), whole[:, :n]), case, case.tokens[:2, :n])
        yield differs, f"{n} tokens of {case.lengths[-1]}"


@torch.no_grad()
def effect(case: Case, training: bool) -> Measured:
    """How hidden states, which are about 1, change against no positions at all."""
    plain = encoder_with(Nope(case.geometry), len(case.encoder.blocks))
    for n in (n for n, of_training in case.reads if of_training == training):
        yield apart(read(plain, case.tokens[:2, :n]), case.read(n, training)), f"{n} tokens"


@torch.no_grad()
def modes(case: Case) -> Measured:
    """How the outputs for an input differ between training and evaluation."""
    n = case.geometry.train_len
    yield apart(case.read(n, training=True), case.read(n)), f"{n} tokens"


@torch.no_grad()
def place(case: Case, masks_move: bool = True) -> Measured:
    """How the same text at the same positions differs with its place in the input."""
    n = case.geometry.train_len if case.scheme.max_len is None else min(case.geometry.train_len, case.scheme.max_len // 2)
    case.read(2 * n)  # what the scheme keeps of inputs as long, it keeps now
    twice = encoder_with(TwiceThere(case.scheme, masks_move), len(case.encoder.blocks))
    yield apart(*read(twice, case.tokens[:2, :n].repeat(1, 2)).chunk(2, dim=1)), f"{n} places further on"


@torch.no_grad()
def stretch(case: Case) -> Measured:
    """How the same text at positions twice as far apart differs."""
    n, end, positions = case.geometry.train_len, case.scheme.max_len, case.scheme.positions
    n = n if end is None else max(2, end // 2)
    here = case.read(n)
    with patch.object(case.scheme, "positions", lambda n, device=None: 2 * positions(n, device)):
        yield apart(case.read(n), here), f"{n} tokens"


def elsewhere(case: Case) -> Measured:
    """Whether it is trained on another device than the CPU; on this one tensors have sizes and no values."""
    encoder, tokens = copy.deepcopy(case.encoder).to("meta"), case.tokens[:2, : case.geometry.train_len].to("meta")
    with patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()):  # which this one has not
        read(encoder, tokens, training=True)
    yield 0.0, ""


@torch.no_grad()
def shift(case: Case) -> Measured:
    """How the same text differs further on, beyond what comes of angles that are rounded to float32."""
    n, end, positions = case.geometry.train_len, case.scheme.max_len, case.scheme.positions
    n = n if end is None else max(1, end // 2)
    here, last = case.read(n), float(positions(n)[-1])
    for first in (1, n, FAR) if end is None else (end - n,):
        with patch.object(case.scheme, "positions", lambda n, device=None, first=first: positions(n, device) + first):
            differs = apart(case.read(n), here) - ROUNDED_ANGLE * (first + 2 * last)
        yield max(0.0, differs), f"{first} tokens further on"
    yield from place(case, masks_move=False)


@torch.no_grad()
def mirror(case: Case) -> Measured:
    """How a text and its mirror image differ."""
    n = case.geometry.train_len
    yield apart(read(case.encoder, case.tokens[:2, :n].flip(1)).flip(1), case.read(n)), ""


@torch.no_grad()
def lost(case: Case) -> Measured:
    """How many numbers are none at 8 times the training length."""
    n = 8 * case.geometry.train_len
    yield float((~read(case.encoder, case.tokens.repeat(1, 8)[:1, :n]).isfinite()).sum()), f"{n} tokens"
