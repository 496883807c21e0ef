"""Tables of all experiments -> what they say about every claim, one line a part. Imports no torch."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.claims.claim import OUT_OF_SCOPE, decide, out_of_scope
from experiments.claims.evidence import Missing, read
from experiments.claims.published import published_values
from experiments.claims.registry import CLAIMS

COLUMNS = [
    "id", "verdict", "effect", "low", "high", "published", "n_seeds", "experiment", "place", "quantity", "side", "threshold",
    "unit", "confidence", "published_low", "published_high", "over_floor", "part", "part_verdict", "deciding", "near", "far",
    "reason",
]  # fmt: skip
SHOWN = [*COLUMNS[:17], "reason", "statement"]


def verdicts(results: Path, published: pd.DataFrame) -> pd.DataFrame:
    """One line a (claim, place, part), in the order of the registry; one without numbers where a claim is out of scope.

    Timings decide machine by machine, each after the first with its name. See Part.judge and decide, and
    published  the same quantity in the papers' tables: the geometric mean over their series of models, and its range
    """
    lines = []
    evidence_of = cache(lambda experiment: read(results / experiment))
    for claim in CLAIMS:
        papers = [of_papers(published_values(claim, part, published)) for part in claim.parts]
        for place, experiments in claim.places.items():
            try:
                if not experiments:
                    raise Missing("no experiment of this kind with this text")
                machines = pd.concat(map(evidence_of, experiments)).groupby("machine", sort=False)
                decided = [(f", {name}" if i else "", decide(claim, seen)) for i, (name, seen) in enumerate(machines)]
            except Missing as missing:
                decided = [("", [out_of_scope(missing)])]
            for machine, parts in decided:
                whose = {"id": claim.id, "place": place + machine, "experiment": "+".join(experiments)}
                for line in parts:
                    lines.append(whose | line | ({} if line["verdict"] == OUT_OF_SCOPE else papers[line["part"]]))
    return pd.DataFrame(lines, columns=COLUMNS)


def of_papers(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"published": float(np.exp(np.log(values).mean())), "published_low": min(values), "published_high": max(values)}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """One line a (claim, place): the verdict and the part that it hangs on."""
    statements = {claim.id: claim.statement for claim in CLAIMS}
    return table[table["deciding"]].assign(statement=table["id"].map(statements))[SHOWN]
