"""Small tables of rows whose perplexities are known."""

import numpy as np
import pandas as pd

from extrap.results.rows import COLUMNS
from extrap.stats.statistics import Statistics

SEGMENTS = ((30, 0.5), (70, 1.5))  # tokens and a share of the loss: unequal, so that a mean of means is another number
N_TOKENS = sum(n for n, _ in SEGMENTS)


def scheme_rows(scheme: str, nll: dict[int, list[float]], /, **changes: object) -> pd.DataFrame:
    """Rows of one scheme whose sum(nll_sum) / sum(n_tokens) is nll[eval_len][seed]; columns as changed by name."""
    weights = sum(n * share for n, share in SEGMENTS)
    run = f"{scheme}-{changes['setting']}" if changes.get("setting") else scheme
    lines = [
        {
            "experiment": "made", "run": f"{run}-seed{seed}", "kind": "scheme", "scheme": scheme, "extension": "none",
            "objective": "mlm", "data": "stdlib", "protocol": "nonoverlap", "train_len": 128, "setting": "",
            "eval_len": eval_len,
            "seed": seed, "document": f"document-{segment}", "segment": 0,
            "nll_sum": value * N_TOKENS * n * share / weights, "n_tokens": n, "n_bytes": n,
        }
        | changes
        for eval_len, by_seed in nll.items()
        for seed, value in enumerate(by_seed)
        for segment, (n, share) in enumerate(SEGMENTS)
    ]  # fmt: skip
    return pd.DataFrame(lines)[COLUMNS]


def many(nll: dict[str, dict[int, list[float]]], **changes: object) -> pd.DataFrame:
    """The same for several schemes."""
    return pd.concat([scheme_rows(name, by_length, **changes) for name, by_length in nll.items()], ignore_index=True)


def both_protocols(nll: dict[str, dict[int, list[float]]], **changes: object) -> pd.DataFrame:
    return pd.concat([many(nll, protocol=p, **changes) for p in ("nonoverlap", "same_targets")], ignore_index=True)


# a floor that gains 0.2 nats from 128 to 512, and a plateau 0.5 nats above it at 128
FLOOR = {128: [1.4], 256: [1.3], 512: [1.2]}
PLATEAU = {128: [1.9], 256: [1.9], 512: [1.9]}


def with_floor(nll: dict[str, dict[int, list[float]]], **changes: object) -> pd.DataFrame:
    """Schemes beside a floor, a window's floor and a plateau."""
    references = [
        scheme_rows("floor", FLOOR, kind="floor"),
        scheme_rows("floor, last 128", dict.fromkeys(FLOOR, FLOOR[128]), kind="window_floor"),
        scheme_rows("symbol counts", PLATEAU, kind="plateau"),
    ]
    return pd.concat([many(nll), *references], ignore_index=True).assign(data="markov", objective="causal", **changes)


def by_document(schemes: dict[str, np.ndarray], n_tokens: np.ndarray, /, **changes: object) -> pd.DataFrame:
    """Rows at 128 tokens from (seed, document) nats per token; a document of more than 100 tokens is two segments."""
    lines = [
        {
            "scheme": scheme,
            "seed": seed,
            "document": f"document-{d:03}",
            "segment": segment,
            "nll": nll[seed, d],
            "n_tokens": n,
        }
        for scheme, nll in schemes.items()
        for seed in range(len(nll))
        for d, tokens in enumerate(n_tokens)
        for segment, n in enumerate([tokens] if tokens <= 100 else [100, tokens - 100])
    ]
    rows = pd.DataFrame(lines).assign(
        experiment="made", run="made", kind="scheme", extension="none", objective="causal", data="stdlib",
        protocol="same_targets", train_len=128, setting="", eval_len=128,
    )  # fmt: skip
    return rows.assign(nll_sum=rows["nll"] * rows["n_tokens"], n_bytes=rows["n_tokens"]).assign(**changes)[COLUMNS]


def shuffled(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    return rows.iloc[np.random.default_rng(seed).permutation(len(rows))].reset_index(drop=True)


def forced(found: Statistics, **tables: pd.DataFrame) -> Statistics:
    """As if these had been computed from the rows."""
    vars(found).update(tables)
    return found
