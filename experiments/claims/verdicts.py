"""Rows of all experiments -> what they say about every claim, one line a part. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.claims.claim import OUT_OF_SCOPE, Claim, Decision, decide
from experiments.claims.evidence import NO_FLOOR, Evidence, Missing, measures
from experiments.claims.places import NO_EXPERIMENT
from experiments.claims.published import published_values
from experiments.claims.registry import CLAIMS
from experiments.speed.timings import OURS, load_timings, where
from extrap.results.rows import load_one_setting, load_training

CURVE = ["scheme", "seed", "step", "loss"]
COLUMNS = [
    "id", "verdict", "effect", "low", "high", "published", "n_seeds", "experiment", "place", "quantity", "side", "threshold",
    "unit", "confidence", "published_low", "published_high", "over_floor", "part", "part_verdict", "deciding", "near", "far",
    "reason",
]  # fmt: skip
SHOWN = [*COLUMNS[:17], "reason", "statement"]


def verdicts(results: Path, published: pd.DataFrame, claims: tuple[Claim, ...] = CLAIMS) -> pd.DataFrame:
    """One line a (claim, place, part), in the order of the registry; one without numbers where a claim is out of scope.

    published   the same quantity in the papers' tables: the geometric mean over their series of models, and its range
    near, far   the ends of the interval, counted from the threshold to the claim's side, in logarithms for a ratio
    over_floor  whether perplexities are over that of the floor of whoever looks back L tokens at most
    deciding    whether the verdict hangs on this part
    """
    known: dict[str, Evidence] = {}
    lines = []
    for claim in claims:
        for place, experiments in claim.places.items():
            try:
                decisions = [(place + machine, decide(claim, one)) for machine, one in evidence(results, experiments, known)]
            except Missing as missing:
                decisions = [(place, Decision(OUT_OF_SCOPE, reason=str(missing)))]
            for name, decision in decisions:
                whose = {"id": claim.id, "place": name, "experiment": "+".join(experiments)}
                lines += [whose | line for line in told(claim, decision, published)]
    return pd.DataFrame(lines, columns=COLUMNS)


def told(claim: Claim, decision: Decision, published: pd.DataFrame) -> Iterator[dict[str, object]]:
    if not decision.findings:
        yield {"verdict": decision.verdict, "reason": decision.reason, "part": 0, "deciding": True, "n_seeds": 0}
    for i, found in enumerate(decision.findings):
        part = found.part
        effect, low, high = found.shown()
        near, far = found.margins
        values = published_values(claim, part, published)
        yield (
            {"verdict": decision.verdict, "effect": effect, "low": low, "high": high, "n_seeds": found.n_seeds}
            | {"quantity": str(part.quantity), "side": part.side, "threshold": part.threshold, "unit": part.quantity.unit}
            | {"over_floor": found.over_floor}
            | {"published": float(np.exp(np.log(values).mean())) if values else np.nan}
            | {"published_low": min(values, default=np.nan), "published_high": max(values, default=np.nan)}
            | {"confidence": found.confidence, "part": i, "part_verdict": found.verdict, "near": near, "far": far}
            | {"deciding": found is decision.deciding}
        )


def shown(table: pd.DataFrame, claims: tuple[Claim, ...] = CLAIMS) -> pd.DataFrame:
    """One line a (claim, place): the verdict and the part that it hangs on."""
    statements = {claim.id: claim.statement for claim in claims}
    return table[table["deciding"]].assign(statement=table["id"].map(statements))[SHOWN]


def evidence(results: Path, experiments: tuple[str, ...], known: dict[str, Evidence]) -> Iterator[tuple[str, Evidence]]:
    """What the experiments' tables say together; timings machine by machine, each after the first with its name."""
    if not experiments:
        raise Missing(NO_EXPERIMENT)
    if experiments == ("speed",):
        return iter(of_timings(results / "speed" / "timings.csv"))
    for name in experiments:
        if name not in known:
            if not (results / name / "rows.csv").exists():
                raise Missing(f"no experiment {name}")
            known[name] = Evidence(measures(load_one_setting(results / name / "rows.csv")), training(results / name))
    found = [known[name] for name in experiments]
    curves = [one.training for one in found]
    return iter([("", Evidence(pd.concat([one.measures for one in found]), pd.concat(curves)))])


def training(folder: Path) -> pd.DataFrame:
    """The training curves of an experiment, empty where it has none."""
    path = folder / "training.csv"
    return load_training(path)[CURVE] if path.exists() else pd.DataFrame(columns=CURVE)


def of_timings(path: Path) -> list[tuple[str, Evidence]]:
    """Training speed, machine by machine; a round stands for a seed, for within it all meet the same load."""
    if not path.exists():
        raise Missing("no timings")
    steps = where(load_timings(path), case="training", name=OURS)
    if steps.empty:
        raise Missing("no training among the timings")
    lines = steps.assign(metric="tokens/s", experiment="speed", protocol="training", extension="none", train_len=steps["n"])
    lines = lines.assign(log=np.log(lines["tokens"] / lines["value"]), text=lines["tokens"], **NO_FLOOR)
    lines = lines.rename(columns={"n": "eval_len", "round": "seed"})
    machines = lines.groupby("machine", sort=False)
    return [(f", {name}" if i else "", Evidence(part)) for i, (name, part) in enumerate(machines)]
