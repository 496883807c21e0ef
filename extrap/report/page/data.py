"""What a page shows of a report: its tables as one object that JSON can hold. Imports no torch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.special import stdtrit

from extrap.errors import one_line
from extrap.report.about import scored_text
from extrap.report.answer import legend, sentences, title
from extrap.report.best import longest_of, outcome, take
from extrap.report.families import by_family, family_of
from extrap.report.group import Group
from extrap.report.looks import looks_of, styles
from extrap.report.page.cells import (
    Json,
    budget,
    choice,
    costs,
    extensions,
    extrapolates,
    overview,
    pairs,
    plain,
    probes,
)
from extrap.report.page.palette import key
from extrap.report.pairs import about_text
from extrap.report.tables import MOST, csv_table, shown_lengths
from extrap.report.typesetting import decimals, loss, name, trained_on
from extrap.results.probes import NAME as PROBES
from extrap.results.probes import load_probes
from extrap.results.provenance import load_provenance
from extrap.results.rows import GROUP, apart, as_trained, within
from extrap.results.shown import IN_NATS, rounded, shown_csv
from extrap.stats.budget import BUDGET
from extrap.stats.perplexity import CONFIDENCE, landmarks, perplexity
from extrap.stats.statistics import Statistics
from extrap.stats.written import load_trained, load_written

POINTS = 30  # of a curve of training losses
NATS, LOSSES = 8, 4  # digits behind the point: of what means are made, and of what is shown as it is
DASHES = {"-": "", "--": "5 3", ":": "1.5 2.5", "-.": "6 3 1.5 3"}  # others are told as lengths
Places = dict[tuple[str, str, str], int]  # (kind, scheme, extension) -> which of the series it is
SERIES = ["kind", "scheme", "extension"]


def t_quantiles(most: int) -> list[float]:
    """Of Student's t, for 95 % intervals over n = 2, 3, ... seeds, with all their digits."""
    return [float(f"{stdtrit(n - 1, 0.5 + CONFIDENCE / 2):.12g}") for n in range(2, most + 1)]


def experiment(folder: Path) -> Json:
    """The report in a folder: what made it, its groups, and what is said of all of them together."""
    found = loaded(folder)
    told = {"name": folder.name, "digest": hashlib.sha256((folder / "rows.csv").read_bytes()).hexdigest()}
    if (path := folder / "provenance.yaml").exists():
        told |= made_by(load_provenance(path))
    looked_into = load_probes(folder / PROBES)
    groups = [
        group(
            part,
            scored_text(part.rows, found.held_out, one_line),
            within(looked_into, GROUP, tuple(part.rows[GROUP].iloc[0])),
        )
        for part in found.groups.values()
    ]
    return told | {"groups": groups, "budget": budget(found), "choice": choice(found)}


def loaded(folder: Path) -> Statistics:
    """Comparisons are read where the tables beside the rows are of these, which table.csv tells; else they are made."""
    found, table = load_written(folder), folder / "table.csv"
    is_of_these = table.exists() and table.read_text(encoding="utf-8") == shown_csv(csv_table(found))
    return found if is_of_these else load_trained(folder)


def made_by(told: dict[str, Any]) -> Json:
    """What made the rows, in lines; the whole of it as it stands in its file."""
    lines = [("command", told["command"]), *machines(told)]
    if (seconds := told.get("seconds_of_all_runs")) is not None:
        lines += [("seconds of these runs" if "kept" in told else "seconds of all runs", f"{seconds:,}")]
    for part in (*told.get("commands", []), *told.get("kept", [])):
        lines += [(f"of {len(part['runs'])} runs, command", part["command"]), *machines(part)]
    return {"made_by": lines, "provenance": yaml.safe_dump(told, sort_keys=False, width=110)}


def machines(told: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for machine in told.get("made_by", []):
        known = [one for one in ("git_commit", "version", "python", "torch", "device", "precision") if one in machine]
        lines += [(one, f"{machine[one]}") for one in known]
        lines += [("uncommitted changes", "yes")] if machine.get("git_dirty") else []
    return lines


def group(part: Statistics, scored: str, looked_into: pd.DataFrame) -> Json:
    """One objective, text, training length and setting, and what probes found in its runs."""
    of = Group(part, {scheme: one_line(scheme) for scheme in part.rows["scheme"].unique()})
    told = sentences(of)
    lines = pd.concat([part.summary, part.by_position]) if len(part.by_position) else part.summary
    series = lines[SERIES].drop_duplicates().itertuples(index=False, name=None)
    at = {one: i for i, one in enumerate(sorted(series, key=lambda one: (one[0] != "scheme", one[2] != "none")))}
    seeds = sorted(int(seed) for seed in part.rows.loc[part.rows["kind"] == "scheme", "seed"].unique())
    return {
        "title": title(of), "what": trained_on(of.objective, of.data, of.train_len, ""), "setting": of.setting,
        "but_for_budget": but_for_budget(part),
        "measure": of.measure, "nats": of.objective in IN_NATS, "loss": loss([of.objective]),
        "decimals": decimals([of.objective]), "causal": of.objective == "causal", "L": int(of.train_len), "seeds": seeds,
        "take": [*take(of), *(f"Undertrained: {one}." for one in [told["undertrained"]] if one)],
        "outcome": outcome(of), "legend": legend([of.objective]), "scored": scored, "yardstick": of.yardstick,
        "sentences": [[label, sentence] for label, sentence in told.items() if sentence],
        "overview": overview(of, looked_into), "series": looks(part, at), "chosen": chosen(of),
        "families": [*by_family(sorted(of.start["scheme"])).items()],
        "at": of.at_protocol, "beyond": of.beyond_protocol,
        "protocols": {str(of): by_length(part, own, at, seeds) for of, own in lines.groupby("protocol", sort=False)},
        "documents": by_document(part, at), "pairs": pairs(part, at), "training": training(part, at, seeds),
        "about": about(part),
        "extrapolates": extrapolates(part), "extensions": extensions(part), "costs": costs(part),
        "missing": missing(part, at), "probes": probes(looked_into),
    }  # fmt: skip


def but_for_budget(part: Statistics) -> str:
    """What a group is of, whatever its budget."""
    return trained_on(*apart(part.rows[GROUP].head(1), BUDGET)[GROUP].iloc[0])


def about(part: Statistics) -> str:
    """What intervals over text are about."""
    compared = [table for table in (part.pairs, part.extrapolates) if len(table)]
    return " ".join(" ".join(about_text(compared)).split()) if compared else ""


def chosen(of: Group) -> list[str]:
    """The schemes that are shown at first: all, or of more than twelve the lowest at L and at the longest length, the
    lowest of each family there, and the one that all are compared with."""
    schemes = list(of.start["scheme"])
    if of.yardstick is None:
        return schemes
    longest = list(longest_of(of)["scheme"])
    families: dict[str, str] = {}
    for scheme in [*longest, *schemes]:
        families.setdefault(family_of(scheme), scheme)
    first = {*schemes[:1], *longest[:1], of.yardstick, *families.values()}
    return [scheme for scheme in schemes if scheme in first]


def looks(part: Statistics, at: Places) -> list[Json]:
    """Of every line: what it is of, and how figures draw it."""
    of_lines, of_schemes = styles(part.rows), looks_of({scheme for kind, scheme, _ in at if kind == "scheme"})
    told = []
    for kind, scheme, extension in at:
        look = of_lines[scheme, extension]
        told.append({
            "kind": kind, "scheme": scheme, "extension": extension, "name": name(scheme, extension),
            "color": key(look["color"]),
            "marker": of_schemes[scheme]["marker"] if kind == "scheme" else "", "dash": dash(look["linestyle"]),
            "hollow": extension != "none",
        })  # fmt: skip
    return told


def dash(style: str | tuple[int, Sequence[float]]) -> str:
    """As SVG has it."""
    return DASHES[style] if isinstance(style, str) else " ".join(f"{length:g}" for length in style[1])


def by_length(part: Statistics, lines: pd.DataFrame, at: Places, seeds: list[int]) -> Json:
    """Of a protocol: nats per token by series, length and seed; of a reference one number, for it has no seeds."""
    protocol, lengths = lines["protocol"].iloc[0], sorted(int(n) for n in lines["eval_len"].unique())
    rows = part.rows[part.rows["protocol"] == protocol]
    nats = perplexity(rows, [*SERIES, "eval_len", "seed"]).set_index([*SERIES, "eval_len", "seed"])["log_ppl"].round(NATS)
    known: dict[Any, float] = nats.to_dict()
    values: list[list[Json]] = []
    for one in at:
        own = seeds if one[0] == "scheme" else [0]
        values.append([[known.get((*one, n, seed)) for seed in own] for n in lengths])
    values = [[seen if any(v is not None for v in seen) else 0 for seen in line] for line in values]
    told = {"lengths": lengths, "shown": [int(n) for n in shown_lengths(lines, MOST)], "values": values}
    told["tokens"] = int(lines["n_tokens"].max())
    null = within(part.sound_null, ["protocol"], (protocol,))
    null = null[null["extension"] == "none"]
    if len(null):
        line = rounded(null).set_index(["scheme", "eval_len"])["null"].to_dict()
        told["null"] = {at["scheme", scheme, "none"]: [plain(line.get((scheme, n), 0)) for n in lengths]
                        for scheme in null["scheme"].unique()}  # fmt: skip
    ranked = part.ranked[(part.ranked["protocol"] == protocol) & part.ranked["best"]]
    told["best"] = [[at["scheme", line.scheme, "none"], lengths.index(line.eval_len)] for line in ranked.itertuples()]
    return told


def by_document(part: Statistics, at: Places) -> Json:
    """Nats per token of schemes as trained over all seeds: by protocol, series, length (L, 4 L, the longest), document."""
    rows = as_trained(part.by_length)
    told = {}
    for protocol, own in rows.groupby("protocol", sort=False):
        nats = perplexity(own, ["scheme", "eval_len", "document"]).pivot(
            index=["scheme", "eval_len"], columns="document", values="log_ppl"
        )
        nats = nats.dropna(axis="columns", how="all").round(LOSSES)
        lengths = landmarks([int(n) for n in own["eval_len"].unique()], int(own["train_len"].iloc[0]))
        told[str(protocol)] = {
            "lengths": lengths,
            "names": [one_line(str(document)) for document in nats.columns],
            "values": {
                at["scheme", scheme, "none"]: [
                    [None if np.isnan(v) else v for v in nats.loc[scheme, n]] if (scheme, n) in nats.index else 0
                    for n in lengths
                ]
                for scheme in own["scheme"].unique()
            },
        }
    return told


def training(part: Statistics, at: Places, seeds: list[int]) -> Json:
    """Losses of batches and on held-out text, by series, seed and step: those of batches means of `every` logged steps, told
    with the last of them, so that there are POINTS at most."""
    if part.training.empty:
        return None
    losses = part.training.rename(columns={"held_out_loss": "held_out"})
    told: dict[str, Json] = {}
    for what in ("loss", "held_out"):
        known = losses.dropna(subset=what)
        logged = sorted(known["step"].unique())
        every = -(-len(logged) // POINTS) if what == "loss" else 1
        last = {step: int(logged[min(i - i % every + every, len(logged)) - 1]) for i, step in enumerate(logged)}
        means = known.groupby(["scheme", "seed", known["step"].map(last)])[what].mean()
        steps, values = sorted({*last.values()}), means.round(LOSSES - 1).to_dict()
        told[what] = {
            "every": every,
            "steps": steps,
            "values": {
                at["scheme", scheme, "none"]: [[values.get((scheme, seed, step)) for seed in seeds] for step in steps]
                for scheme in known["scheme"].unique()
                if ("scheme", scheme, "none") in at
            },
        }
    return told


def missing(part: Statistics, at: Places) -> list[Json]:
    """A line a cell that a seed has no number of: series, protocol, length, seed, why."""
    told = []
    for line in part.missing.itertuples():
        one = ("scheme", line.scheme, line.extension)
        known = at.get(one, one_line(name(line.scheme, line.extension)))
        told.append([known, line.protocol, plain(line.eval_len), int(line.seed), one_line(str(line.reason))])
    return told
