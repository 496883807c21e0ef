"""Rows of the predictors that are known in closed form for a source. Imports no torch."""

import numpy as np
import pandas as pd

from extrap.config import Config
from extrap.data.base import Source
from extrap.objectives import Objective
from extrap.protocols import held_out_batch, rows_of, windows
from extrap.results import COLUMNS


def reference_rows(config: Config, source: Source, objective: Objective) -> pd.DataFrame:
    """One row a (reference, protocol, eval_len, segment), as for a scheme; no rows where nothing is known.

    A reference sees exactly what a model sees: the tokens from the start of its window up to the one before the
    target. Only causal prediction has references: what two-sided context is worth has no closed form here.
    """
    frames: list[pd.DataFrame] = []
    held_out, _ = held_out_batch(source, objective, config.eval)
    seg_len = max(config.eval.lengths)
    for protocol in config.eval.protocols if objective.causal else []:
        for eval_len in sorted(config.eval.lengths):
            context = np.ones(seg_len, dtype=np.int64)
            scored = np.zeros(seg_len, dtype=bool)
            for start, stop, score_start, score_stop in windows(config.eval, protocol, eval_len, objective.causal):
                context[start:stop] = np.arange(1, stop - start + 1)
                scored[score_start:score_stop] = True
            n_tokens = np.full(config.eval.n_segments, scored.sum())
            known = [source.references(tokens, context, config.train.train_len) for tokens in held_out.tokens]
            for kind in known[0]:
                nll_sum = np.array([references[kind].nll[scored].sum() for references in known])
                rows = rows_of(held_out, protocol, eval_len, nll_sum, n_tokens)
                frames.append(rows.assign(kind=kind, scheme=known[0][kind].label))
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    return label_rows(pd.concat(frames, ignore_index=True), config, run="reference", seed=0)


def label_rows(rows: pd.DataFrame, config: Config, **columns: object) -> pd.DataFrame:
    """The rows with every column of rows.csv; `columns` holds what the config does not say."""
    labels = {
        "experiment": config.name,
        "extension": "none",
        "objective": config.objective["_target_"].rpartition(".")[2].lower(),
        "data": config.data["_target_"].rpartition(".")[2].lower(),
        "train_len": config.train.train_len,
    }
    return rows.assign(**(labels | columns))[COLUMNS]
