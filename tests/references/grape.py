import math

from references.alibi import alibi
from references.base import Reference, dot, scaled


def grape(geometry, gates):
    """Zhang et al. 2025, equation 4.6, key-gated: a step costs m_h * softplus(omega_h) * softplus(u_h . k_j / sqrt(K)).

    m are ALiBi's slopes; u has unit length.
    """

    def softplus(x):
        return math.log(1 + math.exp(x))

    def slope(h):
        nothing = [0.0]
        return -alibi(geometry).score(nothing, nothing, 1, 0, h)

    def of_layer(omega, u):
        def score(q, k, i, j, h):
            gate = softplus(dot(u[h], k) / math.sqrt(dot(u[h], u[h])) / math.sqrt(geometry.head_dim))
            return scaled(q, k, i, j, h) - abs(i - j) * slope(h) * softplus(omega[h]) * gate

        return Reference(score=score)

    return [of_layer(**layer) for layer in gates]
