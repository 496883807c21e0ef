"""What may stand between two tokens: the corrupters of replaced-token detection. Imports no torch."""

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

TRUST = 2.0  # occurrences that what the two neighbours say one by one counts for
SMOOTH = 0.5  # and what the frequencies say, beside those of a single neighbour


class Corrupter(Protocol):
    """A distribution q(b | a, c) of the token b between its neighbours a and c."""

    def probabilities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(N, V) float64, each row a distribution, of N pairs of neighbours."""

    def replaced(self, rate: float) -> np.ndarray:
        """(V,): how often each token is not the true one in training text of which a share `rate` is drawn from q."""


class Places(NamedTuple):
    """Distributions at N positions: those of all pairs of neighbours that occur, and which of them is whose."""

    q: np.ndarray  # (pairs, V)
    pair: np.ndarray  # (N,)

    def of(self, tokens: np.ndarray) -> np.ndarray:
        """(N,): q of a token at each position."""
        chances: np.ndarray = self.q[self.pair, tokens]
        return chances

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(N,) int64: a token at each position."""
        n_pairs, vocab_size = self.q.shape
        upper = self.q.cumsum(axis=1)
        upper /= upper[:, -1:]  # rounding must not leave a draw above the last token
        stacked = (upper + np.arange(n_pairs)[:, None]).ravel()
        found = np.searchsorted(stacked, self.pair + rng.random(len(self.pair)), side="right") - self.pair * vocab_size
        drawn: np.ndarray = np.minimum(found, vocab_size - 1)  # a sum may round up to the next whole number
        return drawn


def places(corrupter: Corrupter, left: np.ndarray, right: np.ndarray, vocab_size: int) -> Places:
    pairs, pair = np.unique(left * vocab_size + right, return_inverse=True)
    return Places(corrupter.probabilities(*np.divmod(pairs, vocab_size)), pair)


class Counted:
    """q(b | a, c) = (n_abc + 2 r(b)) / (n_ac + 2), r(b) proportional to p(b | a) p(b | c) / p(b).

    n_abc counts a, b, c in a row, n_ac whatever stands between a and c; p(b | a) and p(b | c), of the token after a and of
    that before c, are frequencies with half an occurrence more, shared out by p(b), which counts every token once more.
    """

    def __init__(self, texts: Iterable[np.ndarray], vocab_size: int) -> None:
        """Of texts of tokens, each (T,) int64; nothing is counted across two of them."""
        self.vocab_size = vocab_size
        n, pairs, rows = np.ones(vocab_size), np.zeros((vocab_size, vocab_size)), []
        for text in texts:
            n += np.bincount(text, minlength=vocab_size)
            pairs += np.bincount(text[:-1] * vocab_size + text[1:], minlength=vocab_size**2).reshape(pairs.shape)
            rows.append((text[:-2] * vocab_size + text[2:]) * vocab_size + text[1:-1])
        self.p = n / n.sum()
        self.after, self.before = (
            (counts + SMOOTH * self.p) / (counts.sum(axis=1, keepdims=True) + SMOOTH) for counts in (pairs, pairs.T)
        )
        self.codes, self.counts = np.unique(np.concatenate(rows), return_counts=True)

    def probabilities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        single = self.after[left] * self.before[right] / self.p
        weights = TRUST * single / single.sum(axis=1, keepdims=True)
        first = (left * self.vocab_size + right) * self.vocab_size
        start, stop = np.searchsorted(self.codes, first), np.searchsorted(self.codes, first + self.vocab_size)
        row = np.repeat(np.arange(len(left)), stop - start)
        at = np.arange(len(row)) - np.repeat(np.cumsum(stop - start) - stop, stop - start)
        weights[row, self.codes[at] % self.vocab_size] += self.counts[at]
        q: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return q

    @cached_property
    def _of_contexts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of all pairs of neighbours in the texts: how often each token stands between them, and q; (pairs, V) both."""
        pairs, row = np.unique(self.codes // self.vocab_size, return_inverse=True)
        counts = np.zeros((len(pairs), self.vocab_size))
        counts[row, self.codes % self.vocab_size] = self.counts
        return counts, self.probabilities(*np.divmod(pairs, self.vocab_size))

    def replaced(self, rate: float) -> np.ndarray:
        """With one occurrence of each token more, replaced as often as all are: of one that never occurs little is known."""
        counts, q = self._of_contexts
        drawn = rate * counts.sum(axis=1, keepdims=True) * q  # that are read, of each token
        fakes = drawn - rate * counts * q
        read = (1 - rate) * counts + drawn
        share = fakes.sum() / read.sum()
        chances: np.ndarray = (fakes.sum(axis=0) + share) / (read.sum(axis=0) + 1)
        return chances


class OfChain:
    """The same of Markov chains whose rows are drawn from Dirichlet(alpha, ..., alpha), each chain with its own.

    q(b | a, c) is proportional to E[P(a -> b) P(b -> c)]: to 1 / V^2 for b other than a, whose rows are independent, and for
    b = a to (alpha + 1) / (V (alpha V + 1)) where c = a too, else to alpha / (V (alpha V + 1)). So are the first symbols of
    a chain; later ones are more often such as return to themselves, for V = 16 and alpha = 0.03 by a third.
    """

    def __init__(self, vocab_size: int, alpha: float) -> None:
        self.vocab_size, self.alpha = vocab_size, alpha

    def probabilities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        weights = np.full((len(left), self.vocab_size), 1.0 / self.vocab_size)
        again = (self.alpha + (left == right)) / (self.alpha * self.vocab_size + 1)
        weights[np.arange(len(left)), left] = again
        q: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return q

    def replaced(self, rate: float) -> np.ndarray:
        """The same for every symbol: none is more frequent than another."""
        right = np.arange(self.vocab_size)
        q = self.probabilities(np.zeros_like(right), right)  # (right, middle), after symbol 0
        right_after = np.full((self.vocab_size, self.vocab_size), 1.0 / self.vocab_size)  # (middle, right)
        right_after[0] = (self.alpha + (right == 0)) / (self.alpha * self.vocab_size + 1)
        kept = (right_after.T * q).sum() / self.vocab_size
        return np.full(self.vocab_size, rate * (1 - kept))
