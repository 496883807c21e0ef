import cmath
import math

from references.base import Reference


def xpos(geometry, scale_base, base):
    """Sun et al. 2022: RoPE, each pair times zeta^(distance / scale_base), zeta = (2c/K + g) / (1 + g) and g = 0.4."""
    size = geometry.head_dim

    def score(q, k, i, j, h):
        total = 0.0
        for c in range(size // 2):
            zeta = (2 * c / size + 0.4) / (1 + 0.4)
            grown = cmath.exp(1j * (i - j) * base ** (-2 * c / size)) * zeta ** (abs(i - j) / scale_base)
            total += (complex(q[2 * c], q[2 * c + 1]) * complex(k[2 * c], k[2 * c + 1]).conjugate() * grown).real
        return total / math.sqrt(size)

    return Reference(score=score)
