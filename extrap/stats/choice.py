"""The best value of an option that a sweep varies, for each scheme, chosen on text that is not scored. Imports no torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from extrap.errors import UserError
from extrap.results.rows import GROUP, KEY, SELECTION, TRAINED
from extrap.stats.perplexity import perplexity
from extrap.stats.statistics import CHOICE, Statistics

OF = [*GROUP, "scheme"]  # what chooses; the setting is then without the option


def best_over(rows: pd.DataFrame, missing: pd.DataFrame, training: pd.DataFrame, option: str) -> Statistics:
    """Of every scheme what is known at its best value of `option` (train.lr), which leaves the setting.

    `choice` has a line a (scheme, value):
    loss      nats per token on training text that was held back, neither trained on nor scored; mean over n_seeds seeds,
              those that all values have; missing where a seed diverged or has none, for the others would flatter the value
    chosen    the lowest loss; nothing else decides
    border    lowest or highest of the values that were tried, or the only one
    Raises UserError where the option does not vary, is none of training or the model, or no text was held back.
    """
    name = option.rpartition(".")[2]
    varies = dict.fromkeys(key for setting in rows["setting"].unique() for key in _parts(setting))
    if not option.startswith(("train.", "model.")) or name not in varies:
        told = ", ".join(varies) or "nothing"
        raise UserError(
            f"BEST={option}: expected an option of train or model that varies and has no column of its own, as train.lr; "
            f"found {told}"
        )
    rows, missing, training = (_split(table, name) for table in (rows, missing, training))
    of_schemes, held_back = rows[rows["kind"] == "scheme"], rows[rows["kind"] == SELECTION]
    if held_back.empty:
        raise UserError(f"BEST={option}: no training text was held back from these runs; expected some, to choose on")
    runs = pd.concat([table[[*OF, "value", "seed"]].drop_duplicates() for table in (of_schemes, missing)]).drop_duplicates()
    by_seed = perplexity(held_back, [*OF, "value", "seed"])
    lines = [
        dict(zip(OF, of, strict=True)) | {"option": option} | line
        for of, made in runs.groupby(OF, sort=False)
        for line in _tried(made, by_seed.merge(made))
    ]
    choice = pd.DataFrame(lines)
    chosen = choice.loc[choice["chosen"], [*OF, "value"]]
    nowhere = ~pd.MultiIndex.from_frame(missing[OF]).isin(pd.MultiIndex.from_frame(chosen[OF]))
    references = rows[~rows["kind"].isin(TRAINED)].drop_duplicates(["kind", *KEY])  # the same at all values
    parts = [of_schemes.merge(chosen), references], [missing.merge(chosen), missing[nowhere]], [training.merge(chosen)]
    scored, lacking, losses = (pd.concat(part, ignore_index=True).drop(columns="value") for part in parts)
    return Statistics(scored, lacking, losses, choice[CHOICE])


def _tried(runs: pd.DataFrame, by_seed: pd.DataFrame) -> list[dict[str, object]]:
    """The values of one scheme; `runs` are all that were made of it, by_seed what they have on held-back text."""
    texts = pd.Series(sorted(runs["value"].unique()))
    values = list(texts.sort_values(key=lambda texts: pd.to_numeric(texts, errors="coerce"), kind="stable"))
    losses = by_seed.pivot(index="value", columns="seed", values="log_ppl").reindex(values)
    whole = [value for value, made in runs.groupby("value") if losses.loc[value].reindex(made["seed"]).notna().all()]
    common = losses.loc[whole].dropna(axis="columns")
    mean = common.mean(axis="columns").dropna()
    ends = {values[-1]: "highest", values[0]: "lowest"} if len(values) > 1 else {values[0]: "only"}
    return [
        {"value": value, "loss": mean.get(value, np.nan), "n_seeds": common.shape[1], "n_tokens": by_seed["n_tokens"].max()}
        | {"chosen": bool(len(mean)) and value == mean.idxmin(), "border": ends.get(value, "")}
        for value in values
    ]


def load_choice(folder: Path) -> pd.DataFrame:
    """What was chosen for the report in this folder; empty where nothing was."""
    if not (path := folder / "choice.csv").exists():
        return pd.DataFrame(columns=CHOICE)
    text = dict.fromkeys(("objective", "data", "setting", "scheme", "option", "value", "border"), str)
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"loss": [""], "n_tokens": [""]})
    return table.reindex(columns=CHOICE, fill_value="")  # it has no setting where nothing varies


def _parts(setting: str) -> dict[str, str]:
    return {key: value for key, _, value in (part.partition("=") for part in setting.split(", ") if part)}


def _split(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The value of this option beside a setting without it."""
    parts = [_parts(setting) for setting in table["setting"]]
    values = [of.pop(name, "") for of in parts]
    return table.assign(value=values, setting=[", ".join(map("=".join, of.items())) for of in parts])
