"""One machine: a bounded number of runs side by side, each in a fresh process, so that a killed one costs itself alone."""

import multiprocessing
import os
import signal
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from extrap.config.schema import Config
from extrap.runs.digest import MODULES, SOURCES, scheme_sources
from extrap.sweep.door import end_with_parent
from extrap.sweep.engines.places import keep_sockets_short, places
from extrap.sweep.worker import give_up, run_one


class Local:
    """As many runs at once as there are cores, or as fit on the GPUs; a positive n_jobs says otherwise.

    Processes come from a server that has imported everything, so that one starts in milliseconds, and end with this one.
    """

    def __init__(self, n_jobs: Any) -> None:
        if type(n_jobs) is not int or n_jobs == 0 or n_jobs < -1:
            raise ValueError(f"n_jobs, JOBS of make: expected a number of runs, or -1 for all that fit; found {n_jobs!r}")
        self.n_jobs = n_jobs

    def run(self, configs: list[Config]) -> None:
        keep_sockets_short()
        context = multiprocessing.get_context("forkserver")
        # schemes, too: a run is of the program as it was when the sweep began; the optimizer would import the last of them
        schemes = {module for config in configs for module in scheme_sources(config.position)} & SOURCES.keys()
        modules = ["extrap.runs.digest", *sorted(MODULES), *sorted(schemes)]
        context.set_forkserver_preload([*modules, "hydra", "extrap.sweep.engines.local", "torch._dynamo"])
        waiting, free = list(configs), places(configs, self.n_jobs)
        running: dict[ForkServerProcess, tuple[Config, str | None]] = {}
        try:
            while waiting or running:
                while waiting and free:
                    config, gpu = waiting.pop(0), free.pop(0)
                    process = context.Process(target=_child, args=(config, gpu), daemon=True)
                    process.start()
                    running[process] = config, gpu
                wait([process.sentinel for process in running])
                for process in [process for process in running if not process.is_alive()]:
                    config, gpu = running.pop(process)
                    _tell_if_killed(process, config)
                    free.append(gpu)
        finally:
            for process in running:
                process.kill()
                process.join()


def _child(config: Config, gpu: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides what Ctrl-C ends
    end_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    run_one(config)


def _tell_if_killed(process: ForkServerProcess, config: Config) -> None:
    if process.exitcode is not None and process.exitcode < 0:
        name = signal.Signals(-process.exitcode).name
        hint = "; a machine that runs out of memory does that: run fewer side by side" if name == "SIGKILL" else ""
        give_up(config, f"its process was ended by {name}{hint}")
