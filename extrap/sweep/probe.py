"""The page of `make probes`: what trained models do beside their perplexity.

python -m extrap.sweep.probe experiment=main eval.probes=[reach,order] [any Hydra override ...]

Looks into the finished runs of an experiment, those too of an earlier version of the program, and trains nothing.
"""

import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from extrap.config.compose import compose_sweep, with_schemes
from extrap.errors import UserError
from extrap.files import write_atomic
from extrap.sweep.door import end_with_parent, through
from extrap.train.cores import cores

if TYPE_CHECKING:
    from extrap.runs.prepare import Run


def probe(overrides: list[str]) -> None:
    """The command. Raises UserError, before any run is looked into, for what is no probe and for runs that are not there."""
    configs = compose_sweep(with_schemes(overrides)).configs
    # torch takes a second to import: not before the config is right
    from extrap.probes.probe import PROBES, refuse_idle_probes
    from extrap.runs.prepare import prepare_all

    runs = prepare_all(configs)
    if not runs[0].config.eval.probes:
        raise UserError(f"eval.probes: expected some of {', '.join(PROBES)}, found none")
    refuse_idle_probes(runs)
    look_into_all(runs, shlex.join(["python", "-m", "extrap.sweep.probe", *overrides]))


def look_into_all(runs: "list[Run]", command: str) -> None:
    """Every run that has not been looked into yet, as many at a time as there are cores; then the page of all."""
    from extrap import __version__
    from extrap.probes.probe import CODES, lacking, look_into, refuse_other_weights
    from extrap.report.probes import write_probes
    from extrap.report.report import alone, page_again
    from extrap.results.folders import evaluated
    from extrap.results.probes import MADE_BY, NAME, collect_probes, refuse_versions, save_probes
    from extrap.results.provenance import kept_parts
    from extrap.results.rows import RUNS, load_runs
    from extrap.runs.run import COMMIT

    config = runs[0].config
    runs = [run for run in runs if not run.folder.has_diverged]
    for run in runs:
        refuse_other_weights(run)
    if lost := {run.config.run for run in runs} - {*load_runs(config.results / RUNS)["run"]}:
        raise UserError(f"{config.results} has no rows of {min(lost)}; `make report` brings those of all runs together")
    asked = {run.folder.path for run in runs}
    others = [folder for folder in evaluated(config.folder.parent) if folder.path not in asked]
    refuse_versions(others, {name: CODES[name] for name in config.eval.probes})
    waiting = [run.config for run in runs if lacking(run.config)]
    at_once = max(1, cores() // config.runtime.threads)
    context = get_context("forkserver")
    context.set_forkserver_preload(["extrap.probes.probe"])  # once, and not by every process
    n_processes = min(at_once, max(1, len(waiting)))
    with ProcessPoolExecutor(n_processes, context, end_with_parent) as pool:  # who is killed leaves nobody at work
        bar = partial(tqdm, total=len(waiting), desc="looking into runs", unit="run", disable=None, leave=False)
        try:
            for _ in bar(pool.map(look_into, waiting)):
                pass
        except BrokenProcessPool as error:
            raise UserError(
                "a process that looked into a run was killed, as where memory runs out (runtime.threads=N: fewer at a time);"
                " what others found stays; run the same command again"
            ) from error
    with alone(config.results):
        found, weights_of, kept = collect_probes(config.results, config.folder.parent)
        told: dict[str, Any] = {"command": command, "version": __version__, **COMMIT, "weights_of": weights_of}
        if kept:
            path = config.results / MADE_BY
            earlier: dict[str, Any] = yaml.safe_load(path.read_text()) if path.exists() else {"command": "unknown"}
            before: list[dict[str, Any]] = earlier.pop("kept", [])
            told["kept"] = kept_parts(kept, earlier, before)
        save_probes(config.results / NAME, found)
        write_atomic(config.results / MADE_BY, yaml.safe_dump(told, sort_keys=False))
        print(*write_probes(config.results), *page_again(config.results), sep="\n")


if __name__ == "__main__":
    sys.exit(through(partial(probe, sys.argv[1:])))
