import math

from references.base import Reference, scaled


def alibi(geometry):
    """Press et al. 2022, section 3: q.k / sqrt(K) - m_h * |i - j|, slopes as in the released code."""

    def slopes(n):
        if math.log2(n).is_integer():
            ratio = 2 ** (-(2 ** -(math.log2(n) - 3)))
            return [ratio ** (h + 1) for h in range(n)]
        power = 2 ** math.floor(math.log2(n))
        return slopes(power) + slopes(2 * power)[0::2][: n - power]

    m = slopes(geometry.n_heads)
    return Reference(score=lambda q, k, i, j, h: scaled(q, k, i, j, h) - m[h] * abs(i - j))
