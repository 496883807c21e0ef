"""Tables of experiments as claims see them: logarithms of what was measured. Imports no torch.

Evidence is a line a (metric, MEASURE), of training a (metric, MEASURE, step):
log      the natural logarithm of the metric; of a perplexity over `floor`, where one is known; of nats these themselves
data     what was trained on, as rows name it; empty of speed
text     stands for what was scored
floor    what the best predictor that looks back L tokens at most has, where it is known
guess    what a uniform guess has in place of `log`, where a floor is known
rate     of nats those of who knows what share of the tokens is replaced, and nothing else
unfit    why a scheme can decide nothing: of one with seeds that broke, and of one that has learned nothing, where a floor is
         known or two neighbours of a token tell something
idle     why nothing follows from how a scheme fares by length: of one that at L is not 5 % better than byte frequencies
step     of the batch whose perplexity it is, in training
"""

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.speed.timings import OURS, load_timings, where
from extrap.errors import UserError
from extrap.results.rows import BROKEN, apart, load_missing, load_rows, load_training, scored
from extrap.results.shown import IN_NATS
from extrap.stats.budget import BUDGET
from extrap.stats.floor import UNFIT, against_floor
from extrap.stats.perplexity import ONSET, perplexity, summarise

MEASURE = ["experiment", "objective", "data", "setting", "protocol", "scheme", "extension", "train_len", "eval_len", "seed"]
# where there is none of these
PLAIN = dict.fromkeys(("floor", "guess", "rate", "step"), np.nan) | dict.fromkeys(("unfit", "idle"), "")
AT = ["objective", "setting", "protocol", "train_len", "eval_len"]  # where a reference has one number
LINE = ["metric", *MEASURE, "log", "text", *PLAIN]


class Missing(Exception):
    """What is needed is not among the rows; says what."""


def read(folder: Path) -> pd.DataFrame:
    """What the tables of an experiment, or of the benchmark of speed, say. Raises Missing where there are none."""
    if (folder / "timings.csv").exists():
        return speeds(load_timings(folder / "timings.csv"))
    if not (folder / "rows.csv").exists():
        raise Missing(f"no experiment {folder.name}")
    found = measures(scored(load_rows(folder / "rows.csv")))
    losses = folder / "training.csv"
    found = pd.concat([found, curves(load_training(losses))]) if losses.exists() else found
    return without_broken(found, load_missing(folder / "missing.csv"))


def read_by_budget(folder: Path) -> dict[int, pd.DataFrame]:
    """The same of a sweep over train.max_steps alone, for each of its budgets in steps; empty where there is no such sweep,
    or one of a single budget.

    Raises UserError where anything else varies.
    """
    if not (folder / "rows.csv").exists():
        return {}
    rows, missing = scored(load_rows(folder / "rows.csv")), load_missing(folder / "missing.csv")
    rows, losses, missing = (apart(table, BUDGET) for table in (rows, load_training(folder / "training.csv"), missing))
    several = len(rows[["data", "train_len"]].drop_duplicates()) > 1
    if rows["setting"].any() or not rows["value"].all() or several:
        raise UserError(f"{folder}: expected that train.{BUDGET} varies, and nothing else")
    found = {}
    for steps in sorted({*rows["value"], *missing["value"]}, key=int):
        here, curve, lost = (table[table["value"] == steps] for table in (rows, losses, missing))
        found[int(steps)] = without_broken(pd.concat([measures(here), curves(curve)]), lost)
    return found if len(found) > 1 else {}


def measures(rows: pd.DataFrame) -> pd.DataFrame:
    """Perplexities of the schemes of one experiment; over the floor where one is known (see over_floor).

    Raises Missing where it is of several texts.
    """
    schemes = rows[rows["kind"] == "scheme"]
    if len(texts := sorted({*schemes["data"]})) > 1:
        raise Missing(f"an experiment of several texts: {', '.join(texts)}")
    scored = pd.util.hash_pandas_object(schemes[["data", "document", "segment", "n_tokens"]], index=False)
    text = scored.groupby([schemes[column] for column in MEASURE], sort=False).sum().astype(str).rename("text").reset_index()
    lines = perplexity(schemes, MEASURE).rename(columns={"log_ppl": "log"}).merge(text, on=MEASURE)
    metric = np.where(lines["objective"].isin(IN_NATS), "nats", "perplexity")  # exp of the former is nothing
    lines = lines.assign(metric=metric, **PLAIN)
    return under_rate(over_floor(beside_unigram(lines, rows), rows), rows)[LINE]


def without_broken(lines: pd.DataFrame, missing: pd.DataFrame) -> pd.DataFrame:
    """Lines in which a scheme, or what an extension makes of it, is unfit if some seed broke at any length: the others would
    flatter it. One that has no number at the training length has none that an extension could be put beside."""
    broken = missing[missing["reason"].str.startswith(BROKEN)]
    if broken.empty:
        return lines
    at, of = ["objective", "setting", "scheme"], pd.Series("", lines.index)
    everywhere = broken[(broken["extension"] == "none") & (broken["eval_len"] == broken["train_len"])]
    for lost, keys in ((everywhere, at), (broken, [*at, "extension"])):
        for key, part in lost.groupby(keys, sort=False):
            which, why = ", ".join(map(str, sorted({*part["seed"]}))), " and ".join(sorted({*part["reason"]}))
            of = of.mask((lines[keys] == [*key]).all(axis="columns"), f"seed {which} {why}")
    return lines.assign(unfit=lines["unfit"].where(lines["unfit"] != "", of))


def beside_unigram(lines: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Lines, idle where the scheme as trained is hardly better at L than frequencies of what it predicts: its flat curve is
    no success. At one length it counts as any other."""
    known, scheme = perplexity(rows[rows["kind"] == "unigram"], AT)[[*AT, "log_ppl"]], [*AT[:-1], "scheme"]
    start = lines[(lines["eval_len"] == lines["train_len"]) & (lines["extension"] == "none")].merge(known, on=AT)
    level = start.groupby(scheme)[["log", "log_ppl"]].mean()
    is_idle = pd.MultiIndex.from_frame(lines[scheme]).isin(level.index[level["log"] > level["log_ppl"] - np.log(ONSET)])
    return lines.assign(idle=lines["idle"].mask(is_idle, "at L no better than frequencies tell"))


def over_floor(lines: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Lines with log-perplexities over that of the best predictor that looks back L tokens at most, where one is known.

    The floor of a source falls with the length of the context, and further beyond L: a ratio of perplexities at two lengths
    would mostly be its slope. Over that of a predictor that reads what training has shown, on the same tokens, a model that
    is blind beyond L and as good as ever is at 1 for all lengths; one that makes use of more context is below, one that
    breaks is above. At one length the floor cancels.
    """
    floors, guesses = (perplexity(rows[rows["kind"] == kind], AT)[[*AT, "log_ppl"]] for kind in ("window_floor", "unigram"))
    if floors.empty:
        return lines
    scheme = [*AT[:-1], "scheme", "extension"]
    verdicts = against_floor(rows, summarise(rows))[[*scheme, "verdict"]].drop_duplicates()
    known = floors.merge(guesses, on=AT, how="left", suffixes=("_floor", "_guess"))
    lines = lines.merge(known, on=AT).merge(verdicts, on=scheme)
    return lines.assign(
        log=lines["log"] - lines["log_ppl_floor"],
        floor=lines["log_ppl_floor"],
        guess=lines["log_ppl_guess"] - lines["log_ppl_floor"],
        unfit=lines["verdict"].where(lines["verdict"].isin(UNFIT), ""),
    )


def under_rate(lines: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Lines with the nats of the base rate, where that is known; unfit is who at L explains no more than two neighbours of a
    token do."""
    rates, known = (perplexity(rows[rows["kind"] == kind], AT)[[*AT, "log_ppl"]] for kind in ("rate", "neighbours"))
    if rates.empty:
        return lines
    lines = lines.drop(columns="rate").merge(rates.rename(columns={"log_ppl": "rate"}), on=AT, how="left")
    start = lines[lines["eval_len"] == lines["train_len"]].merge(known, on=AT)
    scheme = [*AT[:-1], "scheme", "extension"]
    level = start.groupby(scheme)[["log", "log_ppl"]].mean()
    no_better = pd.MultiIndex.from_frame(lines[scheme]).isin(level.index[level["log"] >= level["log_ppl"]])
    return lines.assign(unfit=lines["unfit"].mask(no_better, "at L no better than what two neighbours tell"))


def curves(losses: pd.DataFrame) -> pd.DataFrame:
    """Perplexities of the batches of training, whose logarithms are the losses."""
    told = PLAIN | {"metric": "training perplexity", "protocol": "training", "extension": "none", "text": ""}
    return losses.assign(**told | {"log": losses["loss"], "eval_len": losses["train_len"], "step": losses["step"]})[LINE]


def speeds(timings: pd.DataFrame) -> pd.DataFrame:
    """Training speed; a round stands for a seed, for within it all meet the same load."""
    steps = where(timings, case="training", name=OURS)
    if steps.empty:
        raise Missing("no training among the timings")
    told = PLAIN | {"metric": "tokens/s", "experiment": "speed", "protocol": "training", "extension": "none"}
    told |= {"data": "", "setting": "", "seed": steps["round"], "train_len": steps["n"], "eval_len": steps["n"]}
    return steps.assign(**told, log=np.log(steps["tokens"] / steps["value"]), text=steps["tokens"].astype(str))[LINE]
