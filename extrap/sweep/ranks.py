"""One run over several processes: what rank 0 of torchrun tells the others, and what these do.

Rank 0 is `python -m extrap` but for one thing: instead of handing runs to workers it takes part in each of them
itself, and so do all others, in step. They read no config, write no result and print nothing.
"""

import os
import pickle
import sys
import traceback
from datetime import timedelta
from typing import NoReturn, cast

import torch.distributed as dist

from extrap.config.schema import Config
from extrap.results.folders import RunFolder
from extrap.runs.prepare import Run, prepare
from extrap.runs.run import execute, train_and_evaluate
from extrap.sweep.worker import give_up
from extrap.train import distributed

PATIENCE = timedelta(days=30)  # of who waits for work or for its end
GRACE = timedelta(seconds=10)  # of who has failed, for the others to fail as well


class Ranks:
    """The ranks of this run, with a store of keys and values between them that outlives any of their failures."""

    def __init__(self) -> None:
        self.store = distributed.start()
        self.told = self.met = 0
        self.in_step = True

    def tell(self, message: Config | int) -> None:
        """From rank 0 to all others: the next run, or the exit code."""
        self.store.set(f"told/{self.told}", pickle.dumps(message))  # type: ignore[arg-type]
        self.told += 1

    def hear(self) -> Config | int:
        self.store.wait([f"told/{self.told}"], PATIENCE)
        message = pickle.loads(self.store.get(f"told/{self.told}"))  # noqa: S301  from rank 0
        self.told += 1
        return cast(Config | int, message)

    def meet(self, patience: timedelta) -> bool:
        """At the end of a run: whether all have come. If not, nobody else will ever think that they have."""
        keys = [f"met/{self.met}/{rank}" for rank in range(distributed.n_processes())]
        self.met += 1
        self.store.set(keys[distributed.rank()], "")
        try:
            self.store.wait(keys, patience)
        except dist.DistStoreError:
            self.store.delete_key(keys[distributed.rank()])
            return False
        return True

    def execute_all(self, runs: list[Run]) -> None:
        """Of rank 0: all that are not finished, in order. Raises RuntimeError if another process can no longer take part."""
        for run in runs:
            if run.folder.is_finished:
                continue
            self.in_step = False
            self.tell(run.config)
            patience = PATIENCE
            try:
                execute(run)
            except Exception:  # noqa: BLE001  the others go on
                if not run.folder.error.exists():  # else another process has failed, and this one for want of it
                    give_up(run.config, traceback.format_exc())
                patience = GRACE
            self.in_step = self.meet(patience)
            if not self.in_step:
                raise RuntimeError(f"in {run.config.run} one process failed without the others")

    def end(self, code: int) -> None:
        """Of rank 0: lets the others go, or leaves to torchrun those that wait for this process in the middle of a run."""
        self.tell(code)
        if self.in_step:
            dist.destroy_process_group()
        else:
            _exit_at_once(code)

    def follow(self) -> int:
        """Of all others: works at what rank 0 tells, and returns its exit code."""
        try:
            code = self._work()
        except KeyboardInterrupt:  # rank 0 tells of it
            _exit_at_once(130)
        dist.destroy_process_group()
        return code

    def _work(self) -> int:
        while not isinstance(config := self.hear(), int):
            failure = ""
            try:
                train_and_evaluate(prepare(config, stored=True))
            except Exception:  # noqa: BLE001  rank 0 writes it down, if it fails too
                failure = traceback.format_exc()
            if not self.meet(GRACE if failure else PATIENCE):
                self._leave(config, failure)
        return config

    def _leave(self, config: Config, failure: str) -> None:
        """Ends this process, and torchrun then all others, which wait for it in the middle of the run."""
        if not (log := RunFolder(config.folder).error).exists():
            give_up(config, failure)
        print(f"\n{config.run}: {failure.splitlines()[-1]} (process {distributed.rank()} alone; {log})", file=sys.stderr)
        _exit_at_once(1)


def _exit_at_once(code: int) -> NoReturn:
    """An orderly end would wait for the others; when this process is gone, torchrun ends them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
