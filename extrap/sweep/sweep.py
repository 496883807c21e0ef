"""Runs an experiment: every run of its sweep that is not finished, and then its report.

    python -m extrap experiment=main [any Hydra override ...]
    python -m extrap --help                        # what can be chosen, and every option
    torchrun --nproc-per-node 2 -m extrap ...      # one run at a time, over two GPUs

Errors in the config or the data end it before any training, with one line and exit code 2. Runs that fail do not stop
the others; they are listed at the end, with exit code 1. A run that is finished is never run again.
"""

import contextlib
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from filelock import Timeout
from omegaconf import DictConfig

from extrap.config.compose import CONF, compose_sweep, described, parse, with_schemes
from extrap.config.overrides import as_typed, texts
from extrap.config.specs import build
from extrap.errors import UserError, printable
from extrap.files import locked
from extrap.sweep.door import through

if TYPE_CHECKING:
    from extrap.runs.prepare import Run
    from extrap.sweep.ranks import Ranks

SECONDS = 10.0  # for torchrun, which waits for this process, to answer
SEEN_WITHIN = 60.0  # seconds for which NFS may say that a file is not there that another machine has written


@hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name="config")
def run_by_launcher(composed: DictConfig) -> None:
    """One run, as launchers of other packages call it."""
    from extrap.sweep.worker import run_one

    run_one(parse(composed))


def _run_by_hydra(overrides: list[str], run: "Run") -> None:
    config = run.config  # other machines may pick another precision than this one did, and their ~ is another
    told = [f"runtime.results_dir={config.runtime.results_dir}", f"vary=[{','.join(config.vary)}]"]
    if "train.precision" not in config.vary:
        told.append(f"train.precision={run.identity['train']['precision']}")
    known = texts(CONF)
    sys.argv[1:] = [*overrides, *(as_typed(override, known) for override in told)]
    run_by_launcher()


def sweep(overrides: list[str], ranks: "Ranks | None" = None) -> int:
    """Everything in order: check, run, report. Returns the exit code.

    With `ranks` each run is one of several processes, of which this is the first; otherwise each has a worker process.
    """
    configs, launcher, told = compose_sweep(with_schemes(overrides))
    # torch takes a second to import: not before the config is right
    from extrap.sweep.checks import prepare_grid, refuse_idle
    from extrap.sweep.engines.local import Local

    # an engine of ours takes the configs as they are; launchers of other packages are Hydra's business
    own = launcher["_target_"].startswith("extrap.")
    engine = build(launcher, "hydra.launcher", "extrap.sweep.engines") if own else None
    runs = prepare_grid(configs)
    given = {line.partition("=")[0] for line in told}
    if "eval.extensions" in given or "position" not in given:  # whoever picks schemes need not leave out what is for others
        refuse_idle(runs)
    if runs[0].config.eval.probes:
        from extrap.probes.probe import refuse_idle_probes

        refuse_idle_probes(runs)
    for remark in dict.fromkeys(remark for run in runs for remark in run.used.get("remarks", [])):
        print(printable(remark), file=sys.stderr)
    if engine:
        work = partial(engine.run, [run.config for run in runs if not run.folder.is_finished])
    else:
        work = partial(_run_by_hydra, told, runs[0])
    if ranks:
        work = partial(ranks.execute_all, runs)
    elif not isinstance(engine, Local):
        work = partial(_elsewhere, work, runs)
    try:
        with locked(runs[0].folder.lock.with_name("sweep.lock"), seconds=0):
            return _run_and_report(runs, work, shlex.join(["python", "-m", "extrap", *overrides]))
    except Timeout as error:
        raise UserError(
            f"another sweep is at work on {configs[0].folder.parent}; wait until it has ended (make status shows how far it "
            "is), or give this one another name=..."
        ) from error


def _elsewhere(work: Callable[[], None], runs: "list[Run]") -> None:
    """Work of other machines: returns once all that they have finished is seen here, or a minute later."""
    folders = [run.folder for run in runs]
    before = [_stamp(folder.error) for folder in folders]  # of an earlier try, which NFS may go on to show
    work()
    until = time.monotonic() + SEEN_WITHIN
    while unseen := [
        folder
        for folder, old in zip(folders, before, strict=True)
        if not folder.is_finished and _stamp(folder.error) in (None, old)
    ]:
        if time.monotonic() > until:
            break
        for folder in unseen:
            with contextlib.suppress(OSError):
                folder.path.chmod(folder.path.stat().st_mode)  # which asks the server, and not what is known of it here
        time.sleep(1)


def _stamp(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None


def _run_and_report(runs: "list[Run]", work: Callable[[], None], command: str) -> int:
    from extrap.report.report import gather
    from extrap.runs.prepare import store_documents
    from extrap.runs.run import write_references
    from extrap.sweep.progress import save_plan, shown

    for run in {run.config.documents: run for run in reversed(runs)}.values():
        store_documents(run)
    for run in {run.config.references: run for run in runs}.values():
        write_references(run)
    configs = [run.config for run in runs]
    save_plan(configs, command)
    if not all(run.folder.is_finished for run in runs):
        os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, for the lines below
        with shown(configs):
            try:
                work()
            except KeyboardInterrupt:
                print(f"\ninterrupted: {_count(runs)}; run the same command again to resume", file=sys.stderr)
                return 130
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001  whatever breaks an engine
                print(f"\nan error ended the sweep: {type(error).__name__}: {error}", file=sys.stderr)
    for run in runs:
        if run.folder.has_diverged:
            print(f"{run.config.run}: {run.folder.divergence.read_text().strip()}", file=sys.stderr)
    if failed := [run for run in runs if not run.folder.is_finished]:
        print(f"\n{_count(runs)}; no report was written. Not finished:", file=sys.stderr)
        for run in failed:
            print(f"  {run.config.run}: {_reason(run)}", file=sys.stderr)
        return 1
    gather(runs[0].config.results.parent, runs[0].config.name, command)
    if runs[0].config.eval.probes:
        from extrap.sweep.probe import look_into_all

        look_into_all(runs, command)
    return 0


def _count(runs: "list[Run]") -> str:
    return f"{sum(run.folder.is_finished for run in runs)} of {len(runs)} runs are finished"


def _reason(run: "Run") -> str:
    log = run.folder.error
    if not log.exists():
        return "was not run to its end; the same command resumes from its last checkpoint"
    return f"{log.read_text().strip().splitlines()[-1]} (in full: {log})"


def main(argv: list[str], ranks: "Ranks | None" = None) -> int:
    """The command; returns its exit code."""

    def command() -> int:
        if {"-h", "--help"} & {*argv}:
            print(f"{__doc__}\n{described(with_schemes([line for line in argv if '=' in line]))}")
            return 0
        refuse_left_over(os.environ)
        return sweep(argv, ranks)

    return through(command)


def refuse_left_over(environment: Mapping[str, str]) -> None:
    """Raises UserError where the environment tells of several processes and no torchrun is there to hold them together.

    WORLD_SIZE alone tells nothing: who means it gives RANK and MASTER_ADDR, too.
    """
    named = [name for name in environment if re.match("(WORLD_SIZE|(LOCAL_)?RANK|MASTER_(ADDR|PORT))$|TORCHELASTIC_", name)]
    if environment.get("WORLD_SIZE", "1") == "1" or not {"RANK", "MASTER_ADDR"} <= {*named}:
        return
    if "TORCHELASTIC_RUN_ID" in named:
        if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # process 0 itself is who answers
            return
        with contextlib.suppress(OSError, ValueError, LookupError):
            address = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
            socket.create_connection(address, timeout=SECONDS).close()
            return
    raise UserError(
        f"WORLD_SIZE={environment['WORLD_SIZE']} and RANK={environment['RANK']} are set, but no torchrun is at work: unset "
        f"{' '.join(named)}; several processes are started by torchrun -m extrap ..."
    )


def main_of_several(overrides: list[str]) -> int:
    """The same, where torchrun has started several processes."""
    from extrap.sweep.ranks import Ranks
    from extrap.train import distributed

    if code := through(partial(refuse_left_over, os.environ)):
        return code
    ranks = Ranks()
    if distributed.rank() > 0:
        return ranks.follow()
    code = main(overrides, ranks)
    ranks.end(code)
    return code
