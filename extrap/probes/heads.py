"""Where the heads of a model look."""

import numpy as np
import pandas as pd
import torch

from extrap.probes.base import Probed, found
from extrap.runs.trained import attention

MULTIPLES = (1, 8)  # of the training length
N_WINDOWS = 4  # read whole by the definition of attention, whose weights take memory by the square of the length


def heads(of: Probed) -> pd.DataFrame:
    """By layer and head, at L and 8 L, means over queries of what their attention weights w_ij are:

    distance  sum_j w_ij |i - j|, in tokens
    beyond    sum of w_ij over |i - j| > L / 2
    entropy   -sum_j w_ij ln w_ij, in nats

    of weights that sum to 1: where some of it goes to a sink, of the rest. The probe is `heads(layer,head)`, from 1 on. It
    shows what is looked at, which is not what is used, and decides nothing.
    """
    parts = []
    for eval_len in (n for n in of.lengths if n in {multiple * of.train_len for multiple in MULTIPLES}):
        tokens = of.batch.inputs[:N_WINDOWS, :eval_len]
        documents = of.held_out.documents[:N_WINDOWS]
        apart = (torch.arange(eval_len)[:, None] - torch.arange(eval_len)).abs().to(torch.float32)
        sums: dict[tuple[int, int], list[np.ndarray]] = {}
        for one in tokens:
            weights = attention(of.encoder, torch.from_numpy(np.ascontiguousarray(one))[None])[:, 0].clamp(min=0)
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-30)  # (layers, H, T, T)
            entropy = -torch.special.xlogy(weights, weights)
            seen = weights * apart, weights * (apart > of.train_len / 2), entropy
            told = np.stack([part.sum(dim=(-1, -2)).to(torch.float64).numpy() for part in seen], axis=-1)
            for (layer, head), _ in np.ndenumerate(told[..., 0]):
                sums.setdefault((layer + 1, head + 1), []).append(told[layer, head])
        n = np.full(len(tokens), eval_len)
        for (layer, head), by_window in sums.items():
            values = zip(("distance", "beyond", "entropy"), np.stack(by_window).T, strict=True)
            parts.append(found(f"heads({layer},{head})", eval_len, documents, {name: (total, n) for name, total in values}))
    return pd.concat(parts, ignore_index=True)
