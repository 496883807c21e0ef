import math

from references.base import Reference, scaled


def kerple(geometry, r1, r2):
    """Chi et al. 2022, equation 6: q.k / sqrt(K) - r1_h * log(1 + r2_h * |i - j|), r1 and r2 not below 0.01."""

    def score(q, k, i, j, h):
        return scaled(q, k, i, j, h) - max(r1[h], 0.01) * math.log(1 + max(r2[h], 0.01) * abs(i - j))

    return Reference(score=score)
