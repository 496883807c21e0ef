"""What evidence costs: core-seconds of a run, and of a pair of schemes that it decides. Imports no torch."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.speed.timings import where
from extrap.files import write_atomic
from extrap.report.typesetting import NONE, OPTIMIZERS, number
from extrap.results.provenance import load_provenance
from extrap.results.rows import RUNS, load_runs
from extrap.results.shown import save_table

BEFORE = Path(__file__).with_name("evidence_before.csv")  # of tracked reports of an earlier commit, by `evidence`
NOTE = yaml.safe_load(Path(__file__).with_name("notes.yaml").read_text(encoding="utf-8"))["Evidence"]
PROTOCOLS = ("nonoverlap", "same_targets")
COLUMNS = ["experiment", "commit", "training", "seeds", "runs", "core_seconds", "pairs", "decided", "device", "precision"]


def write_evidence(results: Path) -> list[Path]:
    """results/speed/evidence.{csv,md}: what experiments cost before, each with what its report costs now, if it tells that;
    returns what was written, nothing where no report does. Whatever else was run here has no place in it.
    """
    before = pd.read_csv(BEFORE, dtype={"commit": str}, keep_default_na=False)
    now = pd.DataFrame([*reports(results, before["experiment"])], columns=COLUMNS)
    if now.empty:
        return []
    lines = pd.concat([before[before["experiment"].isin(now["experiment"])], now]).sort_values(
        "experiment", kind="stable", ignore_index=True
    )
    lines["core_seconds_per_run"] = lines["core_seconds"] / lines["runs"]
    lines["core_seconds_per_decided_pair"] = (lines["core_seconds"] / lines["decided"]).where(lines["decided"] > 0)
    folder = results / "speed"
    folder.mkdir(exist_ok=True)
    save_table(folder / "evidence.csv", lines)
    write_atomic(folder / "evidence.md", markdown(lines))
    return [folder / "evidence.csv", folder / "evidence.md"]


def reports(results: Path, experiments: Iterable[str]) -> Iterator[dict[str, object]]:
    """Of those of which all costs are known, and whose runs were trained alike, on one number of cores."""
    for folder in (results / name for name in experiments):
        if not all((folder / name).exists() for name in (RUNS, "pairs.csv", "provenance.yaml")):
            continue
        runs = where(load_runs(folder / RUNS), kind="scheme")
        seconds = (runs["train_seconds"] + runs["eval_seconds"]).sum(skipna=False)
        if pd.notna(seconds):
            told = load_provenance(folder / "provenance.yaml")
            if len({*map(cores_of, machines(told))}) == 1 and not told["config"].get("vary"):
                pairs = pd.read_csv(folder / "pairs.csv", keep_default_na=False)
                yield evidence(folder.name, told, pairs, len(runs), seconds)


def evidence(
    experiment: str, told: dict[str, Any], pairs: pd.DataFrame, n_runs: int, seconds: float, commit: str = ""
) -> dict[str, object]:
    """A line of COLUMNS, of a provenance, the lines of pairs.csv and the seconds that all runs took together.

    Pairs are comparisons of two schemes as they were trained, at one length under one of PROTOCOLS.
    """
    train, made_by = told["config"]["train"], machines(told)
    optimizer = OPTIMIZERS[train.get("optimizer", "adamw")]  # once there was no other
    pairs = where(pairs, extension_a="none", extension_b="none")
    pairs = pairs[pairs["protocol"].isin(PROTOCOLS)]
    values: list[object] = [
        experiment, commit, f"{optimizer}, {train['max_steps']:,} steps of {train['batch_size']}",
        int(pairs["n_seeds"].max()), n_runs, round(seconds * cores_of(made_by[0])), len(pairs),
        int((pairs["verdict"] != "undecided").sum()),
        " and ".join(dict.fromkeys(" ".join(filter(None, (one["device"], one.get("instructions")))) for one in made_by)),
        " and ".join(dict.fromkeys(one["precision"] for one in made_by)),
    ]  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def machines(told: dict[str, Any]) -> list[dict[str, Any]]:
    """What made the runs, those that were kept from an earlier report too."""
    return [one for part in [told, *told.get("kept", [])] for one in part.get("made_by", [])]


def cores_of(made_by: dict[str, Any]) -> int:
    """That a run has to itself."""
    return int(made_by["threads"]) * int(made_by.get("processes", 1))


def markdown(lines: pd.DataFrame) -> str:
    rows = [
        {
            "experiment": one.experiment, "training": one.training, "seeds": one.seeds, "runs": one.runs,
            "core-s of a run": number(one.core_seconds_per_run), "decided pairs": f"{one.decided} of {one.pairs}",
            "core-s of a decided pair": number(one.core_seconds_per_decided_pair) if one.decided else NONE,
            "on": f"{one.device}, {one.precision}", "report of": one.commit or "now",
        }
        for one in lines.itertuples()
    ]  # fmt: skip
    align = ["left", "left", *["right"] * 5, "left", "left"]
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"{NOTE}\n\n{table}\n"
