"""What may stand between two tokens: the corrupters of replaced-token detection. Imports no torch."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from scipy.sparse import coo_array, csr_array

MOST_TOKENS = 8192  # that pairs of are counted of: for what is known of all contexts, matrices of V x V are multiplied
TRUST = 2.0  # occurrences that what the two neighbours say one by one counts for
MOST_AT_ONCE = 2**24  # probabilities that are held, of 8 bytes each and a few copies
SMOOTH = 0.5  # and what the frequencies say, beside those of a single neighbour


class Corrupter(Protocol):
    """A distribution q(b | a, c) of the token b between its neighbours a and c."""

    def probabilities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(N, V) float64, each row a distribution, of N pairs of neighbours."""

    def replaced(self, rate: float) -> np.ndarray:
        """(V,): how often each token is not the true one in training text of which a share `rate` is drawn from q."""


class Places(NamedTuple):
    """Distributions at N positions: the pairs of neighbours that occur, and which of them is whose."""

    corrupter: Corrupter
    vocab_size: int
    pairs: np.ndarray  # (pairs,), left * V + right
    pair: np.ndarray  # (N,)

    def of(self, tokens: np.ndarray) -> np.ndarray:
        """(N,): q of a token at each position."""
        chances = np.empty(len(self.pair))
        for q, at, own in self._parts():
            chances[at] = q[own, tokens[at]]
        return chances

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(N,) int64: a token at each position."""
        drawn, uniform = np.empty(len(self.pair), np.int64), rng.random(len(self.pair))
        for q, at, own in self._parts():
            upper = q.cumsum(axis=1)
            upper /= upper[:, -1:]  # rounding must not leave a draw above the last token
            stacked = (upper + np.arange(len(q))[:, None]).ravel()
            found = np.searchsorted(stacked, own + uniform[at], side="right") - own * self.vocab_size
            drawn[at] = np.minimum(found, self.vocab_size - 1)  # a sum may round up to the next whole number
        return drawn

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """q (some pairs, V), the positions that are between these, and which of them is whose: all at once take gigabytes
        where tokens are many."""
        step = max(1, MOST_AT_ONCE // self.vocab_size)
        for first in range(0, len(self.pairs), step):
            at = np.flatnonzero((self.pair >= first) & (self.pair < first + step))
            left, right = np.divmod(self.pairs[first : first + step], self.vocab_size)
            yield self.corrupter.probabilities(left, right), at, self.pair[at] - first


def places(corrupter: Corrupter, left: np.ndarray, right: np.ndarray, vocab_size: int) -> Places:
    pairs, pair = np.unique(left * vocab_size + right, return_inverse=True)
    return Places(corrupter, vocab_size, pairs, pair)


class Counted:
    """q(b | a, c) = (n_abc + 2 r(b)) / (n_ac + 2), r(b) proportional to p(b | a) p(b | c) / p(b).

    n_abc counts a, b, c in a row, n_ac whatever stands between a and c; p(b | a) and p(b | c), of the token after a and of
    that before c, are frequencies with half an occurrence more, shared out by p(b), which counts every token once more.
    """

    def __init__(self, texts: Iterable[np.ndarray], vocab_size: int) -> None:
        """Of texts of tokens, each (T,) int64; nothing is counted across two of them."""
        self.vocab_size = vocab_size
        n, pairs, rows = np.ones(vocab_size), [], []
        for text in texts:
            n += np.bincount(text, minlength=vocab_size)
            pairs.append(text[:-1] * vocab_size + text[1:])
            rows.append((text[:-2] * vocab_size + text[2:]) * vocab_size + text[1:-1])
        self.p = n / n.sum()
        codes, counts = np.unique(np.concatenate(pairs), return_counts=True)
        self.pairs = coo_array((counts.astype(float), np.divmod(codes, vocab_size)), shape=(vocab_size, vocab_size)).tocsr()
        self.pairs_back = self.pairs.T.tocsr()
        self.codes, self.counts = np.unique(np.concatenate(rows), return_counts=True)

    def probabilities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        single = self._beside(self.pairs, left) * self._beside(self.pairs_back, right) / self.p
        weights = TRUST * single / single.sum(axis=1, keepdims=True)
        first = (left * self.vocab_size + right) * self.vocab_size
        start, stop = np.searchsorted(self.codes, first), np.searchsorted(self.codes, first + self.vocab_size)
        row = np.repeat(np.arange(len(left)), stop - start)
        at = np.arange(len(row)) - np.repeat(np.cumsum(stop - start) - stop, stop - start)
        weights[row, self.codes[at] % self.vocab_size] += self.counts[at]
        q: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return q

    def _beside(self, pairs: csr_array, tokens: np.ndarray) -> np.ndarray:
        """(N, V): p(b | a) of these tokens a, from the counts of pairs (a, b)."""
        counts = pairs[tokens].toarray()
        beside: np.ndarray = (counts + SMOOTH * self.p) / (counts.sum(axis=1, keepdims=True) + SMOOTH)
        return beside

    def replaced(self, rate: float) -> np.ndarray:
        """With one occurrence of each token more, replaced as often as all are: of one that never occurs little is known.

        Of a token b in contexts (a, c), sum_ac n_ac q(b | a, c) are drawn in its place, and sum_abc n_abc q of these are b
        itself. What r adds to the first is sum_ac w_ac p(b | a) p(b | c) / p(b), with w_ac = 2 n_ac / (n_ac + 2) over the
        sum of p(b | a) p(b | c) / p(b) over all b.
        """
        every, size = np.arange(self.vocab_size), self.vocab_size
        contexts, middle = np.divmod(self.codes, size)
        pairs, which, n = *np.unique(contexts, return_inverse=True), self.counts
        n_ac = np.bincount(which, n)
        left, right = np.divmod(pairs, size)
        after, before = self._beside(self.pairs, every), self._beside(self.pairs_back, every)
        scale = (after / self.p) @ before.T
        weights = np.zeros((size, size))
        weights[left, right] = TRUST * n_ac / (n_ac + TRUST) / scale[left, right]
        drawn = np.bincount(middle, n * (n_ac / (n_ac + TRUST))[which], minlength=size)
        drawn += (after * (weights @ before)).sum(axis=0) / self.p
        a, c = left[which], right[which]
        r = TRUST * after[a, middle] * before[c, middle] / self.p[middle] / scale[a, c]
        itself = np.bincount(middle, n * (n + r) / (n_ac + TRUST)[which], minlength=size)
        fakes = rate * (drawn - itself)
        read = (1 - rate) * np.bincount(middle, n, minlength=size) + rate * drawn
        share = fakes.sum() / read.sum()
        chances: np.ndarray = (fakes + share) / (read + 1)
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
