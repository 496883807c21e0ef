import math

from references.base import Reference, dot, sigmoid


def cope(geometry, n_positions, counted):
    """Of each layer, which has a table of its own."""

    def of_layer(table):
        def content(queries, keys, inputs, m, n, h):
            gates = [sigmoid(dot(queries[m], keys[u]) / math.sqrt(geometry.head_dim)) for u in range(n, m + 1)]
            place = min(sum(gates), n_positions - 1)
            below = math.floor(place)
            above = min(below + 1, n_positions - 1)
            return (1 - place + below) * dot(queries[m], table[below]) + (place - below) * dot(queries[m], table[above])

        return Reference(content=content)

    return [of_layer(layer["table"]) for layer in counted]
