import math

from references.base import Reference


def fire(geometry, functions):
    """Li et al. 2024, the listing: log(|c t| + 1) over log(|c max(i, |threshold|)| + 1) + 1e-6 through 32 ReLUs.

    The threshold starts at a quarter of the training length. Ahead, the mirror image, with a minus sign.
    """

    def of_layer(c, factor, hidden, hidden_bias, out):
        def place(i, j):
            t = math.log(abs(c[0] * (i - j)) + 1)
            return t / (math.log(abs(c[0] * max(i, abs(factor[0] * geometry.train_len / 4))) + 1) + 1e-6)

        def among(positions, m, n, h):
            i, j, last = positions[m], positions[n], positions[-1]
            x = place(i, j) if j <= i else -place(last - i, last - j)
            units = [max(0, w[0] * x + b) for w, b in zip(hidden, hidden_bias, strict=True)]
            return sum(w * unit for w, unit in zip(out[h], units, strict=True))

        return Reference(among=among)

    return [of_layer(**layer) for layer in functions]
