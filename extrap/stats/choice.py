"""The best value of an option that a sweep varies, for each scheme, chosen on text that is not scored. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from extrap.config.varied import TOLD, named, options_in
from extrap.errors import UserError
from extrap.results.rows import GROUP, KEY, SELECTION, TRAINED, apart, scored, stacked
from extrap.stats.pairs import LACKING, PAIR, SHOWN, both_ways, moves
from extrap.stats.perplexity import perplexity
from extrap.stats.statistics import CHOICE, ONE_FOR_ALL, Statistics

TEXT = ("objective", "data", "setting", "protocol", "scheme", "scheme_a", "scheme_b", "option", "value", "border", "verdict",
        "best_verdict")  # fmt: skip
OF = [*GROUP, "scheme"]  # what chooses; the setting is then without the option


def best_over(
    rows: pd.DataFrame, missing: pd.DataFrame, training: pd.DataFrame, option: str, vary: Sequence[str]
) -> Statistics:
    """Of every scheme what is known at its best value of `option` (train.lr), one of those that `vary`, which leaves the
    setting.

    `choice` has a line a (scheme, value):
    loss      nats per token on training text that was held back, neither trained on nor scored; mean over n_seeds seeds,
              those that all values have; missing of a value of which a seed diverged or has none, for the others would
              flatter it
    chosen    the lowest loss; nothing else decides
    border    lowest or highest of the values that were tried where these are numbers, or the only one; tied where all have
              the same loss, as where a scheme has no use for the option
    Raises UserError where the option does not vary, is none of training or the model, or no text was held back.
    """
    name = _called(option, vary)
    rows, missing, training = (apart(table, name) for table in (rows, missing, training))
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
    if chosen.empty and missing.empty:
        raise UserError(f"BEST={option}: expected a value with runs of all seeds of a scheme, found none; finish the sweep")
    nowhere = ~pd.MultiIndex.from_frame(missing[OF]).isin(pd.MultiIndex.from_frame(chosen[OF]))
    references = rows[~rows["kind"].isin(TRAINED)].drop_duplicates(["kind", *KEY])  # the same at all values
    parts = [of_schemes.merge(chosen), references], [missing.merge(chosen), missing[nowhere]], [training.merge(chosen)]
    scored, lacking, losses = (pd.concat(part, ignore_index=True).drop(columns="value") for part in parts)
    return Statistics(scored, lacking, losses, choice[CHOICE])


def _called(option: str, vary: Sequence[str]) -> str:
    """What settings call the option. Raises UserError where it is none to choose the best value of."""
    in_settings = [key for key in vary if key not in TOLD]
    names = dict(zip(in_settings, options_in(named(dict.fromkeys(in_settings))), strict=True))
    if option not in (found := [key for key in names if key.startswith(("train.", "model."))]):
        raise UserError(
            f"BEST={option}: expected an option of train or model, in full, that varies and has no column of its own, such "
            f"as train.lr; found {', '.join(found) or 'nothing'}"
        )
    return names[option]


def _tried(runs: pd.DataFrame, by_seed: pd.DataFrame) -> list[dict[str, object]]:
    """The values of one scheme; `runs` are all that were made of it, by_seed what they have on held-back text."""
    values = _in_order(runs["value"])
    losses = by_seed.pivot(index="value", columns="seed", values="log_ppl").reindex(values)
    made = runs.groupby("value")["seed"].unique()
    whole = [value for value in values if losses.reindex(columns=made[value]).loc[value].notna().all()]
    common = losses.loc[whole].dropna(axis="columns")
    mean = common.mean(axis="columns").dropna()
    ends = dict.fromkeys(values, "tied") if len(mean) > 1 == mean.nunique() else _ends(values)
    return [
        {"value": value, "loss": mean.get(value, np.nan), "n_seeds": common.shape[1], "n_tokens": by_seed["n_tokens"].max()}
        | {"chosen": bool(len(mean)) and value == mean.idxmin(), "border": ends.get(value, "")}
        for value in values
    ]


def _ends(values: list[str]) -> dict[str, str]:
    """What border each of these is; words have none."""
    if len(values) == 1:
        return {values[0]: "only"}
    are_numbers = pd.to_numeric(pd.Series(values), errors="coerce").notna().all()
    return {values[0]: "lowest", values[-1]: "highest"} if are_numbers else {}


def _in_order(values: pd.Series) -> list[str]:
    """Each once, numbers by their size."""
    texts = pd.Series(sorted(values.unique()))
    return list(texts.sort_values(key=lambda texts: pd.to_numeric(texts, errors="coerce"), kind="stable"))


def one_for_all(
    rows: pd.DataFrame, missing: pd.DataFrame, option: str, vary: Sequence[str], best: Statistics
) -> pd.DataFrame:
    """Whether it matters for comparisons that all schemes have one value of `option`: every pair of schemes with each value
    for all, beside the same pair with each scheme at its best, `best`, which `best_over` has made of the same tables.

    One line a (setting without the option, eval_len, value, pair):
    difference, low, high, p_holm, n_seeds, verdict   as `pairs` has them with this value for all; verdict is `not compared`
                                     where a scheme ends, has fewer seeds than others, or sees what it should predict
    best_difference, ...             the same with each scheme at its best
    change, change_low, change_high  best_difference - difference: mean over the seeds that both have, and its 95 % t
                                     interval; all are 0 where this value is the best of both: the same models, whose
                                     verdict is another one by Holm's order alone
    """
    name = _called(option, vary)
    rows, missing = apart(scored(rows), name), apart(missing, name)
    at_value = {
        value: Statistics(*(table[table["value"] == value].drop(columns="value") for table in (rows, missing)))
        for value in _in_order(rows["value"])
    }
    tables, own = [pd.DataFrame(columns=ONE_FOR_ALL)], _put_beside(best)
    for value, one in at_value.items():
        if own.empty:
            continue
        alike = own.head(0) if one.pairs.empty else _put_beside(one)
        lines = alike.merge(own.rename(columns={c: f"best_{c}" for c in SHOWN}), on=PAIR, how="outer", sort=False)
        lines = lines.fillna(dict.fromkeys(("verdict", "best_verdict"), LACKING)).assign(option=option, value=value)
        both = (lines[["verdict", "best_verdict"]] != LACKING).all(axis="columns")
        moved = moves(lines[both], one.rows, best.rows)
        tables.append(lines.assign(change=moved.mean, change_low=moved.low, change_high=moved.high))
    return stacked(tables)[ONE_FOR_ALL]


def _put_beside(found: Statistics) -> pd.DataFrame:
    """The pairs, the two of each in the order of their names, so that they can be found in other rows."""
    if found.pairs.empty:
        return found.pairs
    lines = both_ways(found.pairs.assign(sound=found.pairs.index.isin(found.sound_pairs.index)))
    lines = lines[lines["scheme_a"] < lines["scheme_b"]]
    numbers = SHOWN[:-1]
    return lines.assign(verdict=lines["verdict"].where(lines["sound"], LACKING),
                        **{column: lines[column].where(lines["sound"]) for column in numbers})[[*PAIR, *SHOWN]]  # fmt: skip


def load_choice(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What was chosen for the report in this folder, and its pairs with one value for all; empty where nothing was."""
    return _load(folder / "choice.csv", CHOICE), _load(folder / "one_for_all.csv", ONE_FOR_ALL)


def _load(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame(columns=columns)
    text = {*TEXT} & {*columns}
    numbers = {column: [""] for column in {*columns} - text}
    table = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=numbers)
    return table.reindex(columns=columns, fill_value="")  # it has no setting where nothing varies
