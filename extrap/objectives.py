"""What is hidden, what is predicted, what is scored. Imports no torch."""

from typing import NamedTuple

import numpy as np

from extrap.errors import UserError

MASK_SEED = 0  # of held-out text: the same positions are hidden for every scheme, seed and length


class Batch(NamedTuple):
    """Model input, what stands there in truth, and which positions are scored; each (B, T)."""

    inputs: np.ndarray  # int64
    targets: np.ndarray  # int64
    scored: np.ndarray  # bool, the same number in every row


class Mlm:
    """Masked language model of a bidirectional encoder: a fixed share of the tokens is hidden and predicted.

    nll = mean over masked t of -log p(x_t | x with all masked positions replaced by [MASK]).
    Exactly round(mask_rate * T) positions a row, at least one, always replaced by [MASK], in training too (BERT's
    80/10/10 would make training and scoring differ). The perplexity is not that of a sequence and never stands in one
    column with a causal one. Source: Devlin et al. 2019 (arXiv:1810.04805).
    """

    causal = False
    extra_tokens = 0

    def __init__(self, mask_rate: float = 0.15) -> None:
        if not 0 < mask_rate < 1:
            raise UserError(f"objective.mask_rate: expected a share between 0 and 1, found {mask_rate}")
        self.mask_rate = self.scored_share = mask_rate

    def n_inputs(self, vocab_size: int) -> int:
        return vocab_size + 1  # [MASK] is the last token

    def batch(self, tokens: np.ndarray, vocab_size: int, rng: np.random.Generator, mask_rate: float | None = None) -> Batch:
        """At another rate than that of scoring, if one is given."""
        n_masked = max(1, round((mask_rate or self.mask_rate) * tokens.shape[1]))
        order = rng.random(tokens.shape).argsort(axis=1, kind="stable")
        scored = np.zeros(tokens.shape, dtype=bool)
        np.put_along_axis(scored, order[:, :n_masked], True, axis=1)
        return Batch(np.where(scored, vocab_size, tokens), tokens, scored)


class Causal:
    """Next-token prediction: nll = mean over t of -log p(x_{t+1} | x_1 .. x_t)."""

    causal = True
    extra_tokens = 1  # T inputs need T + 1 tokens
    scored_share = 1.0

    def n_inputs(self, vocab_size: int) -> int:
        return vocab_size

    def batch(self, tokens: np.ndarray, vocab_size: int, rng: np.random.Generator, mask_rate: float | None = None) -> Batch:
        return Batch(tokens[:, :-1], tokens[:, 1:], np.ones_like(tokens[:, 1:], dtype=bool))


Objective = Mlm | Causal
