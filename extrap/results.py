"""Results on disk: run folders, atomic writes, rows. Imports no torch.

results/runs/<experiment>/data/    the documents as all runs map them into memory
results/runs/<experiment>/<run>/
  config.yaml    what the answers depend on, written first; another config in the same folder is refused
  train.csv      step, tokens, lr, loss, grad_norm, seconds
  checkpoint.pt  model, optimizer, step, seconds; replaced atomically
  model.pt       its existence means: trained
  meta.json      versions, machine, sizes, seconds, memory, digest of the data
  eval.csv       one row per (protocol, eval_len, segment); its existence means: evaluated
  error.log      the traceback, if the last try failed
"""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from extrap.errors import UserError, one_line

COLUMNS = [
    "experiment", "run", "kind", "scheme", "extension", "objective", "data", "protocol", "train_len", "eval_len",
    "seed", "document", "segment", "nll_sum", "n_tokens", "n_bytes",
]  # fmt: skip
TRAINING = ["experiment", "run", "scheme", "objective", "data", "train_len", "seed", "step", "tokens", "loss"]
COUNTS = ["train_len", "eval_len", "seed", "segment", "n_tokens", "n_bytes"]
# one segment scored once: two rows that agree in all of these are an error
KEY = ["scheme", "extension", "objective", "data", "protocol", "train_len", "eval_len", "seed", "document", "segment"]
# in these the runs of one experiment may differ: they are columns of their rows, so nothing is averaged over them unseen
MAY_DIFFER = ("seed", "position")
MADE_BY = ("version", "git_commit", "git_dirty", "python", "torch", "device", "precision", "threads")


def write_atomic(path: Path, content: str | bytes) -> None:
    """The file is there whole or not at all, whenever the process is killed."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Makes the folder this config's own. Raises UserError, with the differences, if it holds another config."""
    refuse_other_config(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.yaml").exists():
        write_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def refuse_other_config(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "config.yaml"
    if path.exists() and (changes := differences(yaml.safe_load(path.read_text()), config)):
        raise UserError(
            f"{folder} holds a run with another config: {'; '.join(changes)} (found there -> asked for now). "
            "Choose another name=..., or move the folder away"
        )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """'train.lr: 0.001 -> 0.002' for every value that differs."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = dict.fromkeys([*before, *after])
    return [f"{k}: {before.get(k, 'nothing')} -> {after.get(k, 'nothing')}" for k in keys if before.get(k) != after.get(k)]


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def refuse_to_lose(results: Path, config: dict[str, Any], planned: set[tuple[str, int]]) -> None:
    """Raises UserError if a report of these (scheme, seed) would replace one of another config, or one that holds more.

    Another machine may have other data and another precision: there the same experiment is made anew.
    """
    if not (results / "provenance.yaml").exists() or not (results / "rows.csv").exists():
        return
    old = yaml.safe_load((results / "provenance.yaml").read_text())["config"]
    if changes := differences(*({"data": c["data"]["_target_"], **_comparable(c)} for c in (old, config))):
        raise UserError(f"{results} holds results of another config: {'; '.join(changes)}. Choose another name=...")
    rows = load_rows(results / "rows.csv")
    made = rows.loc[rows["kind"] == "scheme", ["scheme", "seed"]].drop_duplicates()
    runs = results.parent / "runs" / results.name
    finished = {tuple(run) for path in runs.glob("*/eval.csv") for run in load_rows(path)[["scheme", "seed"]][:1].to_numpy()}
    if lost := sorted(set(made.itertuples(index=False, name=None)) - planned - finished):
        named = ", ".join(f"{scheme} seed {seed}" for scheme, seed in lost[:3])
        raise UserError(
            f"{results} holds {len(lost)} runs that this sweep neither plans nor finds finished, and would drop: {named}"
            f"{', ...' if len(lost) > 3 else ''}. Choose another name=..."
        )


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    shown = {key: config[key] for key in ("model", "objective", "train", "eval")}
    return shown | {"train": {key: value for key, value in config["train"].items() if key != "precision"}}


def collect(runs: Path) -> pd.DataFrame:
    """The rows of every evaluated run below results/runs/<experiment>, in the order of their names.

    Raises UserError if there is none, or if runs differ in what their rows would not show.
    """
    folders = evaluated(runs)
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
    comparable = [{key: value for key, value in config.items() if key not in MAY_DIFFER} for config in configs]
    for folder, config in zip(folders, comparable, strict=True):
        if changes := differences(comparable[0], config):
            raise UserError(
                f"the runs of one experiment may differ in seed and position only, but between {folders[0].name} "
                f"and {folder.name} in {runs} also differ {'; '.join(changes)}: use another name=... for one of them"
            )
    rows = pd.concat([load_rows(folder / "eval.csv") for folder in folders], ignore_index=True)
    refuse_duplicates(rows, runs)
    return rows


def collect_training(runs: Path) -> pd.DataFrame:
    """The training losses of every evaluated run, named as its rows are; loss in nats per scored token of a batch."""
    tables = [pd.DataFrame(columns=TRAINING)]
    for folder in evaluated(runs):
        if (folder / "train.csv").exists():  # references are not trained
            run = load_rows(folder / "eval.csv").loc[:0, TRAINING[:-3]]
            tables.append(run.merge(pd.read_csv(folder / "train.csv")[TRAINING[-3:]], how="cross"))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def load_training(path: Path) -> pd.DataFrame:
    """Training losses from CSV, checked: all columns, a finite loss once for every run and step."""
    if not path.exists():
        raise UserError(f"{path} does not exist; `make sweep` writes it")
    try:
        losses = pd.read_csv(path, dtype=str, keep_default_na=False)[TRAINING]
        losses = losses.astype(dict.fromkeys(["train_len", "seed", "step", "tokens"], np.int64) | {"loss": np.float64})
    except (ValueError, KeyError) as error:
        raise UserError(one_line(f"{path} is no table with the columns {', '.join(TRAINING)}: {error}")) from error
    if losses.duplicated([*TRAINING[:-3], "step"]).any() or not np.isfinite(losses["loss"]).all():
        raise UserError(f"{path}: expected a finite loss once for every run and step")
    return losses


def evaluated(runs: Path) -> list[Path]:
    """The folders of all evaluated runs, in the order of their names."""
    folders = sorted(path.parent for path in runs.glob("*/eval.csv"))
    if not folders:
        raise UserError(f"{runs} holds no evaluated run; `make sweep` makes them")
    return folders


def provenance(runs: Path, command: str) -> str:
    """YAML: the command that made the rows, what its runs share, and the machines and versions they ran on."""
    folders = evaluated(runs)
    config = yaml.safe_load((folders[0] / "config.yaml").read_text())
    metas = [json.loads((folder / "meta.json").read_text()) for folder in folders if (folder / "meta.json").exists()]
    made_by = [{key: meta[key] for key in MADE_BY} for meta in metas]
    text: str = yaml.safe_dump(
        {
            "command": command,
            "runs": len(metas),
            "seconds_of_all_runs": round(sum(sum(meta["seconds"].values()) for meta in metas)),
            "made_by": [one for i, one in enumerate(made_by) if one not in made_by[:i]],
            "config": {key: value for key, value in config.items() if key not in MAY_DIFFER},
        },
        sort_keys=False,
        width=125,
    )
    return text


def load_rows(path: Path) -> pd.DataFrame:
    """Rows from CSV, checked: all columns, no segment twice, nothing that is not a number where one must be."""
    if not path.exists():
        raise UserError(f"{path} does not exist; `make sweep` writes it")
    try:
        # numbers are read as text first: a column that is not what it must be is then an error, not another type
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = rows[COLUMNS].astype(dict.fromkeys(COUNTS, np.int64) | {"nll_sum": np.float64})
    except (ValueError, KeyError) as error:
        raise UserError(one_line(f"{path} is no table of rows with the columns {', '.join(COLUMNS)}: {error}")) from error
    possible = np.isfinite(rows["nll_sum"]) & (rows["n_tokens"] >= 0) & (rows["n_bytes"] >= 0)
    if rows.empty or not possible.all():
        found = "no rows" if rows.empty else f"nll_sum, n_tokens, n_bytes = {tuple(rows[~possible].iloc[0, -3:])}"
        raise UserError(f"{path}: expected rows with a finite nll_sum and counts from 0 on, found {found}")
    refuse_duplicates(rows, path)
    return rows


def refuse_duplicates(rows: pd.DataFrame, place: Path) -> None:
    if rows.duplicated(KEY).any():
        twice = rows[rows.duplicated(KEY)].iloc[0]
        raise UserError(f"{place} scores a segment twice: {', '.join(f'{k}={twice[k]}' for k in KEY)}")


def save_rows(path: Path, rows: pd.DataFrame) -> None:
    """CSV with every digit: what is read again is what was written, bit for bit."""
    _save_csv(path, rows, None)


def save_table(path: Path, table: pd.DataFrame) -> None:
    """CSV with ten digits: logarithms and exponentials may differ from processor to processor in the sixteenth."""
    _save_csv(path, table, "%.10g")


def _save_csv(path: Path, table: pd.DataFrame, float_format: str | None) -> None:
    buffer = _Lines()
    table.to_csv(buffer, index=False, lineterminator="\r\n", float_format=float_format)
    write_atomic(path, buffer.getvalue())


class _Lines(io.StringIO):
    """Rows as CSV writes them, one a call, with "\\n" at their ends.

    A carriage return within a name would end a row too, unless quoted; Python before 3.13 quotes what rows end in.
    """

    def write(self, row: str) -> int:
        return super().write(row.removesuffix("\r\n") + "\n")
