"""Run folders: what stands in them, whose they are, and whether it is what was written. Imports no torch.

results/runs/<experiment>/sweep.yaml   the runs that the last sweep planned, for `make status`
results/runs/<experiment>/data/    the documents as all runs map them into memory
results/runs/<experiment>/locks/   held by the sweep and by every run that is at work
results/runs/<experiment>/reference/   rows of the floors, in the same form; reference-lr=0.002/ where that varies
results/runs/<experiment>/<run>/
  config.yaml    what the answers depend on, written first; another config in the same folder is refused
  train.csv      step, tokens, lr, loss, grad_norm, seconds
  checkpoint.pt  model, optimizer, step, seconds; replaced atomically, sealed with its SHA-256 and that of the config
  model.pt       its existence means: trained; sealed likewise, with train.csv in it
  SHA256SUMS     of config and tables, as `sha256sum --check` reads it: what was changed is refused
  missing.csv    what has no rows, and why, if anything: out of memory or not a number at a length, diverged in training
  meta.json      versions, machine, sizes, seconds, memory, SHA-256 of the data
  eval.csv       one row per (protocol, eval_len, segment); its existence means: evaluated
  diverged.txt   at which step; its existence means: there is nothing to evaluate
  error.log      the traceback, if the last try failed
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from extrap.config.varied import flat, shared, values_of
from extrap.errors import UserError
from extrap.files import write_atomic

# in these, and in what their sweep varies, the runs of one experiment may differ: columns of their rows tell them, so that
# nothing is averaged over them unseen
MAY_DIFFER = ("seed", "position", "scheme_code")
OVER = ("eval.csv", "diverged.txt")  # the existence of one means: there is nothing left to do
WRITTEN = ("config.yaml", "train.csv", "meta.json", "missing.csv", "eval.csv", "diverged.txt")  # and not changed since
MADE_LATER = ("checkpoint.pt", "model.pt", *OVER)  # than config.yaml


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Makes the folder this config's own. Raises UserError, with the differences, if it holds another config."""
    refuse_other_config(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.yaml").exists():
        write_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def refuse_other_config(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "config.yaml"
    if not path.exists() and (made := [name for name in MADE_LATER if (folder / name).exists()]):
        raise UserError(f"{folder} holds {made[0]} and no config.yaml that says of what; move it out of {folder.parent}")
    if path.exists() and (changes := differences(load_config(path), config)):
        other = [change for change in changes if not change.startswith(("code:", "scheme_code:"))]
        what = "with another config" if other else "of another version of the program"
        raise UserError(
            f"{folder} holds a run {what}: {'; '.join(other or changes)} (found there -> asked for now). "
            f"Choose another name=..., or move the folder out of {folder.parent}"
        )


def load_config(path: Path) -> dict[str, Any]:
    """The config.yaml of a run. Raises UserError where it is damaged or gone."""
    try:
        config = yaml.safe_load(path.read_text())
        if isinstance(config, dict):
            return config
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        pass
    raise UserError(
        f"{path} is damaged or gone, expected the config of a run; move its folder out of {path.parent.parent}, and the "
        "run is made again"
    )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """'train.lr: 0.001 -> 0.002' for every value that differs."""
    before, after = dict(flat(old)), dict(flat(new))
    keys = dict.fromkeys([*before, *after])
    return [f"{k}: {before.get(k, 'nothing')} -> {after.get(k, 'nothing')}" for k in keys if before.get(k) != after.get(k)]


def runs_that_are_over(runs: Path) -> list[Path]:
    """The folders of all runs that are evaluated or have diverged, in the order of their names."""
    return sorted({path.parent for name in OVER for path in runs.glob(f"*/{name}")})


def evaluated(runs: Path) -> list[Path]:
    """The folders of all evaluated runs, in the order of their names. Raises UserError where there is none."""
    folders = [folder for folder in runs_that_are_over(runs) if (folder / "eval.csv").exists()]
    if not folders:
        raise UserError(f"{runs} holds no evaluated run; `make sweep` makes them")
    return folders


def load_meta(path: Path) -> dict[str, Any]:
    """The meta.json of a run. Raises UserError where it is damaged."""
    try:
        meta = json.loads(path.read_text())
        if all(isinstance(meta["seconds"][part], int | float) for part in ("train", "evaluate")):
            return dict(meta)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is damaged or gone; remove the eval.csv beside it, and its run is scored again")


def finish(folder: Path, tables: dict[str, str]) -> None:
    """Writes the tables of a run that is over, the last of which says so, and before them the SHA-256 of all of it."""
    digests = {name: _digest_of(folder / name) for name in ("config.yaml", "train.csv") if (folder / name).exists()}
    digests |= {name: _sha256(content.encode()) for name, content in tables.items()}
    write_atomic(folder / "SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    for name in set(WRITTEN) - digests.keys():  # of an earlier end
        (folder / name).unlink(missing_ok=True)
    for name, content in tables.items():
        write_atomic(folder / name, content)


def refuse_changed(folder: Path) -> None:
    """Raises UserError if a file of a run that is over is not the one that was written, or was not there at all."""
    over = next(name for name in OVER if (folder / name).exists())
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise UserError(f"{sums} is gone; remove {folder / over}, and the same sweep makes all of it again")
    lines = sums.read_text(errors="replace").splitlines()
    told = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in WRITTEN:
        if told.get(name) != (_digest_of(folder / name) if (folder / name).exists() else None):
            raise UserError(
                f"{folder / name} is not what SHA256SUMS beside it says; remove {folder / over}, and the same sweep makes "
                "all of it again"
            )


def _digest_of(path: Path) -> str:
    return _sha256(path.read_bytes()) if path.is_file() else "nothing"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def common(config: dict[str, Any]) -> dict[str, Any]:
    """What all runs of an experiment share of their configs."""
    return {key: value for key, value in shared(config).items() if key not in MAY_DIFFER}


def refuse_mixed(runs: Path, planned: dict[str, dict[str, Any]] | None = None) -> None:
    """Raises UserError unless runs, planned ones too, differ in seed, position and what their sweep varies only.

    All of a scheme are of one code, and where what varies is the same, so is what follows from it: the digest of data.
    """
    configs = {folder.name: load_config(folder / "config.yaml") for folder in runs_that_are_over(runs)} | (planned or {})
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for run, config in configs.items():
        scheme, vary = {"scheme_code": config.get("scheme_code")}, config.get("vary", [])
        alike = {key: value for key, value in config.items() if key not in MAY_DIFFER}
        parts = {"runs": common(config), f"scheme {config.get('position')}": scheme}
        for what, part in (parts | {f"setting {values_of(config, vary)}": alike}).items():
            other, known = first.setdefault(what, (run, part))
            if changes := differences(known, part):
                raise UserError(
                    f"the runs of one experiment may differ in seed and position only{''.join(f', {key}' for key in vary)}, "
                    f"but between {other} and {run} in {runs} also differ {'; '.join(changes)}: use another name=... for "
                    f"one, or move {other} out of {runs}"
                )
