"""The formulas of the papers, pair by pair in float64: what every scheme of conf/position is checked against.

Nothing here comes from extrap and nothing is vectorised. A reference takes the sizes of the model, the arguments of the
scheme's file in conf/position and the scheme's trained tables as nested lists, and returns what the paper says about one
query at position i and one key at position j; a list of such references, one for each layer, where layers differ. To add
one: write the function, and name it in REFERENCES.
"""

import cmath
import math
from collections.abc import Callable
from typing import NamedTuple


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def scaled(q, k, i, j, h):
    return dot(q, k) / math.sqrt(len(q))


def softmax(scores, h):
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return [weight / sum(weights) for weight in weights]


class Reference(NamedTuple):
    """Vectors are lists of floats, heads are counted from 0."""

    score: Callable = scaled  # (q_i, k_j, i, j, h) -> float, i and j positions
    keep: Callable = lambda i, j: True  # may i attend to j, causality aside
    add: Callable | None = None  # t -> the vector that joins the input at t, None for nothing
    content: Callable | None = None  # (queries, keys, inputs, m, n, h) -> what joins the score of query m and key n
    weigh: Callable = softmax  # (scores, h) -> what the values count for


def tables(module):
    """The trained tables of a scheme by name, lists in its lists of parameters and of modules."""
    found = {key: parameter.tolist() for key, parameter in module.named_parameters(recurse=False)}
    for key, child in module.named_children():
        if type(child).__name__ == "ParameterList":
            found[key] = [parameter.tolist() for parameter in child]
        if type(child).__name__ == "ModuleList":
            found[key] = [tables(one) for one in child]
    return found


def of_layers(scheme, reference):
    """The scheme of each layer beside its formula, once where layers share it."""
    n_layers = scheme.geometry.n_layers
    formulas = [reference] * n_layers if isinstance(reference, Reference) else reference
    return [*dict(zip(scheme.layers(n_layers), formulas, strict=True)).items()]


def attend(reference, q, k, v, positions, causal, x=None):
    """weigh over the allowed keys, times v: lists (B, H, T, K), x (B, T, D), positions (T,) -> list (B, H, T, K)."""
    output = []
    for heads, inputs in zip(zip(q, k, v, strict=True), x or [None] * len(q), strict=True):
        output.append(
            [attend_head(reference, *head, inputs, positions, causal, h) for h, head in enumerate(zip(*heads, strict=True))]
        )
    return output


def attend_head(reference, queries, keys, values, inputs, positions, causal, h):
    rows = []
    for m, i in enumerate(positions):
        seen = [n for n, j in enumerate(positions) if (j <= i or not causal) and reference.keep(i, j)]
        scores = [reference.score(queries[m], keys[n], i, positions[n], h) for n in seen]
        if reference.content:
            scores = [s + reference.content(queries, keys, inputs, m, n, h) for s, n in zip(scores, seen, strict=True)]
        weights = reference.weigh(scores, h)
        rows.append([dot(weights, column) for column in zip(*(values[n] for n in seen), strict=True)])
    return rows


def nope(geometry):
    return Reference()


def learned(geometry, table):
    """Devlin et al. 2019: x_t + table[t]."""
    return Reference(add=lambda t: table[t])


def sinusoidal(geometry, base):
    """Vaswani et al. 2017, section 3.5: PE(t, 2k) = sin(t / base^(2k/D)), PE(t, 2k+1) = cos(t / base^(2k/D))."""

    def add(t):
        vector = []
        for k in range(geometry.d_model // 2):
            angle = t / base ** (2 * k / geometry.d_model)
            vector += [math.sin(angle), math.cos(angle)]
        return vector

    return Reference(add=add)


def rope(geometry, base):
    """Su et al. 2021, equation 12 for each pair: Re[q * conj(k) * exp(1i * (i - j) * theta_c)], theta_c = base^(-2c/K).

    The relative form, which never rotates anything. Pair c is (x_2c, x_2c+1).
    """

    def score(q, k, i, j, h):
        total = 0.0
        for c in range(len(q) // 2):
            turn = cmath.exp(1j * (i - j) * base ** (-2 * c / len(q)))
            total += (complex(q[2 * c], q[2 * c + 1]) * complex(k[2 * c], k[2 * c + 1]).conjugate() * turn).real
        return total / math.sqrt(len(q))

    return Reference(score=score)


def alibi(geometry):
    """Press et al. 2022, section 3: q.k / sqrt(K) - m_h * |i - j|, slopes as in the released code."""

    def slopes(n):
        if math.log2(n).is_integer():
            ratio = 2 ** (-(2 ** -(math.log2(n) - 3)))
            return [ratio ** (h + 1) for h in range(n)]
        power = 2 ** math.floor(math.log2(n))
        return slopes(power) + slopes(2 * power)[0::2][: n - power]

    m = slopes(geometry.n_heads)
    return Reference(score=lambda q, k, i, j, h: scaled(q, k, i, j, h) - m[h] * abs(i - j))


def local(geometry, inner, window):
    """Keys with |i - j| < window, scored as the inner scheme scores them."""
    return inner._replace(keep=lambda i, j: abs(i - j) < window and inner.keep(i, j))


def t5(geometry, bias, n_buckets, max_distance):
    """Raffel et al. 2020, section 2.1, with the factor of GPT-NeoX: q.k / sqrt(K) + sqrt(K) * bias[h][bucket(i, j)]."""

    def log_spaced(distance, size):
        """exact + the largest c with distance / exact >= (max_distance / exact)^(c / rest), in whole numbers."""
        exact = size // 2
        rest = size - exact
        if distance < exact:
            return distance
        c = 0
        while c < rest - 1 and distance**rest * exact ** (c + 1) >= max_distance ** (c + 1) * exact**rest:
            c += 1
        return exact + c

    def bucket(i, j):
        if geometry.causal:
            return log_spaced(i - j, n_buckets)
        side = n_buckets // 2
        return log_spaced(i - j, side) if j <= i else side + log_spaced(j - i, side)

    factor = math.sqrt(geometry.head_dim)
    return Reference(score=lambda q, k, i, j, h: scaled(q, k, i, j, h) + factor * bias[h][bucket(i, j)])


def kerple(geometry, r1, r2):
    """Chi et al. 2022, equation 6: q.k / sqrt(K) - r1_h * log(1 + r2_h * |i - j|), r1 and r2 not below 0.01."""

    def score(q, k, i, j, h):
        return scaled(q, k, i, j, h) - max(r1[h], 0.01) * math.log(1 + max(r2[h], 0.01) * abs(i - j))

    return Reference(score=score)


REFERENCES = {  # by the name of the file in conf/position
    "nope": nope,
    "learned": learned,
    "sinusoidal": sinusoidal,
    "rope": rope,
    "alibi": alibi,
    "local": local,
    "t5": t5,
    "kerple": kerple,
}
