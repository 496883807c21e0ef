"""The formulas of the papers, pair by pair in float64: what every scheme of conf/position is checked against.

Nothing here comes from extrap and nothing is vectorised. A reference takes the sizes of the model, the arguments of the
scheme's file in conf/position and the scheme's trained tables as nested lists, and returns what the paper says about one
query at position i and one key at position j; a list of such references, one for each layer, where layers differ. That of
the class Kerple of extrap/positions/kerple.py is the function kerple of kerple.py beside this file.
"""

import importlib
import math
import operator
from collections.abc import Callable
from typing import NamedTuple


def dot(a, b):
    assert len(a) == len(b)
    return sum(map(operator.mul, a, b))  # half the time of a loop: all references together are dots


def scaled(q, k, i, j, h):
    return dot(q, k) / math.sqrt(len(q))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(scores, h):
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


class Reference(NamedTuple):
    """Vectors are lists of floats, heads are counted from 0."""

    score: Callable = scaled  # (q_i, k_j, i, j, h) -> float, i and j positions
    keep: Callable = lambda i, j: True  # may i attend to j, causality aside
    add: Callable | None = None  # t -> the vector that joins the input at t, None for nothing
    content: Callable | None = None  # (queries, keys, inputs, m, n, h) -> what joins the score of query m and key n
    among: Callable | None = None  # (positions, m, n, h) -> the same, where it takes the positions of all tokens
    sharpness: Callable | None = None  # (n keys that the query sees, h) -> what multiplies the query in `score`
    across: Callable | None = None  # (queries and keys of all heads, positions) -> [h][m][n], what joins their scores
    weigh: Callable = softmax  # (scores, h) -> what the values count for


def formula(spec, scheme):
    """The reference of a scheme that was built of a spec, with the spec's arguments and the scheme's tables."""
    *_, module, name = spec["_target_"].split(".")
    try:
        reference = getattr(importlib.import_module(f"references.{module}"), name.lower())
    except (ModuleNotFoundError, AttributeError) as error:
        raise LookupError(
            f"{name} has no reference: write {name.lower()}(geometry, ...) in tests/references/{module}.py, in loops, from "
            "the paper, with the arguments of its file in conf/position and the scheme's parameters by name"
        ) from error
    arguments = {key: value for key, value in spec.items() if key != "_target_"}
    for key, value in arguments.items():
        if isinstance(value, dict):
            arguments[key] = formula(value, getattr(scheme, key))
    return reference(scheme.geometry, **arguments, **tables(scheme))


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
        joins = reference.across(*heads[:2], positions) if reference.across else [None] * len(heads[0])
        output.append(
            [
                attend_head(reference, *head, inputs, positions, causal, h, joins[h])
                for h, head in enumerate(zip(*heads, strict=True))
            ]
        )
    return output


def attend_head(reference, queries, keys, values, inputs, positions, causal, h, joins=None):
    rows = []
    for m, i in enumerate(positions):
        seen = [n for n, j in enumerate(positions) if (j <= i or not causal) and reference.keep(i, j)]
        grown = reference.sharpness(len(seen), h) if reference.sharpness else 1.0
        query = [grown * x for x in queries[m]]
        scores = [reference.score(query, keys[n], i, positions[n], h) for n in seen]
        if reference.content:
            scores = [s + reference.content(queries, keys, inputs, m, n, h) for s, n in zip(scores, seen, strict=True)]
        if reference.among:
            scores = [s + reference.among(positions, m, n, h) for s, n in zip(scores, seen, strict=True)]
        if joins:
            scores = [s + joins[m][n] for s, n in zip(scores, seen, strict=True)]
        weights = reference.weigh(scores, h)
        rows.append([dot(weights, column) for column in zip(*(values[n] for n in seen), strict=True)])
    return rows
