"""Tied outputs: the table of tokens that is read is also the one that is written, as it is or behind BERT's head."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extrap.positions.base import TABLE_STD

LARGEST_LOGIT = 2.0  # at the start, of the token that was read: it adds log(1 + (e^2 - 1) / V) to the loss


class TiedTable(nn.Embedding):
    """One table e of tokens at both ends: r e_t is read, and c h . e_v are logits; |h| = sqrt(D), as behind a norm.

    e starts at N(0, s^2) with s = sqrt(TABLE_STD LARGEST_LOGIT / D), r = TABLE_STD / s and c = LARGEST_LOGIT / (D s); with
    0.5 and 2 for the two, s = 1 / sqrt(D), r = sqrt(D) / 2 and c = 2 / sqrt(D) = 1 / r.

    What is read is as large as in an untied model, r s = TABLE_STD. The token that was read has a logit of c D s at most,
    and the loss is log(exp(c D s) + V - 1) at most (kexue.fm 9698), which LARGEST_LOGIT keeps near log V. That leaves s
    free, but not c / r = LARGEST_LOGIT / (D TABLE_STD) = 4 / D: a step of Adam moves weights by its rate, whatever their
    size, so what is read r times and a logit c times as far as in an untied model, whose factors are both 1. A table that
    is read as there (s = TABLE_STD, c = 4 / D) writes too slowly to learn what tokens mean, one that writes as there
    (s = 2 / D, r = D / 4) reads too fast to learn positions that are added to it; a rate of its own changes both alike.
    Here each is off by sqrt(D) / 2, and no s makes the larger of the two less.

    Source: Press & Wolf 2017 (arXiv:1608.05859); the factor of reading in Vaswani et al. 2017 (arXiv:1706.03762), section
    3.4, is sqrt(D).
    """

    def __init__(self, n_tokens: int, d_model: int) -> None:
        super().__init__(n_tokens, d_model)
        self.std = math.sqrt(TABLE_STD * LARGEST_LOGIT / d_model)
        self.read, self.write = TABLE_STD / self.std, LARGEST_LOGIT / (d_model * self.std)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read * super().forward(tokens)

    def logits(self, hidden: Tensor, n_outputs: int, bias: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., V), of the first V tokens."""
        return F.linear(self.write * hidden, self.weight[:n_outputs], bias)


class Head(nn.Module):
    """BERT's head in front of a tied table: (..., D) -> norm(gelu(W h + b)), and `bias` (V,) is added to logits.

    W starts at N(0, 1/D), biases at 0. Source: Devlin et al. 2019 (arXiv:1810.04805), of whose released code it is
    (get_masked_lm_output).
    """

    def __init__(self, d_model: int, n_outputs: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(d_model, d_model), nn.LayerNorm(d_model)
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        nn.init.normal_(self.dense.weight, std=d_model**-0.5)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return found
