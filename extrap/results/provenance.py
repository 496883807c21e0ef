"""What made the rows of a report, and which rows may stand in one beside each other. Imports no torch."""

from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from extrap.errors import UserError
from extrap.results.folders import common, differences, evaluated, finished
from extrap.results.rows import GROUP, KEY, TRAINED, collect_missing, load_missing, load_rows, load_training

MADE_BY = (
    "version", "git_commit", "git_dirty", "python", "torch", "device", "instructions", "precision", "threads", "processes",
)  # fmt: skip
Labels = tuple[str | int, ...]  # of a run: the columns RUN
RUN = ["scheme", *GROUP, "seed"]


def refuse_to_lose(results: Path, config: dict[str, Any], planned: Collection[Labels] = ()) -> None:
    """Raises UserError if a report of these runs would replace one of another config, or one that holds more.

    It may hold other schemes, whose rows are kept (see `kept`), if recipe, data and precision are the same. Another machine
    may have other data and another precision: there the same experiment is made anew.
    """
    if not (results / "rows.csv").exists():
        return
    old, config = load_provenance(results / "provenance.yaml")["config"], common(config)
    if changes := differences(_comparable(old), _comparable(config)):
        raise UserError(f"{results} holds results of another config: {'; '.join(changes)}. Choose another name=...")
    rows = load_rows(results / "rows.csv")
    if planned:  # a sweep makes the references again
        rows = rows[rows["kind"].isin(TRAINED)]
    runs = results.parent / "runs" / results.name
    found = [collect_missing(runs), *(load_rows(folder.rows) for folder in finished(runs) if folder.is_evaluated)]
    made = {run for table in found for run in _runs_of(table)} | {*planned}
    if lost := sorted(_runs_of(rows) - made):
        changes = differences(_same_numbers(old), _same_numbers(config))
        untrained = {*rows.loc[~rows["kind"].isin(TRAINED), "scheme"]}
        if references := sorted(untrained & (_schemes(lost) - _schemes(made))):
            why = f"{references[0]} is no scheme"
        elif changes:
            why = f"nor can their rows stand beside these: {'; '.join(changes)}"
        elif partly := sorted(_schemes(lost) & _schemes(made) - untrained):
            why = f"all seeds of {partly[0]} are made by one program"
        else:
            return  # they are kept
        named = ", ".join(" ".join(filter(None, [str(run[0]), str(run[-2]), f"seed {run[-1]}"])) for run in lost[:3])
        raise UserError(
            f"{results} holds {len(lost)} runs that are neither planned now nor finished in {runs}, and would drop: {named}"
            f"{', ...' if len(lost) > 3 else ''}; {why}. Run the sweep that makes them, choose another name=..., or move "
            f"{results} away"
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
    made = _runs_of(rows) | _runs_of(missing)
    runs = old[["run", *RUN]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(run for run, *of in runs if tuple(of) not in made)


def _other_reference(old: pd.DataFrame, new: pd.DataFrame) -> str:
    """Where both score the same reference and get other numbers: it hangs on the text alone."""
    both = old[~old["kind"].isin(TRAINED)].merge(new[~new["kind"].isin(TRAINED)], on=["kind", *KEY], suffixes=("", "_new"))
    if np.allclose(both["nll_sum"], both["nll_sum_new"], rtol=1e-6, atol=0):
        return ""
    worst = both.loc[(both["nll_sum"] - both["nll_sum_new"]).abs().idxmax()]
    return f"{worst['scheme']} at {worst['eval_len']} has nll_sum={worst['nll_sum']} there and {worst['nll_sum_new']} here"


def join(reports: Sequence[Path], command: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """Rows, what is missing, training losses and provenance of several reports in one; a reference stands there once.

    Raises UserError where they differ in recipe, data, precision, evaluation or references, or two hold the same scheme.
    """
    rows = [load_rows(report / "rows.csv") for report in reports]
    told = [load_provenance(report / "provenance.yaml") for report in reports]
    missing = [load_missing(report / "missing.csv") for report in reports]
    losses = [load_training(report / "training.csv") for report in reports]
    trained = [
        _runs_of(table[table["kind"] == "scheme"]) | _runs_of(gone) for table, gone in zip(rows, missing, strict=True)
    ]
    for i, j in combinations(range(len(reports)), 2):
        these = f"{reports[i]} and {reports[j]}"
        if changes := differences(_same_numbers(told[i]["config"]), _same_numbers(told[j]["config"])):
            raise UserError(f"the rows of {these} cannot stand in one report, they differ in {'; '.join(changes)}")
        if change := _other_reference(rows[j], rows[i]):
            raise UserError(f"the rows of {these} cannot stand in one report, their references differ: {change}")
        if both := sorted(_schemes(trained[i]) & _schemes(trained[j])):
            seeds = sorted({run[-1] for run in trained[i] | trained[j] if run[0] in both})
            raise UserError(
                f"{these} both hold {', '.join(both)} (seeds {', '.join(map(str, seeds))}); all seeds of a scheme are made "
                "by one program: sweep what only one of them holds under another name=..."
            )
    parts = [
        part
        for table, one in zip(rows, told, strict=True)
        for part in _told_of(sorted({*table.loc[table["kind"] == "scheme", "run"]}), one)["kept"]
    ]
    shared = {key: value for key, value in told[0]["config"].items() if key != "code"}
    sizes = _by_size({run: size for one in told for run, size in parameters(one).items()})
    made_by = {"command": command, "parameters": sizes, "config": shared, "used": told[0].get("used", {}), "kept": parts}
    return (
        _together(rows).drop_duplicates(["kind", *KEY], ignore_index=True),
        _together(missing),
        _together(losses),
        yaml.safe_dump(made_by, sort_keys=False, width=125),
    )


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """In the order of the names of runs."""
    filled = [table for table in tables if len(table)] or [*tables[:1]]
    return pd.concat(filled, ignore_index=True).sort_values("run", kind="stable", ignore_index=True)


def with_kept(table: pd.DataFrame, old: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    """A table of the runs here, and of an earlier report the lines of these runs, in the order of their names."""
    return _together([table, old[old["run"].isin(runs)]]) if runs else table


def _runs_of(table: pd.DataFrame) -> set[Labels]:
    return set(table[RUN].drop_duplicates().itertuples(index=False, name=None))


def _schemes(runs: set[Labels] | list[Labels]) -> set[str]:
    return {str(run[0]) for run in runs}


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """What is the same on other machines: not their text, and not the precision that suits them."""
    train = {key: value for key, value in config["train"].items() if key != "precision"}
    data = {key: value for key, value in config["data"].items() if not key.startswith(("sha256", "train", "valid"))}
    same = {key: config[key] for key in ("model", "objective", "eval")} | {"train": train, "data": data}
    return same | {"vary": config.get("vary", [])}


def _same_numbers(config: dict[str, Any]) -> dict[str, Any]:
    """What must be the same of rows that stand side by side, whoever made them: all but where their text lay."""
    data = {key: value for key, value in config["data"].items() if key not in ("train", "valid")}
    same = {key: config[key] for key in ("model", "objective", "eval", "train")} | {"data": data}
    return same | {"vary": config.get("vary", [])}


def provenance(runs: Path, command: str, kept_runs: Sequence[str] = (), earlier: dict[str, Any] | None = None) -> str:
    """YAML: the command that made the rows, what its runs share, and the machines and versions they ran on.

    Under `kept`, what `earlier` told of the runs that stay of another report.
    """
    folders = evaluated(runs)
    config = folders[0].load_config()
    metas = [folder.load_meta() for folder in folders if folder.meta.exists()]
    made_by = [{key: meta[key] for key in MADE_BY if key in meta} for meta in metas]
    before = parameters(earlier) if earlier else {}
    sizes = {run: before[run] for run in kept_runs if run in before}
    sizes |= {folder.path.name: folder.load_meta()["n_params"] for folder in folders if folder.meta.exists()}
    text: str = yaml.safe_dump(
        {
            "command": command,
            "runs": len(metas),
            "parameters": _by_size(sizes),
            "seconds_of_all_runs": round(sum(sum(meta["seconds"].values()) for meta in metas)),
            "made_by": [one for i, one in enumerate(made_by) if one not in made_by[:i]],
            "config": common(config),
            "used": _used(metas),  # of the data
        }
        | _told_of(kept_runs, earlier or {}),
        sort_keys=False,
        width=125,
    )
    return text


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
    try:
        told = yaml.safe_load(path.read_text())
        if isinstance(told["command"], str) and _comparable(told["config"]):
            return dict(told)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{path} is damaged or gone, expected what made the rows beside it; bring it back, or remove "
        "them, and `make report` writes both"
    )
