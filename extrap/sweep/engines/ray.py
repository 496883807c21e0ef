"""A Ray cluster, or this machine by way of Ray: every run in a fresh process, wherever there is room for it."""

import contextlib
import io
import logging
import os
import socket
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from extrap.config.choices import Device
from extrap.config.schema import Config
from extrap.errors import UserError, one_line
from extrap.sweep.engines.places import SHORT_TMPDIR
from extrap.sweep.worker import give_up, run_one
from extrap.train.cores import cores
from extrap.train.device import pick_device, pick_precision

try:
    import ray
except ModuleNotFoundError as error:
    raise UserError(
        "hydra/launcher=ray: Ray is not installed; make sweep LAUNCHER=ray does that, "
        "and without make: pip install -c constraints.txt -e '.[ray]'"
    ) from error

TRIES = 3  # of a run whose process or node was lost
LONGEST_TMPDIR = 30  # bytes: with what Ray adds to it, a socket's address has 103 at most on macOS, 107 on Linux
OBJECT_STORE = 80 * 2**20  # bytes, about the least that Ray takes: runs exchange files, not objects


class Ray:
    """On a cluster, whose nodes have this checkout and the results folder at the same paths, or on this machine.

    A run whose process or node is lost is tried again, on any node, from its last checkpoint. Raises UserError where no node
    has what a run needs.
    """

    def __init__(self, address: str, cores: float, gpus: float) -> None:
        if cores <= 0:
            raise ValueError(f"expected cores above 0, found {cores:g}")
        self.address, self.cores, self.gpus = address, cores, gpus

    def run(self, configs: list[Config]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # Ray prints pages of its own about each lost process
            self._connect()
            try:
                self._run([_anywhere(config) for config in configs])
            finally:
                ray.shutdown()

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR:
            os.environ.setdefault("RAY_TMPDIR", SHORT_TMPDIR)
        init = partial(ray.init, self.address, log_to_driver=False, logging_level=logging.ERROR)
        if self.address == "local":
            init(num_cpus=cores(), object_store_memory=OBJECT_STORE, include_dashboard=False)
            return
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray would try for minutes
            init()
        except (ValueError, OSError, ray.exceptions.RayError) as error:
            raise UserError(
                f"hydra.launcher.address: expected HOST:PORT of a Ray cluster started with the same RAY_AUTH_MODE and "
                f"token as are set here, found {self.address} ({one_line(str(error))})"
            ) from error

    def _run(self, configs: list[Config]) -> None:
        remote = ray.remote(max_calls=1, max_retries=0, **self._needs(configs[0]))(run_one)
        waiting = {remote.remote(config): (config, 1) for config in configs}
        while waiting:
            [done], _ = ray.wait(list(waiting))
            config, tries = waiting.pop(done)
            try:
                ray.get(done)
            except ray.exceptions.RayError as error:
                if tries < TRIES:
                    waiting[remote.remote(config)] = config, tries + 1
                else:
                    give_up(config, f"its process was lost {tries} times, at last: {one_line(str(error))}")

    def _needs(self, config: Config) -> dict[str, float]:
        gpus = self.gpus
        if gpus < 0:
            gpus = int(config.runtime.device is not Device.cpu and "GPU" in ray.cluster_resources())
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cores and node.get("GPU", 0) >= gpus for node in nodes):
            raise UserError(
                f"hydra.launcher: a run takes cores={self.cores:g} and gpus={gpus:g}, and no node of the cluster has that; "
                "give hydra.launcher.cores=... or hydra.launcher.gpus=..."
            )
        return {"num_cpus": self.cores, "num_gpus": gpus}


def _anywhere(config: Config) -> Config:
    """The same run from any working directory, and on machines that would pick another precision than this one."""
    precision = pick_precision(config.train.precision, pick_device(config.runtime.device))
    results = str(Path(config.runtime.results_dir).resolve())
    return replace(
        config,
        train=replace(config.train, precision=precision),
        runtime=replace(config.runtime, results_dir=results),
    )
