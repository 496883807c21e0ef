import math

from references.base import dot


def keynorm(geometry, inner):
    """Su 2023: keys of length sqrt(K)."""

    def normed(k):
        length = math.sqrt(dot(k, k))
        return [math.sqrt(len(k)) * x / length for x in k]

    return inner._replace(score=lambda q, k, i, j, h: inner.score(q, normed(k), i, j, h))


def qknorm(geometry, inner, of_queries, of_keys):
    """RMSNorm of each head's queries and keys, with a gain for every dimension of every head."""

    def normed(x, gains):
        root = math.sqrt(dot(x, x) / len(x) + 1e-6)
        return [gain * value / root for gain, value in zip(gains, x, strict=True)]

    def of_layer(g, f):
        return inner._replace(score=lambda q, k, i, j, h: inner.score(normed(q, g[h]), normed(k, f[h]), i, j, h))

    return [of_layer(g, f) for g, f in zip(of_queries, of_keys, strict=True)]
