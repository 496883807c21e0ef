"""What probes found: probes.md, tables and figures. Imports no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from extrap.files import write_atomic
from extrap.report.drawing import save_figure
from extrap.report.probed import heads_figure, reach_figure, recall_figure
from extrap.report.typesetting import NONE, markdown, percent, stem, trained_on
from extrap.results.probes import MADE_BY, NAME, collect_probes, highest_in, load_probes, save_probes
from extrap.results.rows import GROUP
from extrap.results.shown import IN_NATS, rounded, save_table
from extrap.stats.pairs import UNDECIDED
from extrap.stats.probes import (
    OTHER,
    RISE,
    Reach,
    by_seed,
    reach_of,
    recalled,
    recalled_around,
    rises,
    summarise_probes,
    turned,
)

REACH = f"""\
**How far models read** ({{group}}): loss of single targets in windows of {{n:,}} tokens, and by how many nats it rises when
all text farther from the target than so many tokens is replaced by that of another document. ± half a 95 % t interval over
seeds. *Reach*: the distances between which the rise falls below {RISE:.3f} nats (5 % of perplexity), decided by whole
intervals; "{NONE}" where losses are not those of predicting tokens, {UNDECIDED} where the intervals settle neither bound,
as with one seed. *In order*: the share of the rise beyond one token that also occurs when the same tokens are merely
shuffled, if that rise exceeds this threshold."""
ORDER = """\
**Direction and order** ({group}): loss at the training length, and by how many nats it rises on the same text reversed and
shuffled. ± half a 95 % t interval over seeds. In an encoder both rises are 0 by construction for schemes that know nothing
of order, and that on reversed text where positions enter through |i - j| alone."""
DETECTION = """\
**Detecting replaced tokens** ({group}): area under the ROC curve within segments by evaluation length, on the text of the
rows; 0.5 is chance. ± half a 95 % t interval over seeds."""
OWN = """\
**On the text of each run's own generator** ({group}), a diagnostic: generators break with length as well, so that the task
differs between schemes and lengths. Do not compare across schemes, nor along a row. AUC, and in parentheses the share of
tokens that is replaced."""
RECALL = """\
**Recall by distance** ({group}): nats above the best possible prediction from the same {n:,} tokens ({multiple:g} L), by
how many tokens ago the current symbol last occurred; *never*: nowhere in the input before. ± half a 95 % t interval over
seeds, on these targets; the last line counts them. *Looks back L*: the best possible prediction from the last
{train_len:,} tokens alone."""
RECALL_AGAIN = "The same at {n:,} tokens ({multiple:g} L):"
HEADS = """\
**Where heads look** ({group}): mean attention distance in tokens over all heads and seeds, and the share of attention
farther than L/2. What is looked at is not what is used: it explains, and decides nothing."""


Told = list[tuple[str, pd.DataFrame]]  # what a table says, and the table


class Section(NamedTuple):
    """Of the lines of one probe and group: its tables, its points, and the figure of these."""

    tables: Callable[[pd.DataFrame, str], Told]
    points: Callable[[pd.DataFrame], pd.DataFrame]
    figure: Callable[[pd.DataFrame], Figure] | None = None


def write_probes(folder: Path) -> list[Path]:
    """All that follows from probes.csv of a report, nothing where there is none; returns what was written."""
    if not (folder / NAME).exists():
        return []
    probes = load_probes(folder / NAME)
    for path in (path for name in SECTIONS for path in folder.glob(f"{name}[._]*")):  # of groups that there were before
        path.unlink()
    several = len(probes[GROUP].drop_duplicates()) > 1
    parts, written = [], [folder / "probes.md"]
    for group, own in probes.groupby(GROUP, sort=False):
        for name, lines in by_probe(own).items():
            section = SECTIONS[name]
            for note, table in section.tables(lines, trained_on(*group)):
                parts += [note, markdown(table, ["scheme"])]
            path, points = folder / stem(name, *(group if several else ())), rounded(section.points(lines))
            if section.figure:
                written += save_figure(section.figure(points), points, path)
            else:
                save_table(path.with_suffix(".csv"), points)
                written.append(path.with_suffix(".csv"))
    write_atomic(folder / "probes.md", "\n\n".join(parts) + "\n")
    return written


def gather_probes(folder: Path, runs: Path) -> bool:
    """probes.csv of a report made anew and what follows from it, or nothing where nothing stays; whether there was one.

    What was found in other weights than those whose rows the report holds now is not shown beside them.
    """
    if not (folder / NAME).exists():
        return False
    found = collect_probes(folder, runs).found
    save_probes(folder / NAME, found)
    written = write_probes(folder)
    if found.empty:
        for path in (folder / NAME, folder / MADE_BY, *written):
            path.unlink(missing_ok=True)
    return True


def by_probe(probes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of every probe that there are any of, in the order of the page."""
    names = probes["probe"].str.partition("(")[0]
    return {name: lines for name in SECTIONS if len(lines := probes[names == name])}


def _reach(probes: pd.DataFrame, group: str) -> Told:
    risen, n = rises(probes), probes["eval_len"].max()
    whole = summarise_probes(probes[(probes["distance"] == n) & (probes["probe"] == OTHER)])
    lines = []
    for one in whole.sort_values("value").itertuples():
        own = risen[risen["scheme"] == one.scheme]
        other, shuffled = own[own["probe"] == OTHER], own[own["probe"] != OTHER]
        at = {f"beyond {line.distance}": _value(line, sign=True) for line in other.itertuples()}
        nearest_of, nearest = (part.loc[part["distance"].idxmin(), "value"] for part in (other, shuffled))
        in_order = percent(nearest / nearest_of, 0) if nearest_of > RISE else NONE
        in_nats = one.objective in IN_NATS
        told = {"reach": NONE if in_nats else bracket(reach_of(other))}
        lines.append({"scheme": one.scheme, "loss": _value(one), **told, **at, "in order": in_order})
    return [(REACH.format(group=group, n=n), pd.DataFrame(lines))]


def at_a_glance(probes: pd.DataFrame) -> pd.DataFrame:
    """By scheme, as much as probes have found of this: how far it reads, and how far above the floor it recalls, in the
    longest input, what stood within L and beyond it."""
    columns: dict[str, dict[str, str]] = {}
    risen = rises(probes)
    for scheme, lines in risen[risen["probe"] == OTHER].groupby("scheme"):
        in_nats = lines["objective"].isin(IN_NATS).any()
        columns.setdefault("reach", {})[str(scheme)] = NONE if in_nats else bracket(reach_of(lines))
    for line in recalled_around(probes).itertuples():
        where = "within" if line.distance == 1 else "beyond"
        columns.setdefault(f"recall {where} L", {})[line.scheme] = _value(line)
    return pd.DataFrame(columns)


def bracket(found: Reach) -> str:
    """In words: up to 4, 4 to 16, beyond 32, undecided."""
    if found.within is None:
        return f"beyond {found.above}" if found.above else UNDECIDED
    return f"{found.above} to {found.within}" if found.above else f"up to {found.within}"


def _order(probes: pd.DataFrame, group: str) -> Told:
    plain, changed = summarise_probes(probes[probes["probe"] == "order(as_is)"]), turned(probes)
    lines = []
    for one in plain.sort_values("value").itertuples():
        own = changed[changed["scheme"] == one.scheme].set_index("probe")
        told = {name: _value(own.loc[f"order({name})"], sign=True) for name in ("reversed", "shuffled")}
        lines.append({"scheme": one.scheme, "loss": _value(one), **told})
    return [(ORDER.format(group=group), pd.DataFrame(lines))]


def _detection(probes: pd.DataFrame, group: str) -> Told:
    found, told = summarise_probes(probes), []
    for probe, note in (("detection", DETECTION), ("detection(own)", OWN)):
        own = found[found["probe"] == probe]
        lines = []
        for scheme, line in own[own["metric"] == "auc"].groupby("scheme", sort=False):
            cells = {one.eval_len: _value(one) for one in line.itertuples()}
            if probe != "detection":
                shares = own[(own["metric"] == "replaced") & (own["scheme"] == scheme)].set_index("eval_len")["value"]
                cells = {n: f"{cell} ({percent(shares[n])})" for n, cell in cells.items()}
            lines.append({"scheme": scheme} | {f"{n:,}": cell for n, cell in cells.items()})
        if lines:
            told.append((note.format(group=group), pd.DataFrame(lines).fillna(NONE)))
    return told


def _recall(probes: pd.DataFrame, group: str) -> Told:
    excess, train_len = recalled(probes), int(probes["train_len"].iloc[0])
    told: Told = []
    for eval_len, own in excess.groupby("eval_len"):
        names = {low: in_words(low, highest_in(low, train_len)) for low in sorted(own["distance"].unique())}
        lines = []
        for scheme, part in own[own["metric"] == "nll"].groupby("scheme", sort=False):
            lines.append({"scheme": scheme} | {names[one.distance]: _value(one) for one in part.itertuples()})
        window = own[own["metric"] == "window_floor"].drop_duplicates("distance")
        best = {names[one.distance]: f"{one.value:.3f}" for one in window.itertuples()}
        lines.append({"scheme": "looks back L", **best})
        counts = {names[one.distance]: f"{one.n:,.0f}" for one in window.itertuples()}
        lines.append({"scheme": "targets", **counts})
        note = RECALL_AGAIN if told else RECALL
        note = note.format(group=group, n=eval_len, multiple=eval_len / train_len, train_len=train_len)
        told.append((note, pd.DataFrame(lines).fillna(NONE)))
    return told


def in_words(low: int, high: int | None) -> str:
    """A bin of distances, from its least to its highest."""
    if low == 0:
        return "never"
    return f"{low:,} or more" if high is None else f"{low:,} to {high:,}"


def _heads(probes: pd.DataFrame, group: str) -> Told:
    lines = []
    for scheme, own in by_seed(probes).groupby("scheme", sort=False):
        cells = {}
        for (eval_len, metric), part in own[own["metric"] != "entropy"].groupby(["eval_len", "metric"], sort=False):
            mean = part["value"].mean()
            cells[f"{metric} at {eval_len:,}"] = percent(mean) if metric == "beyond" else f"{mean:.1f}"
        lines.append({"scheme": scheme, **cells})
    return [(HEADS.format(group=group), pd.DataFrame(lines).fillna(NONE))]


def _order_points(probes: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([summarise_probes(probes[probes["probe"] == "order(as_is)"]), turned(probes)])


def _heads_points(probes: pd.DataFrame) -> pd.DataFrame:
    return by_seed(probes).drop(columns=["value_sum", "n"])


SECTIONS = {
    "reach": Section(_reach, rises, reach_figure),
    "recall": Section(_recall, recalled, recall_figure),
    "order": Section(_order, _order_points),
    "detection": Section(_detection, summarise_probes),
    "heads": Section(_heads, _heads_points, heads_figure),
}


def _value(line: Any, sign: bool = False) -> str:
    """The mean of a line with half its interval, where there is one."""
    text, half = f"{line.value:{'+' if sign else ''}.3f}", line.high - line.value
    return text if np.isnan(half) else f"{text} ±{half:.3f}"
