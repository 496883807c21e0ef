"""Every path of our attention against the definition in float64, on trained weights: a difference is an error."""

import copy

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.speed.long import Layer, layers_of
from experiments.speed.ours import Trained
from experiments.speed.rounds import Row
from extrap.errors import UserError
from extrap.model.attention import prepare
from extrap.model.definition import attend_reference
from extrap.testing.case import answers, define

TOLERANCE = 1e-5  # of the largest number in the reference
# A gradient whose terms nearly cancel is not known to TOLERANCE in float32 at all: the definition itself, computed in
# float32, is further off. No path may be more than this many times as far.
OVER_ROUNDING = 2.0
FLOAT32 = "the definition in float32"
LENGTHS = (251, 1_237)  # no multiple of anything
LONG = 16_411
N_ROWS = 64  # queries looked at where the whole grid does not fit


def check(trained: list[Trained], tokens: Tensor) -> list[Row]:
    """The largest relative difference of each path. Raises UserError for one above its TOLERANCE."""
    rows: list[Row] = []
    for one in tqdm(trained, desc="comparing with the definition", disable=None, leave=False):
        for n in (*LENGTHS, LONG):
            found = [errors_of(one, layer) for layer in layers_of(one.encoder, tokens[:, :n])]
            errors = {path: float(np.max([of_layer[path] for of_layer in found])) for path in found[0]}
            for path, error in errors.items():
                allowed = max(TOLERANCE, OVER_ROUNDING * errors[FLOAT32]) if path.startswith("training") else TOLERANCE
                if path != FLOAT32 and not error <= allowed:
                    raise UserError(
                        f"attention of {one.scheme}, {one.objective}, {n:,} tokens, {path}: differs from the float64 "
                        f"reference by {error:.1e} of its largest number, expected at most {allowed:.0e}"
                    )
                rows.append(one.columns(n) | {"case": "equality", "setting": path, "value": error, "unit": "relative"})
    return rows


def errors_of(one: Trained, layer: Layer) -> dict[str, float]:
    """Evaluation against the definition, and training where n is small: what comes out, and what flows back.

    Where n is not small, evaluation is looked at for a sample of the queries.
    """
    n, device = layer.mixed.shape[2], layer.mixed.device
    scheme = one.encoder.scheme
    exact = copy.deepcopy(scheme).to(torch.float64)  # gradients are summed up in the type of the parameters
    pos, given = scheme.positions(n, device), [*layer.qkv]
    q, k, v = wide = [part.to(torch.float64) for part in given]
    if n not in LENGTHS:  # both ends, where chunks and windows are cut, and places between them
        inner = torch.randint(n, (N_ROWS - 2,), generator=torch.Generator().manual_seed(0))
        rows = torch.cat([torch.tensor([0, n - 1]), inner]).to(device)
        with torch.no_grad():
            return {"forward": difference([layer.mixed[:, :, rows]], [attend_reference(exact, pos, q, k, v, q_idx=rows)])}
    weight = torch.randn(layer.mixed.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    ours = answers(prepare, scheme, pos, True, given, weight)
    wanted = answers(define, exact, pos, True, wide, weight)
    in_float32 = answers(define, scheme, pos, True, given, weight)
    errors = {"forward": difference([layer.mixed], wanted[:1])}
    errors["training"] = difference(ours[:4], wanted[:4])  # what comes out; gradients of queries, keys and values
    if parameters := wanted[4:]:
        errors["training, parameters"] = difference(ours[4:], parameters)
    return errors | {FLOAT32: difference(in_float32[1:4], wanted[1:4])}


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference over the largest number, of several tensors the worst; no number where there is none."""
    pairs = zip(found, expected, strict=True)
    least = torch.finfo(torch.float64).tiny  # a table that is added before attention has no gradient here
    return float(torch.stack([(a.to(b.dtype) - b).abs().max() / b.abs().max().clamp(min=least) for a, b in pairs]).max())
