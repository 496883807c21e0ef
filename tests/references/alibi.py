import math

from references.base import Reference, scaled


def alibi(geometry, variant="symmetric", learned=False, gate=None, offset=None):
    """Press et al. 2022, section 3: q.k / sqrt(K) - m_h * |i - j|, slopes as in the released code, or softplus(-gate).

    half: DeepMind's code has 0.5 * m_h more for every key behind. split: heads see one side, each half of them with slopes
    of its own number. two, offset: keys ahead have the slope m_h * 2^(-4/H), or offset_h less.
    """

    def slopes(n):
        if math.log2(n).is_integer():
            ratio = 2 ** (-(2 ** -(math.log2(n) - 3)))
            return [ratio ** (h + 1) for h in range(n)]
        power = 2 ** math.floor(math.log2(n))
        return slopes(power) + slopes(2 * power)[0::2][: n - power]

    def softplus(x):
        return math.log(1 + math.exp(x))

    n_heads = geometry.n_heads
    behind = slopes(n_heads // 2) * 2 if variant == "split" else slopes(n_heads)
    ahead = [m * 2 ** (-4 / n_heads) for m in behind] if variant == "two" else behind
    if learned:
        behind, ahead = ([softplus(-b) for b in side] for side in (gate if variant == "two" else (gate, gate)))

    def score(q, k, i, j, h):
        if variant == "split" and ((h < n_heads // 2 and j > i) or (h >= n_heads // 2 and j < i)):
            return -math.inf
        total = scaled(q, k, i, j, h) - (behind if j <= i else ahead)[h] * abs(i - j)
        if variant == "half" and j < i:
            total += 0.5 * behind[h]
        if variant == "offset" and j > i:
            total -= offset[h]
        return total

    return Reference(score=score)
