import math

from references.base import Reference, scaled


def kerple(geometry, r1, r2, kernel="log", r3=None):
    """Chi et al. 2022, sections 4 and 5.3: q.k / sqrt(K) - r1_h * log(1 + r2_h * |i - j|), or one of the other kernels.

    No parameter is below 0.01, and no exponent above 2.
    """

    def exponent(r):
        return min(max(r, 0.01), 2)

    def score(q, k, i, j, h):
        t, factor = abs(i - j), max(r1[h], 0.01)
        if kernel == "power":
            return scaled(q, k, i, j, h) - factor * t ** exponent(r2[h])
        if kernel == "three":
            t = t ** exponent(r3[h])
        return scaled(q, k, i, j, h) - factor * math.log(1 + max(r2[h], 0.01) * t)

    return Reference(score=score)
