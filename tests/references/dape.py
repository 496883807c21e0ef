from references.base import dot


def dape(geometry, inner, kernel, maps):
    """f of the scores and biases of all heads at a key and those beside it, in two steps; zeros stand outside."""
    n_heads, reach = geometry.n_heads, range(-(kernel // 2), kernel // 2 + 1)

    def of_layer(first, bias, second):
        def across(queries, keys, positions):
            n_tokens = len(positions)

            def read(m, n):
                """2H numbers: scores without a bias, and biases."""
                if n < 0 or n > (m if geometry.causal else n_tokens - 1):
                    return [0.0] * (2 * n_heads)
                i, j, nothing = positions[m], positions[n], [0.0] * geometry.head_dim
                biases = [inner.score(nothing, nothing, i, j, h) for h in range(n_heads)]
                sums = [inner.score(queries[h][m], keys[h][n], i, j, h) for h in range(n_heads)]
                return [s - b for s, b in zip(sums, biases, strict=True)] + biases

            def mapped(weight, bias, read):
                for row, b in zip(weight, bias, strict=True):
                    taps = zip(*row, strict=True)  # the weights of a key before, of the key itself, of one behind
                    yield b + sum(dot(tap, part) for tap, part in zip(taps, read, strict=True))

            def joins_of(m):
                numbers = {n: read(m, n) for n in range(-2, n_tokens + 3)}
                hidden = {
                    n: [max(x, 0.01 * x) for x in mapped(first, bias, [numbers[n + o] for o in reach])]
                    for n in range(-1, n_tokens + 1)
                }
                last = m if geometry.causal else n_tokens - 1
                return [[*mapped(second, [0.0] * n_heads, [hidden[n + o] for o in reach])] for n in range(last + 1)]

            rows = [joins_of(m) for m in range(n_tokens)]
            return [[[heads[h] for heads in row] for row in rows] for h in range(n_heads)]

        return inner._replace(across=across)

    return [of_layer(**layer) for layer in maps]
