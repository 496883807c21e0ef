"""A source with a known floor: every document is a Markov chain of its own."""

import hashlib
from typing import Any

import numpy as np

from extrap.data.base import HeldOut, Source
from extrap.data.cloze import Corrupter, OfChain
from extrap.errors import UserError


class Markov(Source):
    """Each document draws a transition matrix, every row from Dirichlet(alpha, .., alpha), and a uniform first symbol.

    The best predictor of the next symbol y after x is the posterior mean p(y | x) = (n_xy + alpha) / (n_x + alpha * V),
    with n_xy the transitions x -> y seen so far: more context always helps, by a known amount (`posterior_nll`).
    Training documents are drawn afresh for every batch; held-out document number d depends on (alpha, V, d) alone.
    Raises UserError for fewer than 2 or more than 256 symbols and for alpha that is not positive.
    """

    name = "markov"

    def __init__(self, vocab_size: int, alpha: float) -> None:
        if not 2 <= vocab_size <= 256:
            raise UserError(f"data.vocab_size: expected 2 to 256 symbols, found {vocab_size}")
        if not 0 < alpha < float("inf"):
            raise UserError(f"data.alpha: expected a positive concentration, found {alpha}")
        self.vocab_size, self.alpha = vocab_size, alpha
        self.token_bytes = np.ones(vocab_size, dtype=np.int64)

    def batch(self, rng: np.random.Generator, batch_size: int, length: int) -> np.ndarray:
        rows = rng.dirichlet(np.full(self.vocab_size, self.alpha), size=(batch_size, self.vocab_size))
        upper = rows.cumsum(axis=-1)  # (B, V, V)
        upper[..., -1] = 1.0  # rounding must not leave a draw above the last symbol
        draws = rng.random((length, batch_size))
        tokens = np.empty((batch_size, length), dtype=np.int64)
        tokens[:, 0] = draws[0] * self.vocab_size
        documents = np.arange(batch_size)
        for t in range(1, length):
            tokens[:, t] = (draws[t][:, None] >= upper[documents, tokens[:, t - 1]]).sum(axis=-1)
        return tokens

    @property
    def corrupter(self) -> Corrupter:
        return OfChain(self.vocab_size, self.alpha)

    def held_out(self, seg_len: int, n_segments: int) -> HeldOut:
        documents = [self.batch(np.random.default_rng((0, 1, d + 1)), 1, seg_len)[0] for d in range(n_segments)]
        return HeldOut(np.stack(documents), [f"document-{d:04d}" for d in range(n_segments)], [0] * n_segments)

    def hold_back(self, length: int, n_segments: int) -> HeldOut:
        """Documents of their own: training draws from (seed, step), what is held out from (0, 1, d + 1)."""
        documents = [self.batch(np.random.default_rng((0, 0, d + 1)), 1, length)[0] for d in range(n_segments)]
        return HeldOut(np.stack(documents), [f"held-back-{d:04d}" for d in range(n_segments)], [0] * n_segments)

    def describe(self) -> dict[str, Any]:
        settings = f"markov V={self.vocab_size} alpha={self.alpha!r}"
        return {"sha256": hashlib.sha256(settings.encode()).hexdigest(), "settings": settings}

    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        return {}  # documents are as many and as long as asked for

    def unigram_nll(self, train_len: int) -> np.ndarray:
        """log V for each: over all documents no symbol is more frequent than another."""
        return np.full(self.vocab_size, np.log(self.vocab_size))

    def references(self, tokens: np.ndarray, context: np.ndarray, train_len: int) -> dict[str, np.ndarray]:
        """The floor, the floor for one who looks back train_len tokens at most, and the plateau."""
        near = np.minimum(context, train_len)
        return {
            "floor": self.posterior_nll(tokens, context),
            "window_floor": self.posterior_nll(tokens, near),
            "plateau": self.symbol_nll(tokens, context),
        }

    def posterior_nll(self, tokens: np.ndarray, context: np.ndarray) -> np.ndarray:
        """The floor: -log of the best prediction of tokens[t+1] from tokens[t - context[t] + 1 .. t], in nats.

        tokens (S + 1,), context (S,) >= 1 in tokens -> (S,). Exact for a context that reaches back to the document's
        first token. For one that starts inside, its first symbol x also tells a little through the chain's stationary
        probability of x, which has no closed form and is left out. A test measures how little, for V = 8 and alpha = 0.3:
        0.0002 nats a token at a context of 128, 0.0014 averaged over contexts of 1 to 128.
        """
        now, following = tokens[:-1], tokens[1:]
        transition = now * self.vocab_size + following
        t = np.arange(len(now))
        since = t - context + 1  # the transitions that lie inside the context: since .. t - 1
        n_xy, n_x = (count_between(codes, codes, since, t) for codes in (transition, now))
        nll: np.ndarray = -np.log((n_xy + self.alpha) / (n_x + self.alpha * self.vocab_size))
        return nll

    def symbol_nll(self, tokens: np.ndarray, context: np.ndarray) -> np.ndarray:
        """The plateau: the same from counts of symbols alone, p(y) = (n_y + 1) / (n + V), blind to their order."""
        following = tokens[1:]
        t = np.arange(len(following))
        n_y = count_between(tokens, following, t - context + 1, t + 1)
        nll: np.ndarray = -np.log((n_y + 1) / (context + self.vocab_size))
        return nll


def count_between(codes: np.ndarray, code: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How often each of `code` is among codes[begin:end], for arrays of code, begin and end; codes (S,), all int64."""
    span = len(codes) + 1
    places = np.sort(codes * span + np.arange(len(codes)))
    counts: np.ndarray = np.searchsorted(places, code * span + end) - np.searchsorted(places, code * span + begin)
    return counts
