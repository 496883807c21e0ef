"""Every path of our attention against the definition in float64, on trained weights: a difference is an error."""

import copy

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.speed.long import Layer, Qkv, attention_of, layers_of
from experiments.speed.ours import Trained
from experiments.speed.rounds import Row
from experiments.speed.timings import OURS
from extrap.errors import UserError
from extrap.model.attention import attend_reference

TOLERANCE = 1e-5  # of the largest number in the reference
# A gradient whose terms nearly cancel is not known to TOLERANCE in float32 at all: the definition itself, computed in
# float32, is further off. No path may be more than this many times as far.
OVER_ROUNDING = 2.0
FLOAT32 = "the definition in float32"
PATHS = ("forward", "training", "training, parameters", FLOAT32)
LENGTHS = (251, 1_237)  # no multiple of anything
LONG = 16_411
N_ROWS = 64  # queries looked at where the whole grid does not fit


def check(trained: list[Trained], tokens: Tensor, long: bool = True) -> list[Row]:
    """The largest relative difference of each path. Raises UserError for one above its TOLERANCE."""
    rows: list[Row] = []
    for one in tqdm(trained, desc="comparing with the definition", disable=None, leave=False):
        for n in (*LENGTHS, LONG) if long else LENGTHS:
            layers = layers_of(one.encoder, tokens[:, :n])
            found = [forward_error(one, layer) for layer in layers]
            if n in LENGTHS:
                found += [training_error(one, layer.qkv) for layer in layers]
            for path in PATHS:
                error = max((errors[path] for errors in found if path in errors), default=None)
                if error is None:
                    continue
                rounding = max((errors[FLOAT32] for errors in found if FLOAT32 in errors), default=0.0)
                allowed = max(TOLERANCE, OVER_ROUNDING * rounding) if path.startswith("training") else TOLERANCE
                if path != FLOAT32 and not error <= allowed:
                    raise UserError(
                        f"attention of {one.scheme}, {one.objective}, {n:,} tokens, {path}: differs from the float64 "
                        f"reference by {error:.1e} of its largest number, expected at most {allowed:.0e}"
                    )
                columns: Row = {"case": "equality", "name": OURS, "setting": path, "scheme": one.scheme}
                columns |= {"objective": one.objective, "n": n, "tokens": n, "precision": "fp32"}
                rows.append(columns | {"value": error, "unit": "relative"})
    return rows


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest number."""
    found, expected = found.detach().to(expected.dtype), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def forward_error(one: Trained, layer: Layer) -> dict[str, float]:
    """Evaluation against the definition, over all queries where n is small, over a sample of them where it is not."""
    n, device = layer.mixed.shape[2], layer.mixed.device
    scheme = copy.deepcopy(one.encoder.scheme).to(torch.float64)
    pos, (q, k, v) = scheme.positions(n, device), (part.to(torch.float64) for part in layer.qkv)
    if n <= max(LENGTHS):
        return {"forward": difference(layer.mixed, attend_reference(scheme, pos, q, k, v))}
    # both ends, where chunks and windows are cut, and places between them
    inner = torch.randint(n, (N_ROWS - 2,), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([torch.tensor([0, n - 1]), inner]).to(device)
    expected = attend_reference(scheme, pos, q, k, v, q_idx=rows)
    return {"forward": difference(layer.mixed[:, :, rows], expected)}


def training_error(one: Trained, heads: Qkv) -> dict[str, float]:
    """Training: what comes out, and what flows back to queries, keys, values and parameters from a random loss."""
    n, device = heads[0].shape[2], heads[0].device
    weight = torch.randn(heads[0].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    wide = [part.to(torch.float64).requires_grad_() for part in heads]
    narrow = [part.clone().requires_grad_() for part in heads]
    scheme, pos = one.encoder.scheme, one.encoder.scheme.positions(n, device)
    exact = copy.deepcopy(scheme).to(torch.float64)  # gradients of parameters are summed up in the type of these
    expected = attend_reference(exact, pos, *wide)
    found = attention_of(one, n, device, training=True)(*narrow)
    truth = torch.autograd.grad((expected * weight).sum(), [*wide, *exact.parameters()], allow_unused=True)
    rounded = [part.clone().requires_grad_() for part in heads]
    in_float32 = attend_reference(scheme, pos, *rounded)
    theirs = torch.autograd.grad((in_float32 * weight).sum(), rounded)
    ours = torch.autograd.grad((found * weight).sum(), [*narrow, *one.encoder.scheme.parameters()], allow_unused=True)
    rounding = max(difference(some, true) for some, true in zip(theirs, truth[: len(heads)], strict=True))
    errors = {"training": difference(found, expected), FLOAT32: rounding}
    for i, (got, true) in enumerate(zip(ours, truth, strict=True)):
        path = "training" if i < len(heads) else "training, parameters"
        assert (got is None) == (true is None)  # learned tables are added before attention
        if got is not None and true is not None:
            errors[path] = max(errors.get(path, 0.0), difference(got, true))
    return errors
