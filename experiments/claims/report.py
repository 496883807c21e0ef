"""Everything in results/claims/, from the tables of all experiments. Imports no torch."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.claims.claim import OUT_OF_SCOPE, Claim, Line, decide
from experiments.claims.evidence import Missing, read, read_by_budget
from experiments.claims.figure import board
from experiments.claims.page import page
from experiments.claims.published import load_published, published_values
from experiments.claims.registry import BUDGETS, CLAIMS, ENCODER, OF_PLACE, SECTIONS
from extrap.files import write_atomic
from extrap.report.drawing import save_figure
from extrap.results.shown import save_table
from extrap.stats.budget import held
from extrap.stats.pairs import LACKING

COLUMNS = [
    "id", "verdict", "effect", "low", "high", "published", "n_seeds", "experiment", "place", "quantity", "side", "threshold",
    "unit", "confidence", "published_low", "published_high", "over_floor", "part", "part_verdict", "deciding", "near", "far",
    "reason",
]  # fmt: skip
SHOWN = [*COLUMNS[:17], "reason", "title"]
BY_BUDGET = [
    "id", "place", "experiment", "steps", "verdict", "effect", "low", "high", "n_seeds", "quantity", "side", "threshold",
    "unit", "confidence", "stability", "since", "otherwise", "reason",
]  # fmt: skip


def write_claims(results: Path) -> list[Path]:
    """The page, the boards with the verdicts that they show, every part of them, and those at every budget where there is a
    sweep over it; returns what was written."""
    published = load_published()
    table, budgets = verdicts(results, published), by_budget(results)
    folder = results / "claims"
    folder.mkdir(exist_ok=True)
    tables = {"claims.csv": shown(table), "parts.csv": table} | ({"budgets.csv": budgets} if len(budgets) else {})
    for name, lines in tables.items():
        save_table(folder / name, lines)
    write_atomic(folder / "claims.md", page(table, published, budgets))
    written = [folder / name for name in ("claims.md", *tables)]
    for figure, (_, claims) in SECTIONS.items():
        seen = shown(table[table["id"].isin([claim.id for claim in claims])])
        written += save_figure(board(table, claims), seen, folder / f"claims_{figure}")
    return written


def verdicts(results: Path, published: pd.DataFrame) -> pd.DataFrame:
    """One line a (claim, place, part), in the order of the registry; one without numbers where a claim is out of scope.

    See Part.judge and decide, and
    published  the same quantity in the papers' tables: the geometric mean over their series of models, and its range
    """
    lines: list[Line] = []
    evidence_of = cache(lambda experiment: read(results / experiment))
    for claim in CLAIMS:
        papers = [with_range(published_values(claim, part, published)) for part in claim.parts]
        for place, experiments in claim.places.items():
            whose = {"id": claim.id, "place": place, "experiment": "+".join(experiments)}
            try:
                if not experiments:
                    raise Missing("no experiment of this kind with this text")
                decided = decide_at(place, claim, pd.concat(map(evidence_of, experiments)))
                lines += [whose | line | papers[line["part"]] for line in decided]
            except Missing as missing:
                nothing = {"verdict": OUT_OF_SCOPE, "reason": str(missing), "part": 0, "deciding": True, "n_seeds": 0}
                lines.append(whose | nothing)
    return pd.DataFrame(lines, columns=COLUMNS)


def by_budget(results: Path) -> pd.DataFrame:
    """What becomes of a verdict with the budget, where a sweep over that is there and holds what the claim is about.

    One line a (claim, place, steps): the verdict at this budget, not compared where it is out of scope there, the part that
    it hangs on, and stability, since and otherwise (see `held`), the same on all lines of a claim.
    """
    evidence_of = {name: read_by_budget(results / name) for name in BUDGETS.values()}
    lines: list[Line] = []
    for claim in CLAIMS:
        for place, experiments in claim.places.items():
            sweep = BUDGETS.get(experiments, "")
            decided = [
                at_budget(place, claim, evidence) | {"steps": n} for n, evidence in evidence_of.get(sweep, {}).items()
            ]
            if any(line["verdict"] != LACKING for line in decided):
                answer = held([line["verdict"] for line in decided])
                since = decided[answer.since]["steps"] if answer.since is not None else pd.NA
                whose = {"id": claim.id, "place": place, "experiment": sweep} | answer._asdict() | {"since": since}
                lines += [whose | line for line in decided]
    return pd.DataFrame(lines, columns=BY_BUDGET).astype({"since": "Int64"})


def decide_at(place: str, claim: Claim, evidence: pd.DataFrame) -> list[Line]:
    """See decide. Raises Missing also where rows are not of what the place is called after."""
    for column, wanted in OF_PLACE[place].items():
        if others := sorted({*evidence[column]} - {wanted, ""}):
            raise Missing(f"rows of {column} {', '.join(map(str, others))}, not {wanted}")
    return decide(claim.asked_of("mlm") if place == ENCODER else claim, evidence)


def at_budget(place: str, claim: Claim, evidence: pd.DataFrame) -> Line:
    """The part that the verdict hangs on."""
    try:
        return next(line for line in decide_at(place, claim, evidence) if line["deciding"])
    except Missing as missing:
        return {"verdict": LACKING, "reason": str(missing), "n_seeds": 0}


def with_range(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"published": float(np.exp(np.log(values).mean())), "published_low": min(values), "published_high": max(values)}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """One line a (claim, place): the verdict and the part that it hangs on."""
    titles = {claim.id: claim.words["title"] for claim in CLAIMS}
    return table[table["deciding"]].assign(title=table["id"].map(titles))[SHOWN]
