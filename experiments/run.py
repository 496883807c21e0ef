"""Runs an experiment: every cell of its sweep that is not finished, side by side, and then its report.

    python -m experiments.run experiment=main [any Hydra override ...]

Errors in the config or the data end it before any training, with one line and exit code 2. Runs that fail do not stop
the others; they are listed at the end, with exit code 1. A run that is finished is never run again.
"""

import os
import shlex
import sys
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from extrap.compose import CONF, compose_grid, parse
from extrap.errors import UserError

if TYPE_CHECKING:
    from extrap.cells import Cell


@hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name="config")
def run_cell(composed: DictConfig) -> None:
    """One cell, in a worker process. What went wrong stands in the run's error.log, where the parent looks."""
    from extrap.cells import prepare
    from extrap.runs import execute

    try:
        execute(prepare(parse(composed), stored=True))
    except Exception:  # noqa: BLE001  the other cells go on
        return


def sweep(overrides: list[str]) -> int:
    """Everything in order: check, run, report. Returns the exit code."""
    configs = compose_grid(overrides)
    # torch takes a second to import: not before the config is right
    from experiments.progress import Progress
    from experiments.report import gather
    from extrap.cells import prepare_grid
    from extrap.runs import write_references

    cells = prepare_grid(configs)
    write_references(cells[0])
    if not all(cell.is_finished for cell in cells):
        os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, for the lines below
        with Progress(cells):
            try:
                run_cell()
            except KeyboardInterrupt:
                print(f"\ninterrupted: {_count(cells)}; the same command goes on from there", file=sys.stderr)
                return 130
            except Exception as error:  # noqa: BLE001  a killed worker, for one
                print(f"\nthe sweep broke off: {type(error).__name__}: {error}", file=sys.stderr)
    failed = [cell for cell in cells if not cell.is_finished]
    if failed:
        print(f"\n{_count(cells)}; no report was written. Not finished:", file=sys.stderr)
        for cell in failed:
            print(f"  {cell.config.run}: {_reason(cell)}", file=sys.stderr)
        return 1
    gather(configs[0].results.parent, configs[0].name, shlex.join(["python", "-m", "experiments.run", *overrides]))
    return 0


def _count(cells: "list[Cell]") -> str:
    return f"{sum(cell.is_finished for cell in cells)} of {len(cells)} runs are finished"


def _reason(cell: "Cell") -> str:
    log = cell.config.folder / "error.log"
    if not log.exists():
        return "was not run to its end; the same command goes on from its last checkpoint"
    return f"{log.read_text().strip().splitlines()[-1]} (the whole of it: {log})"


def main(arguments: list[str]) -> int:
    """The command. Returns its exit code."""
    try:
        return sweep(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
