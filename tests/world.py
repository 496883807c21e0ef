"""A made-up world of rows in which every published claim holds, and the means to change one number of it."""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
from rows import scheme_rows
from scipy.optimize import linprog

from experiments.claims import evidence
from experiments.claims.claim import Claim
from experiments.claims.evidence import LINE, PLAIN
from experiments.claims.quantities import Lost, Quantity, Ratio, Removed, Term, Worst

SEEDS = 3
LENGTHS = (1, 166 / 128, 180 / 128, 2, 460 / 128, 4, 7, 8, 16, 32)
# experiment -> objective, text, training length
EXPERIMENTS = {
    "causal": ("causal", "stdlib", 128), "prose": ("causal", "text", 128), "markov": ("causal", "markov", 128),
    "main": ("mlm", "stdlib", 128), "prose_mlm": ("mlm", "text", 128),
    "causal_64": ("causal", "stdlib", 64), "causal_32": ("causal", "stdlib", 32), "causal_256": ("causal", "stdlib", 256),
    "stride1": ("causal", "stdlib", 128), "tied+best-lr": ("causal", "stdlib", 128),
}  # fmt: skip
# log-perplexity at L, and what each doubling of the length from 1.4 L on adds
CAUSAL = {"rope": (1.30, 0.5), "nope": (1.36, 0.2), "sinusoidal": (1.38, 1.2), "alibi": (1.40, -0.02), "t5": (1.40, 0.0)}
MASKED = {"rope": (1.40, 0.5), "nope": (3.00, 0.0), "sinusoidal": (2.00, 1.0), "alibi": (1.90, 0.0), "learned": (2.20, 0.0)}
# of markov, nats: flat, so that every claim that holds over it holds as it stands, and with room for a factor of 2
FLOORS = {"floor": 0.9, "window_floor": 1.0, "plateau": 4.0, "unigram": 4.5}
T5 = dict(zip(LENGTHS, (1.40, 1.395, 1.394, 1.393, 1.42, 1.43, 1.60, 1.70, 1.90, 2.10), strict=True))

Cell = tuple[str, str, str, str, float]  # experiment, protocol, scheme, extension, multiple of L
World = dict[Cell, list[float]]  # log-perplexity of each seed


@functools.cache
def world() -> World:
    """Not to be changed. Seeds differ together (which pairing takes out) and by 0.0002 alone (which it does not)."""
    cells = {}
    for experiment, (objective, *_) in EXPERIMENTS.items():
        protocol = "sliding(stride=1)" if experiment == "stride1" else "nonoverlap"
        for scheme, (start, slope) in (CAUSAL if objective == "causal" else MASKED).items():
            curve = {at: start + slope * max(0.0, np.log2(at) - 0.4) for at in LENGTHS}
            curve = T5 if scheme == "t5" else curve
            if experiment == "stride1":
                curve = dict.fromkeys(LENGTHS, start)
            for at in LENGTHS:
                cells[experiment, protocol, scheme, "none", at] = curve[at]
                cells[experiment, "same_targets", scheme, "none", at] = curve[at]
                cells[experiment, "same_targets", scheme, "window", at] = min(start, curve[at])
                cells[experiment, protocol, scheme, "window", at] = start - 0.01
        for extension, add in (("clamp", 1.0), ("tile", 0.03)) if objective == "mlm" else ():
            for at in LENGTHS:
                cells[experiment, protocol, "learned", extension, at] = MASKED["learned"][0] + add * (at > 1)
    rng = np.random.default_rng(0)
    together = rng.normal(0, 0.02, SEEDS)
    return {cell: list(value + together + rng.normal(0, 0.0002, SEEDS)) for cell, value in cells.items()}


def rows_of(world: World, experiment: str) -> pd.DataFrame:
    objective, data, train_len = EXPERIMENTS[experiment]
    made = []
    told = {"experiment": experiment, "objective": objective, "data": data, "train_len": train_len}
    schemes = dict.fromkeys((cell[1], cell[2], cell[3]) for cell in world if cell[0] == experiment)
    for protocol, scheme, extension in schemes:
        curve = {round(at * train_len): world[experiment, protocol, scheme, extension, at] for at in LENGTHS
                 if (experiment, protocol, scheme, extension, at) in world}  # fmt: skip
        made.append(scheme_rows(scheme, curve, protocol=protocol, extension=extension, **told))
    if experiment == "tied+best-lr":
        apart = {"output=untied": 0.0, "output=tied": 0.02, "output=tied_head": -0.01}  # nats a token
        made = [rows.assign(setting=setting, nll_sum=rows["nll_sum"] + nats * rows["n_tokens"],
                            run=rows["run"] + setting) for setting, nats in apart.items() for rows in made]  # fmt: skip
    if data == "markov":
        made += [scheme_rows(kind, {round(at * train_len): [nll] for at in LENGTHS}, kind=kind, protocol=protocol, **told)
                 for kind, nll in FLOORS.items() for protocol in ("nonoverlap", "same_targets")]  # fmt: skip
    return pd.concat(made, ignore_index=True)


def curves(faster: str = "rope", slower: str = "learned", seeds: int = SEEDS) -> pd.DataFrame:
    """Training curves on which one scheme needs half of the steps of the other."""
    rng = np.random.default_rng(0)
    step = np.arange(1, 201)
    return pd.concat(
        pd.DataFrame({"experiment": "main", "run": f"{scheme}-seed{seed}", "scheme": scheme, "objective": "mlm",
                      "data": "stdlib", "train_len": 128, "setting": "", "seed": seed, "step": step, "tokens": step * 128,
                      "loss": 2 + np.exp(-rate * step) + rng.normal(0, 0.001, len(step)), "held_out_loss": np.nan})
        for scheme, rate in ((faster, 0.04), (slower, 0.02)) for seed in range(seeds)
    )  # fmt: skip


def timings(tokens_per_s: dict[str, float], rounds: int = 4) -> pd.DataFrame:
    """Rounds that are slow and fast for all schemes alike, as `experiments.speed` writes them."""
    rng = np.random.default_rng(0)
    lines = [
        {"case": "training", "name": "extrap", "setting": "", "scheme": scheme, "objective": "causal", "n": 256, "round": i,
         "value": 4096 / rate * (1 + 0.1 * i) * (1 + rng.normal(0, 0.0005)), "unit": "s", "tokens": 4096, "flops": 0.0,
         "params": 1, "logits": 1, "threads": 2, "precision": "fp32", "machine": "made up"}
        for scheme, rate in tokens_per_s.items() for i in range(rounds)
    ]  # fmt: skip
    return pd.DataFrame(lines)


RATE = 5.0  # nats of who explains nothing, above all of `holding`
SPEED = {"sinusoidal": 1000.0, "alibi": 1000.0, "rope": 700.0, "t5": 500.0}


@functools.cache
def evidence_of(experiments: tuple[str, ...]) -> pd.DataFrame:
    """Not to be changed."""
    tables = [evidence.measures(rows_of(world(), experiment)) for experiment in experiments]
    return pd.concat([*tables, evidence.curves(curves())], ignore_index=True)


def linear(quantity: Quantity) -> dict[Term, float]:
    """The logarithm of a ratio as a sum of log-perplexities."""
    if isinstance(quantity, Term):
        return {quantity: 1.0}
    if isinstance(quantity, Worst):  # which is the last, where it is the only length
        return linear(replace(quantity.term, at=quantity.to) / quantity.start)
    assert isinstance(quantity, Ratio)
    return summed((1, linear(quantity.top)), (-1, linear(quantity.bottom)))


def summed(*sums: tuple[float, dict[Term, float]]) -> dict[Term, float]:
    terms = dict.fromkeys(term for _, each in sums for term in each)
    return {term: sum(by * each.get(term, 0.0) for by, each in sums) for term in terms}


def holding(claim: Claim, margin: float = 0.05) -> pd.DataFrame:
    """Evidence in which all parts of a claim hold by a margin, in nats, and hardly more: it solves linear inequalities."""
    bounds = []
    for part in claim.parts:
        quantity, sign = part.quantity, {"at most": 1.0, "at least": -1.0}[part.side]
        if isinstance(quantity, Removed):  # the rise that is left, against a share of the whole one
            left, whole = linear(quantity.repaired / quantity.sound), linear(quantity.broken / quantity.sound)
            bounds.append((summed((-sign, left), (sign * (1 - part.threshold), whole)), 0.0))
        elif isinstance(quantity, Lost):  # what is lost, against a share of what is explained
            sound = replace(quantity.term, at=1)
            lost, start = linear(quantity.term / sound), linear(sound)
            bounds.append((summed((sign, lost), (sign * part.threshold, start)), sign * part.threshold * RATE))
        else:
            bounds.append((summed((sign, linear(quantity))), sign * np.log(part.threshold)))
    terms = [*dict.fromkeys(term for told, _ in bounds for term in told)]
    below = np.array([[told.get(term, 0.0) for term in terms] for told, _ in bounds])
    found = linprog(-below.sum(axis=0), below, [bound - margin for _, bound in bounds], bounds=(0.5, 4.0))
    assert found.success, f"{claim.id} contradicts itself"
    rng = np.random.default_rng(0)
    together = rng.normal(0, 0.02, SEEDS)
    return pd.DataFrame(
        PLAIN
        | {"metric": term.metric, "rate": RATE if term.metric == "nats" else np.nan, "experiment": "made",
           "objective": term.objective, "setting": term.setting, "protocol": term.protocol, "scheme": term.scheme,
           "extension": term.extension, "train_len": 128, "eval_len": round(term.at * 128), "seed": seed,
           "log": value + together[seed] + rng.normal(0, 0.0002), "data": "stdlib",
           "text": "made"}
        for term, value in zip(terms, found.x, strict=True) for seed in range(SEEDS)
    )[LINE]  # fmt: skip
