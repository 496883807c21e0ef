import math

from references.base import Reference


def softplus(x):
    return math.log1p(math.exp(x))


def pope(geometry, base, delta):
    """Gopalakrishnan et al. 2025: sizes of what is read, angles of positions, less a trained one from -2 pi to 0."""
    size = geometry.head_dim

    def score(q, k, i, j, h):
        total = 0.0
        for m in range(size):
            angle = (i - j) * base ** (-m / size) - max(-2 * math.pi, min(delta[h][m], 0))
            total += softplus(q[m]) * softplus(k[m]) * math.cos(angle)
        return total / math.sqrt(size)

    return Reference(score=score)
