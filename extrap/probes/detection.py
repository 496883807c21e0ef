"""How well replaced tokens are told from original ones, at any threshold."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from extrap.errors import UserError
from extrap.model.electra import Pair, sample
from extrap.objectives import MASK_SEED, Electra, Rtd
from extrap.probes.base import Probed, found, logits, pieces
from extrap.runs.prepare import Run


def detection(of: Probed) -> pd.DataFrame:
    """AUC by length: of all pairs of a replaced and an original token of a segment, the share in which the replaced one has
    the larger log-odds of being one; ties count half. value_sum counts such pairs, n all.

    Pairs are made within segments; one without a replaced token has none, and still counts in the loss. A discriminator that
    says the same of every token has 0.5 exactly. The text is that of the rows. Where generator and discriminator learn
    together, `detection(own)` is the same on text of the run's own generator, with the loss in nats and the share that is
    replaced: a diagnostic, never to be compared between schemes or lengths, for a generator that breaks makes
    other replacements, and more of them.
    """
    parts = []
    documents = [*of.held_out.documents]
    for eval_len in of.lengths:
        told, truth = _joined(_log_odds(of, *piece) for piece in pieces(of, eval_len))
        parts.append(found("detection", eval_len, documents, {"auc": concordant(told, truth)}))
        if isinstance(of.run.objective, Electra):
            told, truth = _joined(_of_own(of, *piece) for piece in pieces(of, eval_len))
            n = np.full(len(truth), truth.shape[1])
            losses = np.logaddexp(0, np.where(truth == 1, -told, told)).sum(axis=1)
            own = {"auc": concordant(told, truth), "nll": (losses, n), "replaced": (truth.sum(axis=1), n)}
            parts.append(found("detection(own)", eval_len, documents, own))
    return pd.concat(parts, ignore_index=True)


def refuse_others(run: Run) -> None:
    """Raises UserError for an objective that tells no replaced tokens."""
    if not isinstance(run.objective, Rtd):
        raise UserError("probe detection: is for objective=rtd and electra, which tell replaced tokens from original ones")


def _joined(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    return (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))


def _log_odds(of: Probed, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, T) each: what the discriminator says of the text of the rows, and which tokens are replaced."""
    told = logits(of.encoder, of.batch.inputs[:, start:stop]).astype(np.float64)
    return told[..., 1] - told[..., 0], of.batch.targets[:, start:stop]


def _of_own(of: Probed, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of text that the run's own generator has made, of the tokens that masked language models are scored on."""
    assert isinstance(of.encoder, Pair)
    assert isinstance(of.run.objective, Electra)
    tokens = of.held_out.tokens[:, 1:-1][:, start:stop]
    rng = np.random.default_rng((MASK_SEED, start, stop))
    hidden = of.run.objective.of_generator.batch(tokens, of.run.source, rng)
    torch.manual_seed(MASK_SEED)
    drawn = [sample(torch.from_numpy(part)).numpy() for part in logits(of.encoder.generator, hidden.inputs)]
    read = np.where(hidden.scored, np.stack(drawn), tokens)
    told = logits(of.encoder, read).astype(np.float64)
    return told[..., 1] - told[..., 0], (read != tokens).astype(np.int64)


def concordant(told: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every row (N, T) the concordant pairs of a 1 and a 0 in `truth`, ties half, and all pairs: Mann and Whitney's U.

    U = sum of the ranks of the 1 among all - n_1 (n_1 + 1) / 2, ranks of ties being their mean.
    """
    n_replaced = truth.sum(axis=1)
    ranks = rankdata(told, axis=1)
    concordant_pairs = (ranks * (truth == 1)).sum(axis=1) - n_replaced * (n_replaced + 1) / 2
    return concordant_pairs, n_replaced * (truth.shape[1] - n_replaced)
