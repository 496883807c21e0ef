"""What another output table changes, and whether it changes all schemes alike, where a sweep varies model.output. Imports no
torch."""

import pandas as pd

from extrap.results.rows import apart, as_trained
from extrap.stats.pairs import PAIR, compare, holm, moved, paired_p, unflattered
from extrap.stats.perplexity import ALPHA, CONDITION, over_seeds

OUTPUT, UNTIED = "output", "untied"  # as settings name them


def outputs(rows: pd.DataFrame, broken: pd.DataFrame) -> pd.DataFrame:
    """Every scheme as it was trained with each output but untied, less itself with that: the lines of `compare`, within what
    else varies, with `scheme` and `output` for who is compared; Holm over schemes and outputs at one length. Verdict a: the
    scheme is better with this output; b: untied; neither where a seed of it broke (see Statistics.broken). Empty where no
    output varies, or none is untied."""
    made = apart(as_trained(rows), OUTPUT)
    others = [output for output in made["value"].unique() if output != UNTIED]
    if len(others) == made["value"].nunique():
        return pd.DataFrame()
    opponents = [((scheme, output), (scheme, UNTIED)) for scheme in made["scheme"].unique() for output in others]
    lines = compare(made.assign(extension=made["value"]).drop(columns="value"), opponents)
    if lines.empty:
        return lines
    lost = apart(broken[broken["extension"] == "none"], OUTPUT)
    lines = unflattered(lines, lost.assign(extension=lost["value"]))
    return lines.rename(columns={"scheme_a": "scheme", "extension_a": OUTPUT}).drop(columns=["scheme_b", "extension_b"])


def interactions(rows: pd.DataFrame, sound: pd.DataFrame) -> pd.DataFrame:
    """Whether another output does the same to two schemes: what it does to a less what it does to b, differences of
    differences of log-perplexity, for those of the lines of `pairs` that count (see Statistics.sound_pairs).

    One line a (pair, output), within what else varies:
    difference, low, high  (a with this output - a untied) - (b with this output - b untied), nats per token, paired by seed:
                           mean and 95 % t interval; below 0: a gains more by the output, or loses less
    p, p_holm, n_seeds     as in `compare`, Holm over the pairs and outputs of one length
    verdict                a or b, whichever the output is better for, if p_holm < 0.05; else undecided
    Empty where no output varies, or none is untied.
    """
    if sound.empty:
        return sound
    made, pairs = apart(rows, OUTPUT), apart(sound, OUTPUT)
    at = {output: part[PAIR] for output, part in pairs.groupby("value", sort=False)}
    tables = []
    for output in [output for output in at if output != UNTIED and UNTIED in at]:
        lines = at[UNTIED].merge(at[output], on=PAIR)
        by_seed = moved(lines, *(made[made["value"] == value] for value in (UNTIED, output)))
        mean, low, high, n_seeds = over_seeds(by_seed)
        p = [paired_p(by_seed[line].dropna().to_numpy()) for line in lines.index]
        tables.append(lines.assign(output=output, difference=mean, low=low, high=high, p=p, n_seeds=n_seeds))
    if not tables:
        return pd.DataFrame()
    found = pd.concat(tables, ignore_index=True)
    found["p_holm"] = found.groupby([*CONDITION, "eval_len"], sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
    side = (found["difference"] < 0).map({True: "a", False: "b"})
    return found.assign(verdict=side.where(found["p_holm"] < ALPHA, "undecided"))
