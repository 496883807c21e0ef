"""The encoder: pre-norm Transformer blocks that know nothing of positions beyond the attend function they are given."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from extrap.config.choices import Output
from extrap.config.schema import ModelConfig
from extrap.model.attention import AttendAt, prepare
from extrap.model.output import Head, TiedTable
from extrap.model.places import Places, taken
from extrap.positions.base import TABLE_STD, PositionScheme

MLP_TOKENS = 8_192  # of a sequence at a time


class _Undrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func.__name__ == "normal_"  # of nn.init or of a tensor
        return (kwargs or {}).get("tensor", *args[:1]) if drawn else func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Tensors that are made here have sizes alone.

    None is drawn: the first normal deviate without memory makes PyTorch load its compiler, for a second or more.
    """
    with torch.device("meta"), _Undrawn():
        yield


class Given(NamedTuple):
    """What attention is given in a block: queries, keys and values (B, H, T, K), and the normed input (B, T, D)."""

    q: Tensor
    k: Tensor
    v: Tensor
    x: Tensor


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); (B, T, D) -> (B, T, D), or (B, R, D) at some places."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model, self.n_heads, self.dropout = config.d_model, config.n_heads, config.dropout
        self.attn_norm = nn.LayerNorm(d_model, bias=False)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.mlp_norm = nn.LayerNorm(d_model, bias=False)
        self.up = nn.Linear(d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, d_model, bias=False)

    def forward(self, x: Tensor, attend: AttendAt, at: Places = None) -> Tensor:
        given = self.read(x)
        if at is not None:
            x, attend = taken(x, at), partial(attend, at=at)
        return self.write(x, attend(*given))

    def read(self, x: Tensor) -> Given:
        n_batch, seq_len, d_model = x.shape
        read = self.attn_norm(x)
        heads = self.qkv(read).view(n_batch, seq_len, 3, self.n_heads, d_model // self.n_heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4).contiguous().unbind()
        return Given(q, k, v, read)

    def write(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Of inputs (B, R, D) and what attention makes there of all, (B, H, R, K)."""
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(x.shape)), self.dropout, self.training)
        # long inputs in parts: their hidden features would take more memory than all the rest
        parts = [self.down(F.gelu(self.up(self.mlp_norm(part)))) for part in torch.split(x, MLP_TOKENS, dim=1)]
        return x + F.dropout(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), self.dropout, self.training)


def n_in_matrices(config: ModelConfig) -> int:
    """The numbers in the matrices of a block, which are the multiplications of a token with them."""
    with without_memory():
        return sum(parameter.numel() for parameter in Block(config).parameters() if parameter.dim() == 2)


class Encoder(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, D); `logits` turns hidden states into scores over the vocabulary.

    Linear weights start at N(0, 1/fan_in), those that write into the residual stream divided by sqrt(2 * n_layers) (GPT-2).
    Token embeddings start at N(0, 0.5^2), see positions/base.py; a table that is tied to the output: model/output.py.
    The loss at the start is near log V at any width, and blocks start alike whatever the output.
    """

    def __init__(self, config: ModelConfig, scheme: PositionScheme, n_inputs: int, n_outputs: int) -> None:
        """n_inputs counts the tokens that may be read (a mask token among them), n_outputs those to predict."""
        super().__init__()
        self.causal, self.dropout = scheme.geometry.causal, config.dropout
        tied = config.output is not Output.untied
        self.embedding = (TiedTable if tied else nn.Embedding)(n_inputs, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, bias=False)
        self.unembedding = nn.Linear(config.d_model, n_outputs, bias=False)
        self.n_outputs = n_outputs
        self._initialise()
        if tied:
            del self.unembedding  # which is drawn in any case, so that blocks are alike
        self.head = Head(config.d_model, n_outputs) if config.output is Output.tied_head else None
        self.scheme = scheme  # after the draws above: the other weights do not depend on the scheme

    def _initialise(self) -> None:
        d_model = self.embedding.embedding_dim
        table = self.embedding
        nn.init.normal_(table.weight, std=table.std if isinstance(table, TiedTable) else TABLE_STD)
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                residual = name.endswith((".out", ".down"))
                std = module.in_features**-0.5
                nn.init.normal_(module.weight, std=std / (2 * len(self.blocks)) ** 0.5 if residual else std)
        # the standard deviation of a logit, std * sqrt(D), adds half its square to the loss at the start
        nn.init.normal_(self.unembedding.weight, std=min(0.02, 0.3 * d_model**-0.5))

    def forward(self, tokens: Tensor, at: Places = None) -> Tensor:
        """With `at` the hidden states at these places alone, (B, R, D): the last block computes no others.

        Raises ValueError for an input longer than the scheme is defined for.
        """
        n_tokens, end = tokens.shape[1], self.scheme.max_len
        if end is not None and n_tokens > end:
            raise ValueError(f"positions of {type(self.scheme).__name__} end at {end}, the input has {n_tokens} tokens")
        pos = self.scheme.positions(n_tokens, tokens.device)
        x = self.scheme.embed(self.embedding(tokens), pos)
        x = F.dropout(x, self.dropout, self.training)
        layers = self.scheme.layers(len(self.blocks))
        attends = {scheme: prepare(scheme, pos, training=self.training) for scheme in dict.fromkeys(layers)}
        for block, scheme in zip(self.blocks, layers, strict=True):  # one function for all layers that share a scheme
            x = block(x, attends[scheme], at if block is self.blocks[-1] else None)
        hidden: Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        if not isinstance(self.embedding, TiedTable):
            logits: Tensor = self.unembedding(hidden)
            return logits
        if self.head is None:
            return self.embedding.logits(hidden, self.n_outputs)
        return self.embedding.logits(self.head(hidden), self.n_outputs, self.head.bias)

    def logits_at(self, tokens: Tensor, index: Tensor) -> Tensor:
        """(N, V) float32, at N of all B * T positions, as many of every sequence."""
        # a model that is asked about all of them has no places to take
        at = None if len(index) == tokens.numel() else index.view(len(tokens), -1) % tokens.shape[1]
        return self.logits(self(tokens, at).flatten(0, 1)).to(torch.float32)

    def loss(self, inputs: Tensor, index: Tensor, targets: Tensor) -> Tensor:
        """Nats per scored token, (): those at `index` among all B * T positions, where `targets` stand."""
        return F.cross_entropy(self.logits_at(inputs, index), targets)

    def guessing(self) -> float:
        """The loss of who finds all outputs alike."""
        return math.log(self.n_outputs)

    def networks(self) -> "Iterator[Encoder]":
        """All that are trained as one."""
        yield self

    def clipped_apart(self) -> set[nn.Parameter]:
        """Whose gradients have a norm of their own, apart from that of all others."""
        return set()


def n_parameters(config: ModelConfig, scheme: PositionScheme, n_inputs: int, n_outputs: int) -> int:
    """Of an Encoder with this scheme, counted on the meta device, without memory for them: one block stands for all."""
    with without_memory():
        encoder = Encoder(replace(config, n_layers=1), scheme, n_inputs, n_outputs)
    sizes = (parameter.numel() for parameter in encoder.parameters())
    return sum(sizes) + (config.n_layers - 1) * sum(parameter.numel() for parameter in encoder.blocks.parameters())
