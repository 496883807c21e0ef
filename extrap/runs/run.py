"""One run from its config to its rows: build, train, evaluate, and what is written when."""

import contextlib
import json
import os
import platform
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import Timeout

from extrap import __version__
from extrap.config.choices import Precision
from extrap.errors import UserError
from extrap.files import locked
from extrap.model.electra import Pair
from extrap.model.encoder import Encoder
from extrap.model.seed import seed_generators
from extrap.objectives import Electra, parts_of
from extrap.results.folders import MAY_DIFFER, RunFolder, refuse_mixed
from extrap.results.rows import MISSING, NOT_A_NUMBER, SELECTION, as_csv, row_tables
from extrap.runs.prepare import Run, build_scheme
from extrap.score.evaluate import Missing, evaluate, on_held_back
from extrap.score.reads import reads
from extrap.score.references import label_rows, labels, reference_rows
from extrap.train import distributed
from extrap.train.checkpoint import History, load_checkpoint, save_checkpoint
from extrap.train.device import arithmetic, forget_peak, full_precision, keep_freed_memory, peak_memory, pick_device
from extrap.train.flops import flops_of_step
from extrap.train.log import write_log
from extrap.train.loop import Diverged, train, training_batch

LOCK_SECONDS = 10.0  # workers of a killed sweep are gone by then


def execute(run: Run) -> None:
    """Trains and evaluates whatever of this run is not done yet.

    A run that diverges is finished, without rows. Raises UserError if another process is at work on the run.
    """
    folder = run.folder
    try:
        with locked(folder.lock, LOCK_SECONDS):
            folder.claim(run.identity)
            if folder.is_finished:
                return
            refuse_mixed(folder.path.parent, {run.config.run: run.identity})  # the program may have been edited meanwhile
            with contextlib.suppress(OSError):
                folder.error.unlink(missing_ok=True)
            try:
                train_and_evaluate(run)
            except Diverged as error:
                lengths = _all_lengths(run, str(error).partition(":")[0])
                missing = _missing(run, dict.fromkeys(parts_of(run.objective), lengths))
                folder.finish({**missing, folder.divergence: f"{error}\n"})
    except Timeout as error:
        raise UserError(f"{folder.path} is being run by another process; wait until it has ended") from error


def train_and_evaluate(run: Run) -> None:
    """Of several processes all do the work, and rank 0 alone writes."""
    config, source, objective, *_ = run
    folder, device = run.folder, pick_device(config.runtime.device)
    keep_freed_memory()
    full_precision()
    forget_peak(device)
    torch.set_num_threads(config.runtime.threads)
    encoder = build_encoder(run).to(device)
    of, *others = distributed.gathered(lambda: json.dumps(run.identity, sort_keys=True))
    if set(others) - {of}:
        raise UserError("the processes of this run have read different programs or data; the same command begins anew")
    if trained := load_checkpoint(folder.weights, device, of):
        state, history = trained
        encoder.load_state_dict(state["model"])
    else:
        history = train(
            encoder,
            source,
            objective,
            config.train,
            seed=config.seed,
            precision=Precision(run.identity["train"]["precision"]),
            log=folder.log,
            checkpoint=folder.checkpoint,
            checkpoint_every=config.runtime.checkpoint_every,
            of=of,
        )
        if distributed.rank() == 0:
            save_checkpoint(folder.weights, {"model": encoder.state_dict()}, history, device, of)
            folder.checkpoint.unlink(missing_ok=True)
    began = time.monotonic()
    found = {
        part: evaluate(network, source, own, config.eval)
        for network, (part, own) in zip(encoder.networks(), parts_of(objective).items(), strict=True)
    }
    rows, missing = found[""]
    chosen_on = {
        part: on_held_back(network, run.held_back, own, source)
        for network, (part, own) in zip(encoder.networks(), parts_of(objective).items(), strict=True)
        if run.held_back
    }
    if not (rows["protocol"] != "position").any():  # which is a figure alone
        if any(one.reason.startswith(NOT_A_NUMBER) for one in missing):
            raise Diverged(f"{NOT_A_NUMBER} at the training length: trained to its end, it gives none there")
        told = "; ".join(sorted({one.reason for one in missing})) or "the scheme reaches none of the lengths that are scored"
        raise UserError(f"{folder.path} has no rows ({told}); other eval.multiples or a larger machine may mend that")
    if distributed.rank() > 0:
        return
    costs = costs_of(run, encoder, device, history, time.monotonic() - began)
    meta = {**describe(run, device, history), "costs": costs}
    of_run: dict[str, Any] = {"scheme": config.scheme, "seed": config.seed}
    labelled = pd.concat([
        *(label_rows(one.rows, config, part, kind="scheme", **of_run) for part, one in found.items()),
        *(label_rows(held_back, config, part, kind=SELECTION, **of_run) for part, held_back in chosen_on.items()),
    ])  # fmt: skip
    write_log(folder.log, history.log)  # whatever has become of it since
    lacking = {part: one.missing for part, one in found.items()}
    tables = {folder.meta: json.dumps(meta, indent=2) + "\n", **_missing(run, lacking)}
    folder.finish(tables | row_tables(folder.rows, labelled))


def _all_lengths(run: Run, reason: str) -> list[Missing]:
    """All that the scheme, unextended, would be scored on."""
    plan = reads(run.config.eval, run.config.train.train_len, run.objective.causal)
    max_len = build_scheme(run.config, run.objective.causal).max_len
    reached = [scorings for read, scorings in plan.items() if max_len is None or read.eval_len <= max_len]
    scored = {(scoring.protocol, scoring.eval_len) for scorings in reached for scoring in scorings}
    return [Missing("none", protocol, eval_len, reason) for protocol, eval_len in sorted(scored)]


def _missing(run: Run, missing: dict[str, list[Missing]]) -> dict[Path, str]:
    """The table of what is missing, if anything is."""
    config = run.config
    tables = [
        pd.DataFrame(lines).assign(**labels(config, part), scheme=config.scheme, seed=config.seed)[MISSING]
        for part, lines in missing.items()
        if lines
    ]
    return {run.folder.missing: as_csv(pd.concat(tables))} if tables else {}


def write_references(run: Run) -> None:
    """The rows of the references as a run of their own beside the others, once."""
    folder = RunFolder(run.config.references)
    identity = {key: value for key, value in run.identity.items() if key not in MAY_DIFFER}
    if folder.is_finished:
        folder.refuse_other_config(identity)
        return
    rows = reference_rows(run.config, run.source, run.objective)
    folder.claim(identity)
    if len(rows):  # under pseudo alone there are none
        folder.finish(row_tables(folder.rows, rows))


def build_encoder(run: Run) -> Encoder:
    """The model at step 0. Weights other than the scheme's depend on the seed and on sizes alone."""
    config, source, objective, *_ = run
    seed_generators(config.seed)
    scheme = build_scheme(config, objective.causal)
    if not isinstance(objective, Electra):
        seed_generators(config.seed)  # again, so that the other weights do not depend on what a scheme draws
        return Encoder(config.model, scheme, *run.n_tokens)
    small = replace(config, model=objective.generator(config.model))
    small_scheme = build_scheme(small, objective.causal)
    seed_generators(config.seed)
    sizes = config.model, scheme, small.model, small_scheme, source.vocab_size
    return Pair(*sizes, objective.weights, objective.share_tokens)


def costs_of(run: Run, encoder: Encoder, device: torch.device, history: History, eval_seconds: float) -> dict[str, float]:
    """The columns COSTS."""
    train, peak = run.config.train, max(history.peak_memory, peak_memory(device))  # it may have been trained before
    batch = training_batch(run.source, run.objective, train, run.config.seed, 0).to(device)
    of_step = flops_of_step(encoder, train, Precision(run.identity["train"]["precision"]), batch)
    return {
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "tokens": train.max_steps * train.batch_size * train.train_len,
        "train_flops": train.max_steps * of_step,
        "train_seconds": round(history.seconds, 2),
        "eval_seconds": round(eval_seconds, 2),
        "peak_memory": peak,
    }


def describe(run: Run, device: torch.device, history: History) -> dict[str, Any]:
    """What is recorded of a finished run beside its config and its costs."""
    return {
        "version": __version__,
        **COMMIT,
        "python": platform.python_version(),
        **arithmetic(device),
        "precision": run.identity["train"]["precision"],
        "processes": history.processes,
        **({"began_on": [*history.began_on]} if history.began_on else {}),
        "data": run.identity["data"],
        "used": run.used,
    }


def git_state() -> dict[str, Any]:
    """The commit that ran and whether files differed from it; nothing where this is no checkout of the program.

    A checkout is a work tree of which this is the top and which tracks this file: the repository of somebody who has
    unpacked the program within it, or that GIT_DIR names, as in the hooks of git, has commits that say nothing about it.
    """
    file = Path(__file__).resolve()
    root = file.parents[2]
    # but for its configuration, without which git may not trust this folder
    own = {name: value for name, value in os.environ.items() if not re.match("GIT_(?!CONFIG_)", name)}

    def git(*arguments: str) -> str:
        line = ["git", "-C", str(root), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True, env=own).stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        git("ls-files", "--error-unmatch", str(file.relative_to(root)))
        if not git("rev-parse", "--show-prefix"):  # from the top of the work tree to this folder
            dirty = bool(git("status", "--porcelain", "extrap", "conf"))
            return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": dirty}
    return {"git_commit": None, "git_dirty": None}


COMMIT = git_state()  # as it was when this process began, as what it runs was: see runs/digest.py
