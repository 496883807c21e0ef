"""One run from its config to its rows: build, train, evaluate, and what is written when."""

import contextlib
import json
import os
import platform
import resource
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import Timeout

from extrap import __version__
from extrap.config.schema import Precision
from extrap.errors import UserError
from extrap.files import locked, write_atomic
from extrap.model.encoder import Encoder
from extrap.results.folders import MAY_DIFFER, claim, finish, refuse_changed, refuse_mixed, refuse_other_config
from extrap.results.rows import MISSING, SELECTION, as_csv
from extrap.runs.cell import Cell, build_scheme
from extrap.score.evaluate import NOT_A_NUMBER, Missing, evaluate, on_held_back, reads
from extrap.score.references import label_rows, labels, reference_rows
from extrap.train import distributed
from extrap.train.device import arithmetic, keep_freed_memory, pick_device
from extrap.train.loop import Diverged, History, load_tensors, save_tensors, tell_other_arithmetic, train

LOCK_SECONDS = 10.0  # workers of a killed sweep are gone by then
SCHEME_SEED = 2**32  # a scheme's own weights are drawn apart, so that the other weights do not depend on it

# what `git rev-parse --local-env-vars` lists, but for its configuration, without which it may not trust this folder
OF_ANOTHER_REPOSITORY = {
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_IMPLICIT_WORK_TREE", "GIT_CONFIG",
    "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS", "GIT_INTERNAL_SUPER_PREFIX",
}  # fmt: skip


def execute(cell: Cell) -> None:
    """Trains and evaluates whatever of this run is not done yet.

    A run that diverges is finished, without rows. Any other error leaves its traceback in error.log.
    Raises UserError if another process is at work on the run.
    """
    folder = cell.config.folder
    try:
        with locked(cell.config.lock, LOCK_SECONDS):
            claim(folder, cell.identity)
            if cell.is_finished:
                return
            refuse_mixed(folder.parent, {cell.config.run: cell.identity})  # the program may have been edited meanwhile
            with contextlib.suppress(OSError):
                (folder / "error.log").unlink(missing_ok=True)
            try:
                train_and_evaluate(cell)
            except Diverged as error:
                missing = _missing(cell, _all_lengths(cell, str(error).partition(":")[0]))
                finish(folder, {**missing, "diverged.txt": f"{error}\n"})
            except Exception:
                if not (folder / "error.log").exists():  # another process may have failed, and this one for want of it
                    write_atomic(folder / "error.log", traceback.format_exc())
                raise
    except Timeout as error:
        raise UserError(f"{folder} is being run by another process; wait until it has ended") from error


def train_and_evaluate(cell: Cell) -> None:
    """Of several processes all do the work, and rank 0 alone writes."""
    config, source, objective, *_ = cell
    folder, device = config.folder, pick_device(config.runtime.device)
    keep_freed_memory()
    torch.set_num_threads(config.runtime.threads)
    encoder = build_encoder(cell).to(device)
    of, *others = distributed.gathered(lambda: json.dumps(cell.identity, sort_keys=True))
    if set(others) - {of}:
        raise UserError("the processes of this run have read different programs or data; the same command begins anew")
    if trained := load_tensors(folder / "model.pt", of):
        encoder.load_state_dict(trained["model"])
        history = History(*trained["history"])
        tell_other_arithmetic(folder.name, "its trained weights", trained["arithmetic"], device)
    else:
        precision = Precision(cell.identity["train"]["precision"])
        history = train(
            encoder,
            source,
            objective,
            config.train,
            seed=config.seed,
            precision=precision,
            folder=folder,
            checkpoint_every=config.runtime.checkpoint_every,
            of=of,
        )
        if distributed.rank() == 0:
            state = {"model": encoder.state_dict(), "history": tuple(history), "arithmetic": arithmetic(device)}
            save_tensors(folder / "model.pt", state, of)
            (folder / "checkpoint.pt").unlink(missing_ok=True)
    began = time.monotonic()
    rows, missing = evaluate(encoder, source, objective, config.eval)
    chosen_on = [on_held_back(encoder, cell.held_back, objective, source.vocab_size)] if cell.held_back else []
    if not (rows["protocol"] != "position").any():  # which is a figure alone
        if any(one.reason.startswith(NOT_A_NUMBER) for one in missing):
            raise Diverged(f"{NOT_A_NUMBER} at the training length: trained to its end, it gives none there")
        told = "; ".join(sorted({one.reason for one in missing})) or "the scheme reaches none of eval.lengths"
        raise UserError(f"{folder} has no rows ({told}); other eval.lengths or a larger machine may mend that")
    if distributed.rank() > 0:
        return
    took = {"train": history.seconds, "evaluate": time.monotonic() - began}
    meta = describe(cell, encoder, device, took, history.processes)
    of_run = {"run": config.run, "scheme": config.scheme, "seed": config.seed}
    labelled = pd.concat([
        label_rows(rows, config, kind="scheme", **of_run),
        *(label_rows(held_back, config, kind=SELECTION, **of_run) for held_back in chosen_on),
    ])  # fmt: skip
    write_atomic(folder / "train.csv", history.log)  # whatever has become of it since
    tables = {"meta.json": json.dumps(meta, indent=2) + "\n", **_missing(cell, missing), "eval.csv": as_csv(labelled)}
    finish(folder, tables)


def _all_lengths(cell: Cell, reason: str) -> list[Missing]:
    """All that the scheme, unextended, would be scored on."""
    plan = reads(cell.config.eval, cell.config.train.train_len, cell.objective.causal)
    max_len = build_scheme(cell.config, cell.objective.causal).max_len
    reached = [scorings for read, scorings in plan.items() if max_len is None or read.eval_len <= max_len]
    scored = {(scoring.protocol, scoring.eval_len) for scorings in reached for scoring in scorings}
    return [Missing("none", protocol, eval_len, reason) for protocol, eval_len in sorted(scored)]


def _missing(cell: Cell, missing: list[Missing]) -> dict[str, str]:
    """missing.csv and its content, if there is any."""
    if not missing:
        return {}
    config = cell.config
    labelled = pd.DataFrame(missing).assign(**labels(config), run=config.run, scheme=config.scheme, seed=config.seed)
    return {"missing.csv": as_csv(labelled[MISSING])}


def write_references(cell: Cell) -> None:
    """The rows of the references as a run of their own beside the others, once."""
    folder = cell.config.references
    identity = {key: value for key, value in cell.identity.items() if key not in MAY_DIFFER}
    if (folder / "eval.csv").exists():
        refuse_other_config(folder, identity)
        refuse_changed(folder)
        return
    rows = reference_rows(cell.config, cell.source, cell.objective)
    claim(folder, identity)
    if len(rows):  # under pseudo alone there are none
        finish(folder, {"eval.csv": as_csv(rows)})


def build_encoder(cell: Cell) -> Encoder:
    """The model at step 0. Weights other than the scheme's depend on the seed and on sizes alone."""
    config, source, objective, *_ = cell
    torch.manual_seed(SCHEME_SEED + config.seed)
    scheme = build_scheme(config, objective.causal)
    torch.manual_seed(config.seed)
    return Encoder(config.model, scheme, objective.n_inputs(source.vocab_size), source.vocab_size)


def describe(
    cell: Cell, encoder: Encoder, device: torch.device, seconds: dict[str, float], processes: int
) -> dict[str, Any]:
    """What is recorded of a finished run beside its config."""
    config = cell.config
    cuda = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(device) if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "version": __version__,
        **git_state(),
        "python": platform.python_version(),
        **arithmetic(device),
        "precision": cell.identity["train"]["precision"],
        "processes": processes,
        "n_params": sum(parameter.numel() for parameter in encoder.parameters()),
        "tokens_seen": config.train.max_steps * config.train.batch_size * config.train.train_len,
        "data": cell.identity["data"],
        "used": cell.used,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_memory_bytes": memory,
    }


def git_state() -> dict[str, Any]:
    """The commit that ran and whether files differed from it; nothing where this is no checkout of the program.

    A checkout is a work tree of which this is the top and which tracks this file: the repository of somebody who has
    unpacked the program within it, or that GIT_DIR names, as in the hooks of git, has commits that say nothing about it.
    """
    file = Path(__file__).resolve()
    root = file.parents[2]
    own = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_REPOSITORY}

    def git(*arguments: str) -> str:
        line = ["git", "-C", str(root), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True, env=own).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(file.relative_to(root)))
        if not root.samefile(git("rev-parse", "--show-toplevel")):
            return {"git_commit": None, "git_dirty": None}
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "extrap", "conf"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}
