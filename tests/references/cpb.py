import math

from references.base import Reference, dot, scaled, sigmoid


def cpb(geometry, log_distance, first, first_bias, second, second_bias, last):
    """Linear(1, D/4), SiLU, Linear(D/4, D/4), SiLU, Linear(D/4, H) of i - j, or of its logarithm with its sign.

    The last map has no bias.
    """

    def silu(x):
        return x * sigmoid(x) if x > -700 else 0.0

    def layer(weight, bias, inputs):
        return [dot(row, inputs) + b for row, b in zip(weight, bias, strict=True)]

    def score(q, k, i, j, h):
        t = i - j
        if log_distance:
            t = math.copysign(math.log(1 + abs(t)), t)
        hidden = [silu(x) for x in layer(first, first_bias, [t])]
        hidden = [silu(x) for x in layer(second, second_bias, hidden)]
        return scaled(q, k, i, j, h) + dot(last[h], hidden)

    return Reference(score=score)
