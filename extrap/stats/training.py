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
    quarter = np.ceil(4 * training["step"] / training.groupby(["scheme", "seed"])["step"].transform("max"))
    entries = training[quarter.isin((3, 4))].groupby(["scheme", "seed", quarter], sort=False)["loss"]
    n, mean, variance = (part.unstack().reindex(columns=[3, 4]) for part in (entries.size(), entries.mean(), entries.var()))
    runs = pd.DataFrame(
        {"fall": mean[3] - mean[4], "variance": (variance / n).sum(axis=1), "n": n.min(axis=1, skipna=False)}
    )
    schemes = runs[runs["n"] > 1].groupby("scheme", sort=False)
    n_seeds, fall = schemes.size(), schemes["fall"].mean()
    error = np.sqrt(schemes["variance"].sum()) / n_seeds
    half = stdtrit(schemes["n"].sum() - n_seeds, 0.5 + CONFIDENCE / 2) * error
    return fall[fall - half > FALL]
