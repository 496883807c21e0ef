"""Whether a model knows which way text runs, and in which order its tokens stand."""

import numpy as np
import pandas as pd

from extrap.objectives import Batch
from extrap.probes.base import Probed, found, nll, windows

SEED = 0


def order(of: Probed) -> pd.DataFrame:
    """The loss at the training length on text as it is, reversed, and shuffled: `order(as_is)`, `order(reversed)`,
    `order(shuffled)`.

    In an encoder the same tokens are hidden, or replaced, and scored, only their order differs: the loss is the same,
    whatever was learned, where positions enter by nothing or, but for shuffled text, by |i - j| alone. A causal model has
    the tokens of each window in another order, and so other ones to predict.
    """
    n, objective = of.train_len, of.run.objective
    pieces = windows(of, n)
    documents = [*of.held_out.documents] * len(pieces)
    tokens = np.concatenate([of.held_out.tokens[:, start : stop + objective.extra_tokens] for start, stop in pieces])
    batch = Batch(*(np.concatenate([part[:, start:stop] for start, stop in pieces]) for part in of.batch))
    places = np.arange(tokens.shape[1] if objective.causal else n)
    turned = {"as_is": places, "reversed": places[::-1], "shuffled": np.random.default_rng(SEED).permutation(places)}
    parts = []
    for name, at in turned.items():
        if objective.causal:
            changed = objective.batch(tokens[:, at], of.run.source, np.random.default_rng(SEED))
        else:
            changed = Batch(*(part[:, at] for part in batch))
        losses = nll(of.encoder, changed).sum(axis=1)
        parts.append(found(f"order({name})", n, documents, {"nll": (losses, changed.scored.sum(axis=1))}))
    return pd.concat(parts, ignore_index=True)
