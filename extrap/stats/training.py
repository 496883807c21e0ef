"""Whether training had come to its end, from its losses. Imports no torch."""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from extrap.stats.perplexity import CONFIDENCE, ONSET

FALL = np.log(ONSET)  # nats: less is not worth a sentence


def still_falling(training: pd.DataFrame) -> pd.Series:
    """By how many nats the training loss fell from the third to the last quarter of the steps, of the schemes where it
    certainly did by 5 % of perplexity or more: mean over seeds, by scheme.

    Certainly: the whole 95 % interval lies above that. It holds the noise of batches: means of a quarter's entries differ
    by their two sample variances, of all seeds together (Welch), so that a single run has one, too. Only entries of the
    log count, each of one batch. A loss that falls because the learning rate does is falling none the less; one that
    would fall if it were trained longer, or at another rate, need not show.
    """
    found = {}
    for scheme, part in training.groupby("scheme", sort=False):
        falls, variances, degrees = [], [], 0
        for _, run in part.groupby("seed"):
            quarter = np.ceil(4 * run["step"] / run["step"].max())
            before, last = (run.loc[quarter == q, "loss"].to_numpy() for q in (3, 4))
            if min(len(before), len(last)) > 1:
                falls.append(before.mean() - last.mean())
                variances.append(before.var(ddof=1) / len(before) + last.var(ddof=1) / len(last))
                degrees += min(len(before), len(last)) - 1
        if falls:
            half = stdtrit(degrees, 0.5 + CONFIDENCE / 2) * np.sqrt(sum(variances)) / len(falls)
            if np.mean(falls) - half > FALL:
                found[scheme] = float(np.mean(falls))
    return pd.Series(found, dtype=float)
