"""One run in a process of its own, whatever engine started it. What went wrong stands in the run's error.log."""

import sys
import traceback

from extrap.config.schema import Config
from extrap.errors import UserError
from extrap.files import write_atomic
from extrap.results.folders import RunFolder
from extrap.runs.prepare import prepare
from extrap.runs.run import execute


def run_one(config: Config) -> None:
    """Trains and evaluates one run; an error ends this run alone, and the sweep looks at its files."""
    try:
        execute(prepare(config, stored=True))
    except Exception:  # noqa: BLE001  the others go on; a job that is preempted exits
        give_up(config, traceback.format_exc())


def give_up(config: Config, reason: str) -> None:
    """Leaves the reason where the sweep looks for it, or tells it where the disk has no room for it, or where a scheme of
    another file, which the folder is named after, is no longer what it was."""
    try:
        config.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(RunFolder(config.folder).error, f"{reason.rstrip()}\n")
    except OSError:
        print(f"{config.run}: {reason.rstrip().splitlines()[-1]}", file=sys.stderr)
    except UserError as error:
        print(f"{config.name}: {error}", file=sys.stderr)
