"""One finished run -> what probes find in it: probes.csv in its folder."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from extrap.config.schema import Config
from extrap.errors import UserError, nearest
from extrap.files import locked
from extrap.objectives import Batch
from extrap.probes import detection, heads, order, reach, recall
from extrap.probes.base import Probed, nll, probed
from extrap.results.folders import RunFolder
from extrap.results.probes import CODE, load_found, names, save_probes
from extrap.results.rows import load_rows, stacked
from extrap.runs.digest import probe_digest
from extrap.runs.prepare import Run, prepare
from extrap.runs.trained import load_encoder
from extrap.score.protocols import PROTOCOLS, Window
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
SEEN_AT_L = ("nonoverlap", "same_targets", "sliding")  # protocols that read what is scored, in windows of L
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
    rows = rows[(rows["run"] == run.config.run) & rows["protocol"].isin(SEEN_AT_L) & (rows["extension"] == "none")]
    first = (rows["document"] == of.held_out.documents[0]) & (rows["segment"] == of.held_out.segments[0])
    if (rows := rows[first & (rows["eval_len"] == n)]).empty:
        return
    known, protocol = rows.iloc[0][["nll_sum", "protocol"]]
    plan = PROTOCOLS[protocol](run.config.eval, n, run.objective.causal)
    now = sum(_nll_sum(of, window) for window in plan[n])
    if abs(now - known) > MOST_APART * known:
        raise UserError(
            f"{run.folder.path}: its weights now have a loss of {now:.4g} nats where its rows record {known:.4g}: the "
            "program, or its scheme, computes something else today; restore the earlier version, or train the run again"
        )


def _nll_sum(of: Probed, window: Window) -> float:
    """Of the first segment, what this window scores."""
    start, stop, *scored = window
    first, last = (place - start for place in scored)
    read = Batch(*(part[:1, start:stop] for part in of.batch))
    return float(nll(of.encoder, read)[:, first:last].sum())


def lacking(config: Config) -> list[str]:
    """The probes of a config that have not looked into its run, or not as they are today."""
    told = load_found(RunFolder(config.folder).probes)
    known = {*zip(names(told), told[CODE], strict=True)}
    return [name for name in dict.fromkeys(config.eval.probes) if (name, CODES[name]) not in known]


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
    looked = {name: PROBES[name].look(of) for name in lacking(config)}
    found = {name: _numbers(table).assign(run=config.run, **{CODE: CODES[name]}) for name, table in looked.items()}
    with locked(run.folder.lock, SECONDS):  # another command may have looked into it meanwhile
        new, known = {*lacking(config)}, load_found(run.folder.probes)
        tables = [known[~names(known).isin(new)], *(table for name, table in found.items() if name in new)]
        save_probes(run.folder.probes, stacked(tables))


def _numbers(found: pd.DataFrame) -> pd.DataFrame:
    """Without the lengths at which something is not a number: rows have none there, either."""
    broken = ~np.isfinite(found["value_sum"])
    return found[~found["eval_len"].isin(found.loc[broken, "eval_len"])]
