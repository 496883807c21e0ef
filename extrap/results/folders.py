"""Run folders: what stands in them and whose they are. Imports no torch.

results/runs/<experiment>/<run>/       see RunFolder
results/runs/<experiment>/reference/   rows of the references, in the same form; reference-lr=0.002/ where that varies
results/runs/<experiment>/sweep.yaml   the command of the last sweep, and the runs that it planned, for `make status`; and
                                       earlier commands, each with those of its runs that no later one planned
results/runs/<experiment>/data/        the documents as all runs map them into memory, and tokenizer.json where a token is
                                       more than a byte; data-join=true/ where that varies
results/runs/<experiment>/locks/       held by the sweep, by every run that is at work, and by who writes its report
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from extrap.config.varied import flat, shared, values_of
from extrap.errors import UserError, nearest
from extrap.files import write_atomic

# in these, and in what their sweep varies, the runs of one experiment may differ: columns of their rows tell them, so that
# nothing is averaged over them unseen
MAY_DIFFER = ("seed", "position", "scheme_code")


class _File:
    """The path of this name in the folder that it is asked of."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: "RunFolder", _: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, and what their existence means."""

    path: Path
    config = _File("config.yaml")  # what the answers depend on, written first; another config in the same folder is refused
    log = _File("train.csv")  # of training, see train/log.py
    checkpoint = _File("checkpoint.pt")  # see train/checkpoint.py; replaced while training, removed when weights are there
    weights = _File("model.pt")  # the run is trained
    probes = _File("probes.csv")  # what probes have found in these weights, see results/probes.py
    missing = _File("missing.csv")  # what has no rows, and why: out of memory or not a number at a length, diverged
    meta = _File("meta.json")  # versions, machine, costs, SHA-256 of the data
    runs = _File("runs.csv")  # what all rows of this run share
    rows = _File("eval.csv")  # one per (protocol, eval_len, segment); the run is evaluated
    divergence = _File("diverged.txt")  # at which step; there is nothing to evaluate
    digests = _File("tables.sha256")  # of the tables that the run wrote, as sha256sum makes and checks them
    error = _File("error.log")  # the traceback, if the last try failed

    @property
    def lock(self) -> Path:
        """Held by whoever is at work on this run; beside the folders, which hold results alone."""
        return self.path.parent / "locks" / f"{self.path.name}.lock"

    @property
    def is_evaluated(self) -> bool:
        return self.rows.exists()

    @property
    def has_diverged(self) -> bool:
        return self.divergence.exists()

    @property
    def is_finished(self) -> bool:
        return self.is_evaluated or self.has_diverged

    def claim(self, config: dict[str, Any]) -> None:
        """Makes the folder this config's own. Raises UserError, with the differences, if it holds another config."""
        self.refuse_other_config(config)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            write_atomic(self.config, yaml.safe_dump(config, sort_keys=False))

    def refuse_other_config(self, config: dict[str, Any], program: bool = True) -> None:
        """Raises UserError, with the differences, if it holds another config or, unless `program` does not count, is of
        another version of the program."""
        if not any(path.exists() for path in (self.config, self.checkpoint, self.weights, self.rows, self.divergence)):
            return
        if changes := differences(self.load_config(), config):
            other = [change for change in changes if not change.startswith(("code:", "scheme_code:"))]
            if not (other or program):
                return
            of_scheme = all(change.startswith("scheme_code:") for change in changes)
            version = f"of another version of {'its scheme' if of_scheme else 'the program'}"
            what = "with another config" if other else version
            raise UserError(
                f"{self.path} holds a run {what}: {'; '.join(other or changes)} (found there -> asked for now). "
                f"Choose another name=..., or move it out of {self.path.parent}"
            )

    def load_config(self) -> dict[str, Any]:
        """Raises UserError where it is damaged or gone."""
        mend = f"move its folder out of {self.path.parent}, and the run is made again"
        return as_now(load_checked(self.config, yaml.safe_load, dict.items, mend))

    def load_meta(self) -> dict[str, Any]:
        """Raises UserError where it is damaged or gone."""
        mend = "remove the eval.csv beside it, and its run is scored again"
        return load_checked(self.meta, json.loads, lambda meta: [seconds_of(meta)], mend)

    def finish(self, tables: dict[Path, str]) -> None:
        """Writes the tables of a run that is over, the last of which says so; removes those of an earlier end, and the
        checkpoint of a training that nobody resumes."""
        contents = {path: content.encode() for path, content in tables.items()}
        logged = {self.log: self.log.read_bytes()} if self.log.exists() else {}
        digests = "".join(f"{_sha256(content)}  {path.name}\n" for path, content in (logged | contents).items())
        ended = {self.missing, self.meta, self.runs, self.rows, self.probes, self.divergence} - tables.keys()
        for path in (*ended, self.checkpoint):
            path.unlink(missing_ok=True)
        for path, content in {self.digests: digests.encode(), **contents}.items():
            write_atomic(path, content)

    def refuse_damage(self) -> None:
        """Raises UserError where a table of this finished run is not what the run wrote: cut by a full disk, or edited.

        Earlier programs have recorded no digests.
        """
        if not (self.is_finished and self.digests.exists()):
            return
        last = self.rows if self.is_evaluated else self.divergence
        parts = (line.partition("  ") for line in self.digests.read_text(errors="replace").splitlines())
        told = {name: digest for digest, _, name in parts}
        for name in sorted({last.name, *told}):
            path = self.path / name
            if not path.is_file() or _sha256(path.read_bytes()) != told.get(name):
                raise UserError(
                    f"{path} is not what its run wrote, by {self.digests.name} beside it; remove {last.name} there, and the "
                    "same sweep makes the tables of that run again"
                )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def as_now(config: dict[str, Any]) -> dict[str, Any]:
    """A config, or what runs share of one, in the words of today, whatever program wrote it down.

    model.tie is model.output: false was `untied`; true was a tied table that read and wrote otherwise than that of today
    (standard deviation 0.5, logits times 4 / D), and no run can ask for it any more: it is `tied, std 0.5`.
    """
    model = config.get("model", {})
    if "tie" not in model:
        return config
    told = {key: value for key, value in model.items() if key != "tie"}
    return config | {"model": told | {"output": "tied, std 0.5" if model["tie"] else "untied"}}


def seconds_of(meta: dict[str, Any]) -> float:
    """That a run took, training and evaluation together."""
    costs = meta["costs"]
    return float(costs["train_seconds"] + costs["eval_seconds"])


def load_checked(path: Path, parse: Callable[[str], Any], check: Callable[[Any], object], mend: str) -> dict[str, Any]:
    """What a file says, if `check` finds in it what it looks for. Raises UserError, with what mends it, if not."""
    try:
        if not check(told := parse(path.read_text())):
            raise ValueError
        return dict(told)
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or gone; {mend}") from error


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """'train.lr: 0.001 -> 0.002' for every value that differs."""
    before, after = dict(flat(old)), dict(flat(new))
    keys = dict.fromkeys([*before, *after])
    return [f"{k}: {before.get(k, 'nothing')} -> {after.get(k, 'nothing')}" for k in keys if before.get(k) != after.get(k)]


def finished(runs: Path) -> list[RunFolder]:
    """All runs that are evaluated or have diverged, in the order of their names."""
    return [folder for path in sorted(runs.glob("*")) if (folder := RunFolder(path)).is_finished]


def evaluated(runs: Path) -> list[RunFolder]:
    """All evaluated runs, in the order of their names. Raises UserError where there is none."""
    folders = [folder for folder in finished(runs) if folder.is_evaluated]
    if not folders:
        others = [other.name for other in sorted(runs.parent.glob("*")) if any(run.is_evaluated for run in finished(other))]
        told = f"; {nearest(runs.name, others)}" if others else ""
        if (runs.parent.parent / runs.name / "rows.csv").exists():
            told = "; what stands in its report, `make figures` makes again from the rows there"
        raise UserError(f"{runs} holds no evaluated run; `make sweep` makes them{told}")
    return folders


def plans(runs: Path) -> list[dict[str, Any]]:
    """Commands of sweeps, the last one first, each with the `runs` that no later one planned, those of the last with the
    number of their steps. Raises UserError where these are not told."""
    if not (path := runs / "sweep.yaml").exists():
        return []

    def check(plan: dict[str, Any]) -> bool:
        steps = plan["runs"].items()
        told = all(part["command"].strip() and part["runs"] for part in (plan, *plan.get("earlier", [])))
        return told and all(isinstance(run, str) and max_steps > 0 for run, max_steps in steps)

    plan = load_checked(path, yaml.safe_load, check, "the same sweep, started again, writes it")
    return [{"command": part["command"], "runs": part["runs"]} for part in (plan, *plan.get("earlier", []))]


def commands_of(runs: Path) -> list[dict[str, Any]]:
    """What the runs that are finished here were made by, in the same form; nothing where no sweep was planned here."""
    if not (planned := plans(runs)):
        return []
    trained = [folder.path.name for folder in finished(runs) if "position" in folder.load_config()]
    known = {run for part in planned for run in part["runs"]}
    parts = [*planned, {"command": "unknown", "runs": [run for run in trained if run not in known]}]
    made = [part | {"runs": [run for run in trained if run in part["runs"]]} for part in parts]
    return [part for part in made if part["runs"]]


def from_outside(config: dict[str, Any]) -> bool:
    """Whether its scheme, or one within that, is a class of a file that the command line names: mine.py:Mine."""
    return any(":" in name for name in _classes(config))


def _classes(config: dict[str, Any]) -> list[str]:
    """Of its scheme, and of those within that."""
    options = flat(config.get("position", {}))
    return [str(value) for option, value in options if option.rpartition(".")[2] == "_target_"]


def common(config: dict[str, Any]) -> dict[str, Any]:
    """What all runs of an experiment share of their configs."""
    return {key: value for key, value in shared(config).items() if key not in MAY_DIFFER}


def refuse_mixed(runs: Path, planned: dict[str, dict[str, Any]] | None = None) -> None:
    """Raises UserError unless runs, planned ones too, differ in seed, position and what their sweep varies only.

    All of a scheme are of one code, 64 or 64.0 in its options, and of a class from outside all, whatever its options and its
    file are called: rows name it by what is no default of it. Where what varies is the same, so is what follows from it: the
    digest of data.
    """
    configs = {folder.path.name: folder.load_config() for folder in finished(runs)} | (planned or {})
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for run, config in configs.items():
        scheme, vary = {"scheme_code": config.get("scheme_code")}, config.get("vary", [])
        alike = {key: value for key, value in config.items() if key not in MAY_DIFFER}
        options = [(name, float(value) if type(value) is int else value) for name, value in flat(config.get("position", {}))]
        names = [name.rpartition(":")[2] for name in _classes(config)] if from_outside(config) else options
        parts = {"runs": common(config), f"scheme {names}": scheme}
        for what, part in (parts | {f"setting {values_of(config, vary)}": alike}).items():
            other, known = first.setdefault(what, (run, part))
            if changes := differences(known, part):
                raise UserError(
                    f"the runs of one experiment may differ in seed and position only{''.join(f', {key}' for key in vary)}, "
                    f"but between {other} and {run} in {runs} also differ {'; '.join(changes)}: use another name=... for "
                    f"one, or move {other} out of {runs}"
                )
