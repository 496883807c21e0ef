import cmath
import math

from references.base import Reference


def turned(theta):
    """The sum over pairs c = (x_2c, x_2c+1) of Re[q_c * conj(k_c) * exp(1i * (i - j) * theta_c)], over sqrt(K).

    The relative form, which never rotates anything.
    """

    def score(q, k, i, j, h):
        total = 0.0
        for c in range(len(q) // 2):
            turn = cmath.exp(1j * (i - j) * theta(c))
            total += (complex(q[2 * c], q[2 * c + 1]) * complex(k[2 * c], k[2 * c + 1]).conjugate() * turn).real
        return total / math.sqrt(len(q))

    return Reference(score=score)


def rope(geometry, base):
    """Su et al. 2021, equation 12 for each pair."""
    return turned(lambda c: base ** (-2 * c / geometry.head_dim))


def partialrope(geometry, fraction, base):
    """RoPE on the first dimensions, as if there were no others; q . k on those."""
    rotated = 2 * math.floor(fraction * geometry.head_dim / 2)
    return turned(lambda c: base ** (-2 * c / rotated) if 2 * c < rotated else 0)


def prope(geometry, fraction, base):
    def theta(c):
        angle = base ** (-2 * c / geometry.head_dim)
        turns = geometry.train_len * angle / (2 * math.pi)
        kept = turns >= 1 if fraction is None else c < math.floor(fraction * geometry.head_dim / 2)
        return angle if kept else 0

    return turned(theta)


def learnedrope(geometry, base, log_factors):
    return turned(lambda c: math.exp(log_factors[c] - 2 * c / geometry.head_dim * math.log(base)))
