"""Rows of the predictors that are known in closed form for a source. Imports no torch."""

from typing import Any

import numpy as np
import pandas as pd

from extrap.config.schema import Config
from extrap.config.specs import REFERENCES
from extrap.data.base import Source
from extrap.objectives import Objective, parts_of
from extrap.results.rows import COLUMNS
from extrap.score.protocols import PROTOCOLS, bytes_scored, every, held_out_batch, label, rows_of


def reference_rows(config: Config, source: Source, objective: Objective) -> pd.DataFrame:
    """One row a (reference, protocol, eval_len, segment), as for a scheme.

    `unigram` predicts every token from the frequencies in the training text. Floors and counts of a source see exactly what
    a causal model sees: the tokens from the start of its window up to the one before the target; what two-sided context is
    worth has no closed form here. Detection has references of its own. Under `pseudo` there is none: alone, it gives a
    table without rows.
    """
    found = {part: _of_part(config, source, own) for part, own in parts_of(objective).items()}
    return pd.concat([
        label_rows(rows, config, part, run=[f"{config.references.name}/{scheme}" for scheme in rows["scheme"]], seed=0)
        for part, rows in found.items()
    ])  # fmt: skip


def _of_part(config: Config, source: Source, objective: Objective) -> pd.DataFrame:
    frames: list[pd.DataFrame] = []
    held_out, batch = held_out_batch(source, objective, config.eval)
    n_bytes, unit = bytes_scored(held_out, source, objective), "token" if (source.token_bytes > 1).any() else "byte"
    train_len, causal = config.train.train_len, objective.causal
    plain = objective.references(held_out.tokens, batch, source, train_len)
    for protocol in config.eval.protocols:
        if protocol == "pseudo":  # hides other tokens, for whose sake alone nobody needs a reference
            continue
        for eval_len, windows in PROTOCOLS[protocol](config.eval, train_len, causal).items():
            context = np.ones(batch.targets.shape[1], dtype=np.int64)
            scored = np.zeros_like(batch.scored)
            for start, _, score_start, score_stop in windows:
                context[score_start:score_stop] = np.arange(score_start, score_stop) - start + 1
                scored[:, score_start:score_stop] = batch.scored[:, score_start:score_stop]
            known = dict(plain)
            if causal:
                seen = [source.references(tokens, context, train_len) for tokens in held_out.tokens]
                known |= {kind: np.stack([one[kind] for one in seen]) for kind in seen[0]}
            for kind, nll in known.items():
                step = every(config.eval, protocol)
                sums = np.stack([np.where(scored, one, 0.0).sum(axis=1) for one in (nll, scored, n_bytes)])
                rows = rows_of(held_out.thinned(step), label(config.eval, protocol), eval_len, sums[:, ::step])
                frames.append(rows.assign(kind=kind, scheme=REFERENCES[kind].format(train_len=train_len, unit=unit)))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def label_rows(rows: pd.DataFrame, config: Config, part: str = "", **columns: object) -> pd.DataFrame:
    """The rows with every column; `columns` holds what the config does not say."""
    return rows.assign(**(labels(config, part) | columns))[COLUMNS]


def labels(config: Config, part: str = "") -> dict[str, str | int]:
    """What a config says about its rows, or those of a part of its objective."""
    return {
        "experiment": config.name,
        "run": "/".join(filter(None, [config.run, part])),
        "objective": "_".join(filter(None, [config.objective["_target_"].rpartition(".")[2].lower(), part])),
        "data": _data(config.data),
        "train_len": config.train.train_len,
        "setting": config.setting,
    }


def _data(spec: dict[str, Any]) -> str:
    """stdlib, text(joined, bpe=4096), wikitext-2: whatever makes other tokens is named."""
    name: str = spec.get("name", spec["_target_"].rpartition(".")[2].lower())
    told = [text for option, text in (("join", "joined"), ("bpe", f"bpe={spec.get('bpe')}")) if spec.get(option)]
    return name + (f"({', '.join(told)})" if told else "")
