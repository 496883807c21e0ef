import math

from references.base import Reference, dot


def shaw(geometry, clip, tables):
    """Shaw et al. 2018, equation 4, with a key and the vector of how far it stands after the query added up first."""

    def of_layer(table):
        def score(q, k, i, j, h):
            offset = max(-clip, min(j - i, clip))
            return dot(q, [a + b for a, b in zip(k, table[h][offset + clip], strict=True)]) / math.sqrt(geometry.head_dim)

        return Reference(score=score)

    return [of_layer(**layer) for layer in tables]
