import cmath
import math

from references.base import Reference


def rope(geometry, base):
    """Su et al. 2021, equation 12 for each pair: Re[q * conj(k) * exp(1i * (i - j) * theta_c)], theta_c = base^(-2c/K).

    The relative form, which never rotates anything. Pair c is (x_2c, x_2c+1).
    """

    def score(q, k, i, j, h):
        total = 0.0
        for c in range(len(q) // 2):
            turn = cmath.exp(1j * (i - j) * base ** (-2 * c / len(q)))
            total += (complex(q[2 * c], q[2 * c + 1]) * complex(k[2 * c], k[2 * c + 1]).conjugate() * turn).real
        return total / math.sqrt(len(q))

    return Reference(score=score)
