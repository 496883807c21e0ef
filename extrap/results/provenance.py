"""What made the rows of a report, and which rows may stand in one beside each other. Imports no torch."""

from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from extrap.config.varied import flat
from extrap.errors import UserError
from extrap.results.folders import common, differences, evaluated, finished, load_checked
from extrap.results.rows import KEY, TRAINED, collect_missing, load_missing, load_rows, load_training, stacked

MADE_BY = (
    "version", "git_commit", "git_dirty", "python", "torch", "device", "instructions", "precision", "threads", "processes",
)  # fmt: skip
OF_PLACE = ("data.train", "data.valid")  # where text lay, and sizes of it: what it is its digest tells
OF_MACHINE = (*OF_PLACE, "data.sha256", "train.precision")  # another has text of its own, and the precision that suits it


def refuse_to_lose(results: Path, config: dict[str, Any], planned: Collection[tuple[str, str]] = ()) -> None:
    """Raises UserError if a report of these runs would replace one of another config, or one that holds more.

    `planned`: scheme and name of runs to come. The report may hold other schemes, whose rows are kept (see `kept`), if
    recipe, data and precision are the same. Another machine may have other data and another precision: there the same
    experiment is made anew.
    """
    if not (results / "rows.csv").exists():
        return
    old, config = load_provenance(results / "provenance.yaml")["config"], common(config)
    if changes := differences(_recipe(old, OF_MACHINE), _recipe(config, OF_MACHINE)):
        raise UserError(f"{results} holds results of another config: {'; '.join(changes)}. Choose another name=...")
    rows = load_rows(results / "rows.csv")
    if planned:  # a sweep makes the references again
        rows = rows[rows["kind"].isin(TRAINED)]
    runs = results.parent / "runs" / results.name
    found = [collect_missing(runs), *(load_rows(folder.rows) for folder in finished(runs) if folder.is_evaluated)]
    made = {*planned}.union(*map(_runs_of, found))
    lost = sorted(_runs_of(rows) - made)
    changes = differences(_recipe(old, OF_PLACE), _recipe(config, OF_PLACE))
    here, references = {scheme for scheme, _ in made}, {*rows.loc[~rows["kind"].isin(TRAINED), "scheme"]}
    if lost and (changes or any((scheme in here) != (scheme in references) for scheme, _ in lost)):
        dropped = ", ".join([*(run for _, run in lost[:3]), *(["..."] if lost[3:] else [])])
        raise UserError(
            f"{results} holds {len(lost)} runs that are neither planned now nor finished in {runs}, and would drop: "
            f"{dropped}. Rows stay only of schemes all of whose seeds are made by one program, beside rows of one recipe, text "
            f"and precision{''.join(f'; {change}' for change in changes)}. Run the sweep that makes them, choose another "
            f"name=..., or move {results} away"
        )


def kept(results: Path, rows: pd.DataFrame, missing: pd.DataFrame) -> list[str]:
    """The runs of an earlier report that `rows` and `missing` of the runs here do not hold, and which stay in it.

    Raises UserError where both score the references, which nobody trains, and get other numbers.
    """
    if not (results / "rows.csv").exists():
        return []
    old = load_rows(results / "rows.csv")
    if change := _other_reference(old, rows):
        raise UserError(f"{results} holds other references than the runs here: {change}; choose another name=...")
    return sorted({*old["run"]} - {*rows["run"], *missing["run"]})


def _other_reference(old: pd.DataFrame, new: pd.DataFrame) -> str:
    """Where both score the same reference and get other numbers: it hangs on the text alone."""
    both = old[~old["kind"].isin(TRAINED)].merge(new[~new["kind"].isin(TRAINED)], on=["kind", *KEY], suffixes=("", "_new"))
    if np.allclose(both["nll_sum"], both["nll_sum_new"], rtol=1e-6, atol=0):
        return ""
    worst = both.loc[(both["nll_sum"] - both["nll_sum_new"]).abs().idxmax()]
    return f"{worst['scheme']} at {worst['eval_len']} has nll_sum={worst['nll_sum']} there and {worst['nll_sum_new']} here"


def join(reports: Sequence[Path], command: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Rows, what is missing, training losses and provenance of several reports in one; a reference stands there once.

    Raises UserError where they differ in recipe, data, precision, evaluation or references, or two hold the same scheme.
    """
    rows = [load_rows(report / "rows.csv") for report in reports]
    told = [load_provenance(report / "provenance.yaml") for report in reports]
    missing = [load_missing(report / "missing.csv") for report in reports]
    losses = [load_training(report / "training.csv") for report in reports]
    schemes = [
        {*table.loc[table["kind"] == "scheme", "scheme"], *gone["scheme"]} for table, gone in zip(rows, missing, strict=True)
    ]
    for i, j in combinations(range(len(reports)), 2):
        why = differences(_recipe(told[i]["config"], OF_PLACE), _recipe(told[j]["config"], OF_PLACE))
        if change := _other_reference(rows[j], rows[i]):
            why.append(f"their references differ: {change}")
        both = sorted(schemes[i] & schemes[j])
        why += [f"both hold {scheme}, all seeds of which must be made by one program" for scheme in both]
        if why:
            raise UserError(f"the rows of {reports[i]} and {reports[j]} cannot stand in one report: {'; '.join(why)}")
    parts = [
        part
        for table, one in zip(rows, told, strict=True)
        for part in _told_of(sorted({*table.loc[table["kind"] == "scheme", "run"]}), one)["kept"]
    ]
    made_by = {
        "command": command,
        "parameters": _by_size({run: size for one in told for run, size in parameters(one).items()}),
        "config": {key: value for key, value in told[0]["config"].items() if key != "code"},
        "used": told[0].get("used", {}),
        "kept": parts,
    }
    return _together(rows).drop_duplicates(["kind", *KEY], ignore_index=True), _together(missing), _together(losses), made_by


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """In the order of the names of runs."""
    return stacked(tables).sort_values("run", kind="stable", ignore_index=True)


def with_kept(table: pd.DataFrame, old: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    """A table of the runs here, and of an earlier report the lines of these runs, in the order of their names."""
    return _together([table, old[old["run"].isin(runs)]]) if runs else table


def _runs_of(table: pd.DataFrame) -> set[tuple[str, str]]:
    """Scheme and name of each."""
    return {*zip(table["scheme"], table["run"], strict=True)}


def _recipe(config: dict[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
    """What must be the same of rows that stand in one report: all but the options that begin with one of `own`."""
    parts = {key: config[key] for key in ("model", "objective", "eval", "train", "data")} | {"vary": config.get("vary", [])}
    return {option: value for option, value in flat(parts) if not option.startswith(own)}


def provenance(
    runs: Path, command: str, kept_runs: Sequence[str] = (), earlier: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The command that made the rows, what its runs share, and the machines and versions they ran on.

    Under `kept`, what `earlier` told of the runs that stay of another report.
    """
    folders, earlier = evaluated(runs), earlier or {}
    metas = {folder.path.name: folder.load_meta() for folder in folders if folder.meta.exists()}
    made_by = [{key: meta[key] for key in MADE_BY if key in meta} for meta in metas.values()]
    sizes = {run: size for run, size in parameters(earlier).items() if run in kept_runs}
    return {
        "command": command,
        "runs": len(metas),
        "parameters": _by_size(sizes | {run: meta["n_params"] for run, meta in metas.items()}),
        "seconds_of_all_runs": round(sum(sum(meta["seconds"].values()) for meta in metas.values())),
        "made_by": [one for i, one in enumerate(made_by) if one not in made_by[:i]],
        "config": common(folders[0].load_config()),
        "used": _used([*metas.values()]),  # of the data
    } | _told_of(kept_runs, earlier)


def _by_size(sizes: dict[str, int]) -> dict[int, list[str]]:
    return {size: sorted(run for run in sizes if sizes[run] == size) for size in sorted({*sizes.values()})}


def parameters(told: dict[str, Any]) -> dict[str, int]:
    """How many parameters the model of each run has, as far as the provenance tells."""
    return {run: size for size, runs in told.get("parameters", {}).items() for run in runs}


def _used(metas: list[dict[str, Any]]) -> dict[str, Any]:
    """What all runs say of the data that they use."""
    found = [meta.get("used", {}) for meta in metas] or [{}]
    return {key: value for key, value in found[0].items() if all(one.get(key) == value for one in found)}


def _told_of(runs: Sequence[str], earlier: dict[str, Any]) -> dict[str, Any]:
    """What made the runs that are kept: of one report, or of several one after the other."""
    before = [part | {"runs": [run for run in part["runs"] if run in runs]} for part in earlier.get("kept", [])]
    rest = [run for run in runs if not any(run in part["runs"] for part in before)]
    parts = [part for part in before if part["runs"]]
    if rest:
        parts.append({"command": earlier["command"], "runs": rest, "made_by": earlier["made_by"]})
        parts[-1] |= {"code": earlier["config"]["code"]} if "code" in earlier["config"] else {}
    return {"kept": parts} if parts else {}


def load_provenance(path: Path) -> dict[str, Any]:
    """What made the rows beside it. Raises UserError where it is damaged."""
    mend = "it tells what made the rows beside it: bring it back, or remove them, and `make report` writes both"
    return load_checked(path, yaml.safe_load, lambda told: (told["command"].strip(), _recipe(told["config"], ())), mend)
