import math

from references.base import Reference, dot, sigmoid


def fox(geometry, gates):
    """Every token after the key, up to the query, costs -log f_u; on the other side, the query and all up to the key."""

    def of_layer(weight, bias):
        def content(queries, keys, inputs, m, n, h):
            side, between = (0, range(n + 1, m + 1)) if n <= m else (1, range(m, n))
            return sum(math.log(sigmoid(dot(weight[side][h], inputs[u]) + bias[side][h])) for u in between)

        return Reference(content=content)

    return [of_layer(**layer) for layer in gates]
