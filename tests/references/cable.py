import math

from references import base
from references.base import Reference, dot


def softplus(x):
    return math.log(1 + math.exp(x))


def cable(geometry, form, scaled, costs):
    """What every token after the key, up to the query, adds; on the other side, the query and all up to the key."""

    def of_layer(weight, bias=None, strength=None):
        def content(queries, keys, inputs, m, n, h):
            side, between = (0, range(n + 1, m + 1)) if n <= m else (1, range(m, n))
            steps = [dot(weight[side][h], inputs[u]) + (bias[side][h] if bias else 0) for u in between]
            if form == "printed":
                return softplus(dot(strength[side][h], inputs[m])) * sum(max(0, step) for step in steps)
            cost = sum(softplus(step) for step in steps)
            return -cost if form == "released" else -softplus(dot(strength[side][h], inputs[m])) * cost

        return Reference(score=base.scaled if scaled else lambda q, k, i, j, h: dot(q, k), content=content)

    return [of_layer(**layer) for layer in costs]
