"""Results on disk: run folders, atomic writes, rows. Imports no torch.

results/runs/<experiment>/sweep.yaml   the runs that the last sweep planned, for `make status`
results/runs/<experiment>/data/    the documents as all runs map them into memory
results/runs/<experiment>/locks/   held by the sweep and by every run that is at work
results/runs/<experiment>/<run>/
  config.yaml    what the answers depend on, written first; another config in the same folder is refused
  train.csv      step, tokens, lr, loss, grad_norm, seconds
  checkpoint.pt  model, optimizer, step, seconds; replaced atomically, with its SHA-256 behind it
  model.pt       its existence means: trained; sealed likewise
  meta.json      versions, machine, sizes, seconds, memory, digest of the data
  missing.csv    what has no rows, and why, if anything: out of memory at a length, diverged in training
  eval.csv       one row per (protocol, eval_len, segment); its existence means: evaluated
  diverged.txt   at which step; its existence means: there is nothing to evaluate
  error.log      the traceback, if the last try failed
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from extrap.errors import UserError, one_line
from extrap.files import write_atomic

COLUMNS = [
    "experiment", "run", "kind", "scheme", "extension", "objective", "data", "protocol", "train_len", "eval_len",
    "seed", "document", "segment", "nll_sum", "n_tokens", "n_bytes",
]  # fmt: skip
TRAINING = ["experiment", "run", "scheme", "objective", "data", "train_len", "seed", "step", "tokens", "loss"]
MISSING = ["experiment", "run", "scheme", "objective", "data", "train_len", "seed", "extension", "protocol", "eval_len",
           "reason"]  # fmt: skip
COUNTS = ["train_len", "eval_len", "seed", "segment", "n_tokens", "n_bytes"]
# one segment scored once: two rows that agree in all of these are an error
KEY = ["scheme", "extension", "objective", "data", "protocol", "train_len", "eval_len", "seed", "document", "segment"]
# in these the runs of one experiment may differ: they are columns of their rows, so nothing is averaged over them unseen
MADE_LATER = ("checkpoint.pt", "model.pt", "eval.csv", "diverged.txt")  # than config.yaml
MAY_DIFFER = ("seed", "position", "scheme_code")
MADE_BY = ("version", "git_commit", "git_dirty", "python", "torch", "device", "precision", "threads", "processes")


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Makes the folder this config's own. Raises UserError, with the differences, if it holds another config."""
    refuse_other_config(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.yaml").exists():
        write_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def refuse_other_config(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "config.yaml"
    if not path.exists() and (made := [name for name in MADE_LATER if (folder / name).exists()]):
        raise UserError(f"{folder} holds {made[0]} and no config.yaml that says of what; move the folder away")
    if path.exists() and (changes := differences(load_config(path), config)):
        other = [change for change in changes if not change.startswith(("code:", "scheme_code:"))]
        what = "with another config" if other else "of another version of the program"
        raise UserError(
            f"{folder} holds a run {what}: {'; '.join(other or changes)} (found there -> asked for now). "
            "Choose another name=..., or move the folder away"
        )


def load_config(path: Path) -> dict[str, Any]:
    """The config.yaml of a run. Raises UserError where it is damaged."""
    try:
        config = yaml.safe_load(path.read_text())
        if isinstance(config, dict):
            return config
    except (UnicodeDecodeError, yaml.YAMLError):
        pass
    raise UserError(f"{path} is damaged, expected the config of a run; move the folder away, and its run is made again")


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
    refuse_mixed(sorted({*folders, *(path.parent for path in runs.glob("*/diverged.txt"))}))
    for folder in folders:
        refuse_changed(folder)
    rows = pd.concat([load_rows(folder / "eval.csv") for folder in folders], ignore_index=True)
    refuse_duplicates(rows, runs)
    return rows


def refuse_changed(folder: Path) -> None:
    """Raises UserError if the rows of a run are not those that were written."""
    if (folder / "meta.json").exists():  # references have none
        written = load_meta(folder / "meta.json").get("eval_sha256")
        if written and written != hashlib.sha256((folder / "eval.csv").read_bytes()).hexdigest():
            raise UserError(f"{folder / 'eval.csv'} is not what was written; remove it, and its run is scored again")


def refuse_mixed(folders: list[Path]) -> None:
    """Raises UserError unless runs differ in seed and position only, and a scheme is of one code."""
    first: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        config = load_config(folder / "config.yaml")
        shared = {key: value for key, value in config.items() if key not in MAY_DIFFER}
        scheme = {"scheme_code": config.get("scheme_code")}
        for what, part in (("runs", shared), (f"scheme {config.get('position')}", scheme)):
            other, known = first.setdefault(what, (folder, part))
            if changes := differences(known, part):
                raise UserError(
                    f"the runs of one experiment may differ in seed and position only, but between {other.name} and "
                    f"{folder.name} in {folder.parent} also differ {'; '.join(changes)}: use another name=... for one"
                )


def collect_missing(runs: Path) -> pd.DataFrame:
    """What the runs below results/runs/<experiment> have no rows of, and why."""
    tables = [load_missing(path) for path in sorted(runs.glob("*/missing.csv"))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MISSING)


def load_missing(path: Path) -> pd.DataFrame:
    """What a sweep has no rows of, and why; nothing where there is no such file."""
    return pd.read_csv(path, keep_default_na=False)[MISSING] if path.exists() else pd.DataFrame(columns=MISSING)


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
    config = load_config(folders[0] / "config.yaml")
    metas = [load_meta(folder / "meta.json") for folder in folders if (folder / "meta.json").exists()]
    made_by = [{key: meta[key] for key in MADE_BY if key in meta} for meta in metas]
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


def load_meta(path: Path) -> dict[str, Any]:
    """The meta.json of a run. Raises UserError where it is damaged."""
    try:
        meta = json.loads(path.read_text())
        if isinstance(meta, dict) and isinstance(meta.get("seconds"), dict):
            return meta
    except (OSError, ValueError):
        pass
    raise UserError(f"{path} is damaged or gone; remove the eval.csv beside it, and its run is scored again")


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
    write_atomic(path, as_csv(rows))


def save_table(path: Path, table: pd.DataFrame) -> None:
    """CSV with ten digits: logarithms and exponentials may differ from processor to processor in the sixteenth."""
    write_atomic(path, as_csv(table, "%.10g"))


def as_csv(table: pd.DataFrame, float_format: str | None = None) -> str:
    buffer = _Lines()
    table.to_csv(buffer, index=False, lineterminator="\r\n", float_format=float_format)
    return buffer.getvalue()


class _Lines(io.StringIO):
    """Rows as CSV writes them, one a call, with "\\n" at their ends.

    A carriage return within a name would end a row too, unless quoted; Python before 3.13 quotes what rows end in.
    """

    def write(self, row: str) -> int:
        return super().write(row.removesuffix("\r\n") + "\n")
