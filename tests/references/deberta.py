import functools
import math
from fractions import Fraction

from references.base import Reference, dot


def deberta(geometry, span, max_distance, table, to_key, to_query):
    """He et al. 2021, equation 4, with the bucket of i - j in both terms; buckets as in the second version's code."""

    def norm(row):
        mean = sum(row) / len(row)
        variance = sum((x - mean) ** 2 for x in row) / len(row)
        return [(x - mean) / math.sqrt(variance + 1e-5) for x in row]

    @functools.cache
    def log_spaced(distance):
        """m + the least c with (distance / m)^(m - 1) <= ((max_distance - 1) / m)^c, in fractions."""
        m = span // 2
        if max_distance is None or distance <= m:
            return distance
        c, distance = 0, min(distance, max_distance - 1)
        while m + c < span and Fraction(distance, m) ** (m - 1) > Fraction(max_distance - 1, m) ** c:
            c += 1
        return m + c

    def bucket(i, j):
        if geometry.causal:
            return min(log_spaced(i - j), span - 1)
        return span + (min(log_spaced(i - j), span - 1) if j <= i else -min(log_spaced(j - i), span))

    positions = [norm(row) for row in table]

    def of_layer(key_map, query_map):
        def mapped(matrices):
            columns = [[*zip(*matrix, strict=True)] for matrix in matrices]
            return [[[dot(p, column) for column in head] for p in positions] for head in columns]  # [h][bucket]

        as_keys, as_queries = mapped(key_map), mapped(query_map)

        def score(q, k, i, j, h):
            d = bucket(i, j)
            return (dot(q, k) + dot(q, as_keys[h][d]) + dot(k, as_queries[h][d])) / math.sqrt(3 * geometry.head_dim)

        return Reference(score=score)

    return [of_layer(*maps) for maps in zip(to_key, to_query, strict=True)]
