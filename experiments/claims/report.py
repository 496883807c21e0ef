"""Everything in results/claims/, from the tables of all experiments. Imports no torch."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.claims.claim import OUT_OF_SCOPE, Line, decide
from experiments.claims.evidence import Missing, read
from experiments.claims.figure import board
from experiments.claims.page import page
from experiments.claims.published import load_published, published_values
from experiments.claims.registry import CLAIMS
from extrap.files import write_atomic
from extrap.report.drawing import save_figure
from extrap.results.rows import save_table

COLUMNS = [
    "id", "verdict", "effect", "low", "high", "published", "n_seeds", "experiment", "place", "quantity", "side", "threshold",
    "unit", "confidence", "published_low", "published_high", "over_floor", "part", "part_verdict", "deciding", "near", "far",
    "reason",
]  # fmt: skip
SHOWN = [*COLUMNS[:17], "reason", "statement"]


def write_claims(results: Path) -> list[Path]:
    """The page, the board with the verdicts that it shows, and every part of them; returns what was written."""
    published = load_published()
    table = verdicts(results, published)
    folder = results / "claims"
    folder.mkdir(exist_ok=True)
    save_table(folder / "parts.csv", table)
    write_atomic(folder / "claims.md", page(table, published))
    return [folder / "claims.md", folder / "parts.csv", *save_figure(board(table), shown(table), folder / "claims")]


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
                decided = decide(claim, pd.concat(map(evidence_of, experiments)))
                lines += [whose | line | papers[line["part"]] for line in decided]
            except Missing as missing:
                nothing = {"verdict": OUT_OF_SCOPE, "reason": str(missing), "part": 0, "deciding": True, "n_seeds": 0}
                lines.append(whose | nothing)
    return pd.DataFrame(lines, columns=COLUMNS)


def with_range(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"published": float(np.exp(np.log(values).mean())), "published_low": min(values), "published_high": max(values)}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """One line a (claim, place): the verdict and the part that it hangs on."""
    statements = {claim.id: claim.words["statement"] for claim in CLAIMS}
    return table[table["deciding"]].assign(statement=table["id"].map(statements))[SHOWN]
