import math

from references.base import Reference, scaled


def sandwich(geometry, dim):
    """Chi et al. 2023: sinusoids of width dim, their inner product a sum of cosines, over 8h/H for the h-th head."""

    def score(q, k, i, j, h):
        cosines = sum(math.cos((i - j) / 10_000 ** (2 * c / dim)) for c in range(dim // 2))
        return scaled(q, k, i, j, h) + (cosines - dim / 2) / (8 * (h + 1) / geometry.n_heads)

    return Reference(score=score)
