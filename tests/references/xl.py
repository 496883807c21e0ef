import math

from references.base import Reference, dot


def transformerxl(geometry, sinusoids):
    """Dai et al. 2019, section 3.3: of i - j the sines of all frequencies, then the cosines, mapped to a key."""
    frequencies = [10_000 ** (-2 * m / geometry.d_model) for m in range(geometry.d_model // 2)]

    def of_layer(u, v, weight):
        def score(q, k, i, j, h):
            angles = [frequency * (i - j) for frequency in frequencies]
            r = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            key = [dot(row, r) for row in weight[h]]
            with_u, with_v = ([a + b for a, b in zip(q, bias[h], strict=True)] for bias in (u, v))
            return (dot(with_u, k) + dot(with_v, key)) / math.sqrt(geometry.head_dim)

        return Reference(score=score)

    return [of_layer(**layer) for layer in sinusoids]
