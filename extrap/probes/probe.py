"""One finished run -> what probes find in it: probes.csv in its folder."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch

from extrap.config.schema import Config
from extrap.errors import UserError, nearest
from extrap.probes import detection, heads, order, reach, recall
from extrap.probes.base import Probed, probed
from extrap.results.folders import RunFolder, differences
from extrap.results.probes import load_probes, save_probes
from extrap.runs.prepare import Run, prepare
from extrap.runs.trained import load_encoder


class Probe(NamedTuple):
    look: Callable[[Probed], pd.DataFrame]
    refuse: Callable[[Run], None] = lambda run: None  # raises UserError for runs that it says nothing of


PROBES = {
    "reach": Probe(reach.reach, reach.refuse_others),
    "order": Probe(order.order),
    "recall": Probe(recall.recall, recall.refuse_others),
    "detection": Probe(detection.detection, detection.refuse_others),
    "heads": Probe(heads.heads),
}
OF_PROGRAM = ("code:", "scheme_code:")  # weights of an earlier version are looked into as well


def refuse_idle_probes(run: Run) -> None:
    """Raises UserError where a run asks for what is no probe, or for one that says nothing of such runs."""
    for name in run.config.eval.probes:
        if name not in PROBES:
            raise UserError(f"eval.probes: no probe {name}; {nearest(name, [*PROBES])}")
        PROBES[name].refuse(run)


def refuse_other_weights(run: Run) -> None:
    """Raises UserError unless the run is evaluated here, with weights of this config."""
    folder = run.folder
    if not (folder.is_evaluated and folder.weights.exists()):
        raise UserError(f"{folder.path} holds no finished run with its weights; `make sweep` makes it")
    changes = [change for change in differences(folder.load_config(), run.identity) if not change.startswith(OF_PROGRAM)]
    if changes:
        raise UserError(f"{folder.path} holds a run of another config: {'; '.join(changes)} (there -> asked for)")


def lacking(config: Config) -> list[str]:
    """The probes of a config that have not looked into its run."""
    told = load_probes(RunFolder(config.folder).probes)
    return [name for name in config.eval.probes if name not in {probe.partition("(")[0] for probe in told["probe"]}]


@torch.no_grad()
def look_into(config: Config) -> None:
    """Writes what the probes of a config find in its run, beside what others have found. Raises UserError for who cannot."""
    run = prepare(config, stored=True)
    torch.set_num_threads(config.runtime.threads)
    of = probed(run, load_encoder(run))
    tables = [load_probes(run.folder.probes), *(PROBES[name].look(of).assign(run=config.run) for name in lacking(config))]
    save_probes(run.folder.probes, pd.concat([table for table in tables if len(table)]))
