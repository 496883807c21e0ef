"""What made the rows of a report, and which rows may stand in one beside each other. Imports no torch."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from extrap.config.varied import flat
from extrap.errors import UserError
from extrap.files import write_atomic
from extrap.results.folders import (
    as_now,
    commands_of,
    common,
    differences,
    evaluated,
    finished,
    from_outside,
    load_checked,
    seconds_of,
)
from extrap.results.rows import (
    KEY,
    RUNS,
    TRAINED,
    collect,
    collect_costs,
    collect_missing,
    collect_training,
    load_costs,
    load_missing,
    load_rows,
    load_training,
    save_rows,
    save_training,
    stacked,
)
from extrap.results.shown import save_table

MADE_BY = (
    "version", "git_commit", "git_dirty", "python", "torch", "device", "instructions", "precision", "threads", "processes",
    "began_on",
)  # fmt: skip
OF_PLACE = ("data.train", "data.valid")  # where text lay, and sizes of it: what it is its digest tells
OF_MACHINE = (
    *OF_PLACE,
    "data.sha256",
    "data.tokenizer_sha256",
    "data.tokens_sha256",
    "train.precision",
)  # another has text of its own, and the precision that suits it


class Gathered(NamedTuple):
    """What a report is made of."""

    rows: pd.DataFrame
    missing: pd.DataFrame  # what has no rows, and why
    training: pd.DataFrame  # losses
    costs: pd.DataFrame  # of runs, as far as they are known
    made_by: dict[str, Any]  # see `provenance`


def gathered(runs: Path, command: str) -> Gathered:
    """What the evaluated runs below results/runs/<experiment> have written; `command` is recorded as what made them where
    no sweep has told what did."""
    tables = collect(runs), collect_missing(runs), collect_training(runs), collect_costs(runs)
    return Gathered(*tables, provenance(runs, command))


def load_gathered(report: Path) -> Gathered:
    """What a report was made of, checked."""
    rows, missing = load_rows(report / "rows.csv"), load_missing(report / "missing.csv")
    training, costs = load_training(report / "training.csv"), load_costs(report / RUNS)
    return Gathered(rows, missing, training, costs, load_provenance(report / "provenance.yaml"))


def save_gathered(report: Path, of: Gathered) -> None:
    save_rows(report / "rows.csv", of.rows, of.costs)
    save_table(report / "missing.csv", of.missing)
    save_training(report / "training.csv", of.training)
    write_atomic(report / "provenance.yaml", yaml.safe_dump(of.made_by, sort_keys=False, width=125))


def refuse_to_lose(results: Path, planned: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Raises UserError if the report of a sweep would replace one of another config, or one that holds more.

    `planned`: the configs of its runs by scheme and name. The sweep makes the references again.
    """
    if (results / "rows.csv").exists():
        runs = results.parent / "runs" / results.name
        found = [collect_missing(runs), *(load_rows(folder.rows) for folder in finished(runs) if folder.is_evaluated)]
        rows = load_rows(results / "rows.csv")
        outside = {scheme for (scheme, _), config in planned.items() if from_outside(config)}
        config, made = common(next(iter(planned.values()))), {*planned}.union(*map(_runs_of, found))
        _staying(results, rows[rows["kind"].isin(TRAINED)], config, made, outside)


def with_kept(results: Path, runs: Path, here: Gathered) -> tuple[Gathered, list[str]]:
    """What was gathered here of `runs`, and the runs of an earlier report that it does not hold, which stay in it; and their
    names.

    Raises UserError where they cannot stay, or where both score the references and get other numbers.
    """
    if not (results / "rows.csv").exists():
        return here, []
    old_rows, made = load_rows(results / "rows.csv"), _runs_of(here.rows) | _runs_of(here.missing)
    theirs = {folder.path.name for folder in finished(runs) if from_outside(folder.load_config())}
    config, outside = here.made_by["config"], {scheme.partition("(")[0] for scheme, run in made if run in theirs}
    stay = _staying(results, old_rows, config, made, outside)
    if not stay:  # on another Python the standard library is another text, and all rows are made anew
        return here, []
    if change := _other_reference(old_rows, here.rows, any_setting=_one_text(config)):
        raise UserError(f"{results} holds other references than the runs here: {change}; choose another name=...")
    *before, earlier = load_gathered(results)
    kept = (old[old["run"].str.split("/").str[0].isin(stay)] for old in before)  # with what is scored apart of a run
    tables = (_together([new, old]) for new, old in zip(here[:-1], kept, strict=True))
    rows, missing, training, costs = tables
    return Gathered(rows, missing, training, costs, here.made_by | {"kept": _told_of(stay, earlier)}), stay


def _staying(
    results: Path, rows: pd.DataFrame, config: dict[str, Any], made: set[tuple[str, str]], outside: set[str]
) -> list[str]:
    """The runs of an earlier report, of its `rows` or without any, that are not among those made here, in order.

    Raises UserError unless recipe, data and precision are the same for them, and all seeds of a scheme in a setting are of
    one report; all settings, where they are not of one text; and all options of a class from `outside`, whose code may be
    another now.
    Where all are made here, data and precision may differ: that is the same experiment on another machine.
    """
    old = load_provenance(results / "provenance.yaml")["config"]
    if changes := differences(_recipe(old, OF_MACHINE), _recipe(config, OF_MACHINE)):
        raise UserError(f"{results} holds results of another config: {'; '.join(changes)}. Choose another name=...")
    diverged = _runs_of(load_missing(results / "missing.csv"))  # which may have no rows
    lost = sorted((_runs_of(rows) | diverged) - made)
    changes = differences(_recipe(old, OF_PLACE), _recipe(config, OF_PLACE))

    def of_one_making(scheme: str, run: str) -> tuple[str, str]:
        if (kind := scheme.partition("(")[0]) in outside:
            return kind, ""
        return scheme, run.rpartition("-seed")[0] if _one_text(config) else ""

    references, schemes = {*rows.loc[~rows["kind"].isin(TRAINED), "scheme"]}, {scheme for scheme, _ in made}
    here = {of_one_making(*one) for one in made}
    fit = {one for one in lost if (one[0] in schemes if one[0] in references else of_one_making(*one) not in here)}
    if dropped := [run for scheme, run in lost if changes or (scheme, run) not in fit]:
        raise UserError(
            f"{results} holds {len(dropped)} runs that are neither planned now nor finished here; a new report would drop: "
            f"{', '.join(dropped[:3])}{', ...' if dropped[3:] else ''}. Rows are kept only if one version of the program "
            "made all seeds of a scheme in a setting, and recipe, text and precision agree"
            f"{''.join(f'; {one}' for one in changes)}. "
            f"Run the sweep that makes them, choose another name=..., or move {results} away"
        )
    return sorted({run for _, run in lost})


def _one_text(config: dict[str, Any]) -> bool:
    """Whether all settings of a sweep score the same text for the same objective, so that all have the same references."""
    vary = config.get("vary", [])
    return all(option.startswith(("train.", "model.")) and option != "train.train_len" for option in vary)


def _other_reference(old: pd.DataFrame, new: pd.DataFrame, any_setting: bool = False) -> str:
    """Where both score the same reference, in one setting or in any, and get other numbers: it hangs on the text alone."""
    on = ["kind", *(key for key in KEY if key != "setting" or not any_setting)]
    both = old[~old["kind"].isin(TRAINED)].merge(new[~new["kind"].isin(TRAINED)], on=on, suffixes=("", "_new"))
    if np.allclose(both["nll_sum"], both["nll_sum_new"], rtol=1e-6, atol=0):
        return ""
    worst = both.loc[(both["nll_sum"] - both["nll_sum_new"]).abs().idxmax()]
    return f"{worst['scheme']} at {worst['eval_len']} has nll_sum={worst['nll_sum']} there and {worst['nll_sum_new']} here"


def join(reports: Sequence[Path], command: str) -> Gathered:
    """What several reports are made of, in one; a reference stands there once.

    Raises UserError where they differ in recipe, data, precision, evaluation or references, or two hold the same scheme.
    """
    found = [load_gathered(report) for report in reports]
    trained = [one.rows[one.rows["kind"] == "scheme"] for one in found]
    for i, j in combinations(range(len(reports)), 2):
        why = differences(_recipe(found[i].made_by["config"], OF_PLACE), _recipe(found[j].made_by["config"], OF_PLACE))
        if change := _other_reference(found[j].rows, found[i].rows):
            why.append(f"their references differ: {change}")
        these, those = ({*trained[n]["scheme"], *found[n].missing["scheme"]} for n in (i, j))
        if both := sorted(these & those):
            why.append(f"both hold {', '.join(both)}, and a scheme stands in a report once; make one of them without")
        if why:
            raise UserError(f"the rows of {reports[i]} and {reports[j]} cannot stand in one report: {'; '.join(why)}")
    rows, missing, training, costs, told = zip(*found, strict=True)
    parts = [_told_of({run for _, run in _runs_of(table)}, one) for table, one in zip(trained, told, strict=True)]
    made_by = {
        "command": command,
        "config": {key: value for key, value in told[0]["config"].items() if key != "code"},
        "used": told[0].get("used", {}),
        "kept": [part for of_report in parts for part in of_report],
    }
    rows = _together(rows).drop_duplicates(["kind", *KEY], ignore_index=True)
    return Gathered(rows, _together(missing), _together(training), _together(costs).drop_duplicates("run"), made_by)


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """In the order of the names of runs."""
    return stacked(tables).sort_values("run", kind="stable", ignore_index=True)


def _runs_of(table: pd.DataFrame) -> set[tuple[str, str]]:
    """Scheme and name of each; what is scored apart, rope-seed0/generator, is of one run."""
    return {(scheme, run.partition("/")[0]) for scheme, run in zip(table["scheme"], table["run"], strict=True)}


def _recipe(config: dict[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
    """What must be the same of rows that stand in one report: all but the options that begin with one of `own`."""
    parts = {key: config[key] for key in ("model", "objective", "eval", "train", "data")} | {"vary": config.get("vary", [])}
    return {option: value for option, value in flat(parts) if not option.startswith(own)}


def provenance(runs: Path, command: str) -> dict[str, Any]:
    """The command that made the rows, and others, each with its runs; what all runs share, and the machines and versions
    they ran on."""
    folders = evaluated(runs)
    last, *others = commands_of(runs) or [{"command": command}]
    metas = [folder.load_meta() for folder in folders if folder.meta.exists()]
    made_by = [{key: meta[key] for key in MADE_BY if key in meta} for meta in metas]
    used = [meta.get("used", {}) for meta in metas] or [{}]
    return {
        "command": last["command"],
        **({"commands": others} if others else {}),
        "runs": len(metas),
        "seconds_of_all_runs": round(sum(map(seconds_of, metas))),
        "made_by": [one for i, one in enumerate(made_by) if one not in made_by[:i]],
        "config": common(folders[0].load_config()),
        "used": {key: value for key, value in used[0].items() if all(one.get(key) == value for one in used)},  # of the data
    }


def told_of_some(made_by: dict[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """Of what made a report, what made these of its rows, without counts, which are of all its runs."""
    if not {"kept", "commands"} & made_by.keys():
        return {key: value for key, value in made_by.items() if key not in ("runs", "seconds_of_all_runs")}
    told = {key: made_by[key] for key in ("command", "config", "used") if key in made_by}
    kept = _told_of({run for _, run in _runs_of(rows[rows["kind"] == "scheme"])}, made_by)
    return told | {"config": {key: value for key, value in told["config"].items() if key != "code"}, "kept": kept}


def _told_of(runs: Iterable[str], earlier: dict[str, Any]) -> list[dict[str, Any]]:
    """What made the runs that are kept: of one report, or of several one after the other."""
    own = {"command": earlier["command"], "runs": [], "made_by": earlier.get("made_by", [])}
    own |= {"code": earlier["config"]["code"]} if "code" in earlier["config"] else {}
    return kept_parts(runs, own, [*earlier.get("kept", []), *(own | part for part in earlier.get("commands", []))])


def kept_parts(runs: Iterable[str], own: dict[str, Any], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What made these runs: parts of before, and for all that these do not name `own`, each with its `runs`."""
    rest = {*runs}.difference(*(part["runs"] for part in before))
    kept = [part | {"runs": sorted({*runs} & {*part["runs"]})} for part in [*before, own | {"runs": rest}]]
    return [part for part in kept if part["runs"]]


def load_provenance(path: Path) -> dict[str, Any]:
    """What made the rows beside it. Raises UserError where it is damaged."""
    mend = "it tells what made the rows beside it: bring it back, or remove them, and `make report` writes both"
    told = load_checked(path, yaml.safe_load, lambda told: (told["command"].strip(), _recipe(told["config"], ())), mend)
    return told | {"config": as_now(told["config"])}
