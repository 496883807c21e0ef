import math


def sinks(geometry, inner, sinks):
    """A softmax over one logit more, whose share is lost."""

    def of_layer(sink):
        def weigh(scores, h):
            total = math.exp(sink[h]) + sum(math.exp(score) for score in scores)
            return [math.exp(score) / total for score in scores]

        return inner._replace(weigh=weigh)

    return [of_layer(layer) for layer in sinks]
