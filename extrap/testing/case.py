"""A small encoder around a position scheme, what it reads, and how outputs are compared."""

import copy
import itertools
import math
from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import Tensor

from extrap.config.choices import Output
from extrap.config.schema import ModelConfig
from extrap.model.attention import Attend, prepare
from extrap.model.definition import attend_reference
from extrap.model.encoder import Encoder
from extrap.model.seed import seed_generators
from extrap.positions.base import Branch, Geometry, PositionScheme
from extrap.positions.wrappers import Wrapper

SHORT, BEYOND = 7, 513  # tokens: an odd length, and how far beyond the training length at most
CHUNKED = 515  # tokens, on which attention trains in chunks
SEQUENCES = (2, 5)  # in a batch
VOCAB = 16
MOVED = 0.5  # by up to this much a parameter is moved away from 0
TOLERANCE = 1e-5  # of hidden states, which are about 1: a hundred roundings of float32, a hundredth of a leak of 0.001

Build = Callable[[Geometry], PositionScheme]


class Case:
    """A scheme in an encoder whose other weights are those of every scheme of this size, and lengths up to `longest`.

    One block, or all of them where layers differ. Of n tokens up to n_scores / n^2 are changed, each by itself.
    """

    def __init__(self, scheme: PositionScheme, longest: int, n_scores: float = math.inf) -> None:
        self.scheme, self.geometry, self.n_scores = scheme, scheme.geometry, n_scores
        n = self.geometry.train_len
        shared = len({*scheme.layers(self.geometry.n_layers)}) == 1
        self.encoder = encoder_with(scheme, 1 if shared else self.geometry.n_layers)
        end = min(longest, 2 * n + 1, n + BEYOND, longest if scheme.max_len is None else scheme.max_len)
        end = max(end, n)
        self.lengths = sorted({min(SHORT, n), (min(SHORT, n) + n) // 2, n, min(2 * n, end), end})
        self.reads = [(n, True), *((n, False) for n in self.lengths)]  # and whether in training
        self.tokens = torch.randint(VOCAB, (SEQUENCES[-1], end))

    def move_parameters(self) -> None:
        """Away from 0: a gate that is nearly closed hides what it lets through."""
        with torch.no_grad():
            for parameter in trained(self.scheme):
                parameter.add_(torch.where(parameter < 0, -MOVED, MOVED) * torch.rand_like(parameter))

    def read(self, seq_len: int, training: bool = False, changed: int | None = None, n_batch: int = 2) -> Tensor:
        """Hidden states (B, T, D) of the first tokens; `changed`: with another one there in the second sequence."""
        tokens = self.tokens[:n_batch, :seq_len].clone()
        if changed is not None:
            tokens[1, changed] = (tokens[1, changed] + 1) % VOCAB
        return read(self.encoder, tokens, training)

    @cached_property
    def paths(self) -> list[tuple[float, float, str]]:
        """Each layer in training and evaluation, at every length, against the definition in float64: by how much outputs
        differ, gradients in parts of the largest, and where.

        Scores in the hundreds are rounded by more than TOLERANCE of an output, whatever computes them: of a difference above
        it that counts which is more than twice that of the definition in float32.
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
                rounded = [x.float() for x in tensors]
                given = answers(prepare, layer, pos, training, rounded, weight)
                output, *off = (apart(a, b) for a, b in zip(given, wanted, strict=True))
                if output > TOLERANCE:
                    output -= 2 * apart(answers(define, layer, pos, training, rounded, weight)[0], wanted[0])
                largest = max(float(grad.abs().max()) for grad in wanted[1:])
                found.append((output, max(off) / largest, f"{n} tokens in {'training' if training else 'evaluation'}"))
        return found


class TwiceThere(Wrapper):
    """A text twice in one input, both times at the same positions; neither sees the other.

    `masks_move`: mask_mod is asked about the places of the first, for a mask may be one of places.
    """

    def __init__(self, inner: PositionScheme, masks_move: bool) -> None:
        super().__init__(inner)
        self.masks_move = masks_move

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        return self.inner.positions(seq_len // 2, device).repeat(2)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)  # each beside nothing: embed may look at neighbours
        beside = [torch.cat([first, 0 * second], dim=1), torch.cat([0 * first, second], dim=1)]
        return torch.cat([self.inner.embed(x, pos).chunk(2, dim=1)[i] for i, x in enumerate(beside)], dim=1)

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        n, mask = len(pos) // 2, branch.mask_mod

        def apart(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            i, j, same = *((i % n, j % n) if self.masks_move else (i, j)), (i < n) == (j < n)
            return mask(b, h, i, j) & same if mask else same

        return branch._replace(mask_mod=apart, keys=None, relative=False)  # keys are checked by themselves


def trained(scheme: PositionScheme) -> list[torch.nn.Parameter]:
    return [parameter for parameter in scheme.parameters() if parameter.requires_grad]


def encoder_with(scheme: PositionScheme, n_layers: int) -> Encoder:
    geometry = scheme.geometry
    seed_generators(1)
    sizes = ModelConfig(geometry.d_model, n_layers, geometry.n_heads, geometry.d_model, dropout=0.0, output=Output.untied)
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
    """The output for tensors q, k, v, x, and the gradients of its weighted sum: of these, and of what it trains."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    seed_generators(2)  # what is drawn in training is drawn alike
    output = path(scheme, pos, training=training)(*leaves)
    loss = (output * weight.to(output.dtype)).sum()
    return [output.detach(), *torch.autograd.grad(loss, [*leaves, *trained(scheme)], materialize_grads=True)]


def differences(a: Tensor, b: Tensor) -> Tensor:
    """Two that are both no number are the same, one that is none is infinitely far."""
    return torch.where(a.isnan() & b.isnan(), 0.0, (a - b).abs()).nan_to_num(nan=math.inf)


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference."""
    differs = differences(a, b)
    return float(differs.max()) if differs.numel() else 0.0
