"""The formulas of the trial schemes, in loops: geometry, arguments and tables -> a Reference, or one for each layer."""

import math

from reference import REFERENCES, Reference, dot


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def rerope(geometry, base, window):
    rope = REFERENCES["rope"](geometry, base)
    return Reference(score=lambda q, k, i, j, h: rope.score(q, k, max(-window, min(i - j, window)), 0, h))


def fox(geometry, gates):
    """Every token after the key, up to the query, costs -log f_u; on the other side, the query and all up to the key."""

    def of_layer(weight, bias):
        def content(queries, keys, inputs, m, n, h):
            side, between = (0, range(n + 1, m + 1)) if n <= m else (1, range(m, n))
            return sum(math.log(sigmoid(dot(weight[side][h], inputs[u]) + bias[side][h])) for u in between)

        return Reference(content=content)

    return [of_layer(**layer) for layer in gates]


def cope(geometry, n_positions, table):
    def content(queries, keys, inputs, m, n, h):
        gates = [sigmoid(dot(queries[m], keys[u]) / math.sqrt(geometry.head_dim)) for u in range(n, m + 1)]
        place = min(sum(gates), n_positions - 1)
        below = math.floor(place)
        above = min(below + 1, n_positions - 1)
        return (1 - place + below) * dot(queries[m], table[below]) + (place - below) * dot(queries[m], table[above])

    return Reference(content=content)


def alternating(geometry, near, wide, period):
    return [wide if layer % period == 0 else near for layer in range(1, geometry.n_layers + 1)]


def sinks(geometry, inner, sinks):
    """A softmax over one logit more, whose share is lost."""

    def of_layer(sink):
        def weigh(scores, h):
            total = math.exp(sink[h]) + sum(math.exp(score) for score in scores)
            return [math.exp(score) / total for score in scores]

        return inner._replace(weigh=weigh)

    return [of_layer(layer) for layer in sinks]
