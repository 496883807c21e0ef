import math

from references.base import Reference, scaled


def t5(geometry, bias, n_buckets, max_distance):
    """Raffel et al. 2020, section 2.1, with the factor of GPT-NeoX: q.k / sqrt(K) + sqrt(K) * bias[h][bucket(i, j)]."""

    def log_spaced(distance, size):
        """exact + the largest c with distance / exact >= (max_distance / exact)^(c / rest), in whole numbers."""
        exact = size // 2
        rest = size - exact
        if distance < exact:
            return distance
        c = 0
        while c < rest - 1 and distance**rest * exact ** (c + 1) >= max_distance ** (c + 1) * exact**rest:
            c += 1
        return exact + c

    def bucket(i, j):
        if geometry.causal:
            return log_spaced(i - j, n_buckets)
        side = n_buckets // 2
        return log_spaced(i - j, side) if j <= i else side + log_spaced(j - i, side)

    factor = math.sqrt(geometry.head_dim)
    return Reference(score=lambda q, k, i, j, h: scaled(q, k, i, j, h) + factor * bias[h][bucket(i, j)])
