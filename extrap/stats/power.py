"""How many seeds it takes to decide a comparison. Imports no torch."""

from bisect import bisect_left

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit

from extrap.stats.perplexity import CONFIDENCE

POWER = 0.8
MOST_SEEDS = 1_000  # what would need more is not worth a number
ROUNDING = 1e-5  # nats: what two ways of computing the same model in float32 may differ by


def seeds_needed(difference: np.ndarray) -> int | None:
    """Seeds for which a two-sided 5 % t test finds a difference as large and as varied as this one in 80 % of all tries.

    See `power`; Holm's factors would ask for more. None for a single seed, where nothing differs but by rounding, and where
    1,000 are not enough.
    """
    if len(difference) < 2 or np.abs(difference).max() <= ROUNDING:
        return None
    with np.errstate(divide="ignore"):
        effect = float(abs(difference.mean()) / difference.std(ddof=1))
    n = 2 + bisect_left(range(2, MOST_SEEDS + 1), POWER, key=lambda n: power(effect, n))
    return n if n <= MOST_SEEDS else None


NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)  # on [-1, 1]


def power(effect: float, n: int) -> float:
    """How often a two-sided 5 % t test of n values finds a mean of `effect` standard deviations.

    E[Phi(d - c s) + Phi(-d - c s)] over s = sqrt(chi2_{n-1} / (n - 1)), d = sqrt(n) effect, c = t_{0.975, n-1}, by
    Gauss-Legendre quadrature: scipy.special has the distribution function of noncentral t, but nan in its far tail.
    """
    critical, shift = stdtrit(n - 1, 0.5 + CONFIDENCE / 2), np.sqrt(n) * effect
    s = np.sqrt(chdtri(n - 1, 1e-16) / (n - 1)) * (NODES + 1) / 2  # beyond, nothing is left
    log_density = (n - 2) * np.log(s) - (n - 1) * s**2 / 2
    weight = WEIGHTS * np.exp(log_density - log_density.max())
    return float(weight @ (ndtr(shift - critical * s) + ndtr(-shift - critical * s)) / weight.sum())
