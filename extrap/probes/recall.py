"""Whether a model recalls what followed a symbol before, by how far back that was."""

import numpy as np
import pandas as pd

from extrap.data.markov import Markov
from extrap.errors import UserError
from extrap.objectives import Batch, Causal
from extrap.probes.base import Probed, found, nll
from extrap.results.probes import recall_bins
from extrap.runs.prepare import Run
from extrap.score.protocols import same_targets


def recall(of: Probed) -> pd.DataFrame:
    """The loss by length and by how far back in what is read the symbol that was read last stood before.

    On `markov` with few successors a symbol is followed by what followed it earlier: to predict is to recall. Targets are
    those of same_targets, the same at every length; `distance` is the least of a bin, those ending at L/8, L/2, L and 4 L, 0
    that of symbols which stand there for the first time: before the input they may have stood. Beside `nll` the sums of
    `floor`, the best possible prediction from the same tokens, and of `window_floor`, from L of them at most: with few
    occurrences in a context, far ones too, a bin has a floor of its own.
    """
    source, config = of.run.source, of.run.config.eval
    longest = max(config.lengths)
    first = longest - config.n_targets  # of the targets, among the tokens that are read
    back = np.stack([_since(tokens)[first:longest] for tokens in of.held_out.tokens])
    never, *ends = recall_bins(of.train_len)
    parts = []
    for eval_len, ((start, stop, _, _),) in same_targets(config, of.train_len, causal=True).items():
        if eval_len not in of.lengths:
            continue
        read = Batch(*(part[:, start:stop].copy() for part in of.batch))
        read.scored[:, : -config.n_targets] = False
        context = np.maximum(1, np.arange(longest) - start + 1)
        known = [source.references(tokens, context, of.train_len) for tokens in of.held_out.tokens]
        losses = {kind: np.stack([one[kind][first:] for one in known]) for kind in ("floor", "window_floor")}
        losses["nll"] = nll(of.encoder, read)[:, -config.n_targets :]
        is_read = (back > 0) & (back < context[first:])
        bins = np.where(is_read, np.digitize(back, ends), 0)  # numbered from 1, 0 that of first occurrences
        for number, distance in enumerate([never, *ends]):
            among = bins == number
            sums = {kind: (np.where(among, loss, 0.0).sum(axis=1), among.sum(axis=1)) for kind, loss in losses.items()}
            parts.append(found("recall", eval_len, of.held_out.documents, sums, distance))
    lines = pd.concat(parts, ignore_index=True)
    return lines[lines["n"] > 0].reset_index(drop=True)


def refuse_others(run: Run) -> None:
    """Raises UserError where the best possible prediction is not known."""
    if not isinstance(run.source, Markov) or not isinstance(run.objective, Causal):
        raise UserError("probe recall: is for data=markov and objective=causal, where the best possible prediction is known")


def _since(tokens: np.ndarray) -> np.ndarray:
    """(S,) how many tokens ago each stood last; 0 where it never did."""
    place = np.arange(len(tokens))
    order = np.argsort(tokens, kind="stable")
    before = np.where(tokens[order] == np.roll(tokens[order], 1), np.roll(place[order], 1), place[order])
    before[0] = place[order][0]  # rolled in from the end
    back = np.empty(len(tokens), dtype=np.int64)
    back[order] = place[order] - before
    return back
