"""One finished run -> what probes find in it: probes.csv in its folder."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch

from extrap.config.schema import Config
from extrap.errors import UserError, nearest
from extrap.files import locked
from extrap.objectives import Batch
from extrap.probes import detection, heads, order, reach, recall
from extrap.probes.base import Probed, nll, pieces, probed
from extrap.results.folders import RunFolder
from extrap.results.probes import CODE, load_found, save_probes
from extrap.results.rows import load_rows
from extrap.runs.digest import probe_digest
from extrap.runs.prepare import Run, prepare
from extrap.runs.trained import load_encoder
from extrap.train.device import full_precision, keep_freed_memory


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
CODES = {name: probe_digest(name) for name in PROBES}  # once, and not for every run
SECONDS = 600.0  # for another, who trains the run again
MOST_APART = 0.01  # of a loss at L: far more than rounding makes, less than another model


def refuse_idle_probes(runs: list[Run]) -> None:
    """Raises UserError where runs ask for what is no probe, for one that says nothing of one of them, or where one is
    finished here and cannot be looked into."""
    for run in {repr((run.config.data, run.config.objective, run.config.train.train_len)): run for run in runs}.values():
        for name in run.config.eval.probes:
            if name not in PROBES:
                raise UserError(f"eval.probes: no probe {name}; {nearest(name, [*PROBES])}")
            PROBES[name].refuse(run)
    for run in runs:
        if run.folder.is_evaluated:
            refuse_other_weights(run)


def refuse_other_weights(run: Run) -> None:
    """Raises UserError unless the run is evaluated here, with weights of this config."""
    folder = run.folder
    if not (folder.is_evaluated and folder.weights.exists()):
        raise UserError(f"{folder.path} holds no finished run with its weights; `make sweep` makes it")
    folder.refuse_other_config(run.identity, program=False)


def refuse_other_rows(of: Probed) -> None:
    """Raises UserError unless these weights have, by the program of today, the loss at L that their rows tell.

    Of the first segment, as far as rows hold it; a program that computes another model of the same weights is seen there.
    """
    run, n = of.run, of.train_len
    rows = load_rows(run.folder.rows)
    rows = rows[(rows["run"] == run.config.run) & (rows["protocol"] == "nonoverlap") & (rows["extension"] == "none")]
    first = (rows["document"] == of.held_out.documents[0]) & (rows["segment"] == of.held_out.segments[0])
    if (rows := rows[first & (rows["eval_len"] == n)]).empty:
        return
    known = rows["nll_sum"].iloc[0]
    now = sum(nll(of.encoder, Batch(*(part[:1, start:stop] for part in of.batch))).sum() for start, stop in pieces(of, n))
    if abs(now - known) > MOST_APART * known:
        raise UserError(
            f"{run.folder.path}: its weights now have a loss of {now:.4g} nats where its rows record {known:.4g}: the "
            "program, or its scheme, computes something else today; restore the earlier version, or train the run again"
        )


def lacking(config: Config) -> list[str]:
    """The probes of a config that have not looked into its run, or not as they are today."""
    told = load_found(RunFolder(config.folder).probes)
    known = {*zip(_names(told), told[CODE], strict=True)}
    return [name for name in dict.fromkeys(config.eval.probes) if (name, CODES[name]) not in known]


def _names(found: pd.DataFrame) -> pd.Series:
    return found["probe"].str.split("(").str[0]


@torch.no_grad()
def look_into(config: Config) -> None:
    """Writes what the probes of a config find in its run, beside what others have found, in place of what they found as they
    were before. Raises UserError for who cannot."""
    run = prepare(config, stored=True)
    keep_freed_memory()  # a pass takes a sixth longer without
    full_precision()
    torch.set_num_threads(config.runtime.threads)
    of = probed(run, load_encoder(run))
    refuse_other_rows(of)
    found = {name: PROBES[name].look(of).assign(run=config.run, **{CODE: CODES[name]}) for name in lacking(config)}
    with locked(run.folder.lock, SECONDS):  # another command may have looked into it meanwhile
        new, known = {*lacking(config)}, load_found(run.folder.probes)
        tables = [known[~_names(known).isin(new)], *(table for name, table in found.items() if name in new)]
        save_probes(run.folder.probes, pd.concat([table for table in tables if len(table)]))
